"""Eight short text games on the JVM: suite `textworld-express`."""

from .suite import TextWorldExpressSuite

__all__ = ["TextWorldExpressSuite"]
