"""The contract of suites as a check that anyone can run."""

from .contract import Finding, check_env

__all__ = ["Finding", "check_env"]
