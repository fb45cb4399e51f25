"""TALES, the Text Adventure Learning Environment Suite (Cui et al., arXiv:2504.14128): its games,
played by its rules, as far as its games can be had. Its package is not needed."""
