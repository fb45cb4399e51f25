"""The suite `alfworld`: the official game files of ALFWorld (Shridhar et al., arXiv:2010.03768),
found in ``$ALFWORLD_DATA`` and played by the household's fast engine, in both of their dialects.

In this package `alfworld` means the library. Nothing here imports it: a game file brings its own
logic and grammar.
"""
