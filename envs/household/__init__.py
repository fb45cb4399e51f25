"""ALFWorld's household: real logic, grammar and rooms, games from a seed, a fast engine and a
scripted expert."""

from ...extras import needs

needs("household")
