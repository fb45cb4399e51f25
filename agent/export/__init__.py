"""Episodes as other programs take them: fine-tuning messages, data sets, Minari, tables.

What is written shows what each of them has a place for. Everything that is recorded, to be read
back by this program, is what ``relive memory export`` writes.
"""
