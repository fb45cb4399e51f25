"""What a policy that asks others says of itself: what the one says that it stands for."""

from collections.abc import Callable

from ..action_format import PLAIN, ActionFormat


class Through:
    """A policy that stands for another one: prompts, budgets and counts are that one's.

    Args:
        stands_for: a policy.
    """

    def __init__(self, stands_for: object) -> None:
        self._stands_for = stands_for

    @property
    def action_format(self) -> ActionFormat:
        """How an action stands in an answer."""
        found: ActionFormat = getattr(self._stands_for, "action_format", PLAIN)
        return found

    @property
    def model_name(self) -> str:
        """The model's name; empty where it has none."""
        return str(getattr(self._stands_for, "model_name", ""))

    @property
    def count_tokens(self) -> Callable[[str], int] | None:
        """The model's count of a text's tokens; None where it has none."""
        return getattr(self._stands_for, "count_tokens", None)

    @property
    def charge(self) -> Callable[..., object] | None:
        """Takes what episodes used before from the budget of a server; None where there is none."""
        return getattr(self._stands_for, "charge", None)
