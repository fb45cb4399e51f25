"""ScienceWorld, a house in which thirty kinds of school experiments are to be done, on the JVM:
suite `scienceworld`."""

from .suite import ScienceWorldSuite

__all__ = ["ScienceWorldSuite"]
