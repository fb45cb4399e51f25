"""How a policy counts tokens, for the budget of the memory block."""

from collections.abc import Callable

from .conversation import Policy


def words(text: str) -> int:
    """Number of words: how a policy without a tokenizer counts."""
    return len(text.split())


def counter_of(policy: Policy) -> Callable[[str], int]:
    """The policy's own ``count_tokens``, where it has one; else the number of words."""
    count = getattr(policy, "count_tokens", None)
    return count if callable(count) else words
