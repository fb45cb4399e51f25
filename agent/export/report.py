"""What an export comes to, and what it says about texts that did not fit."""

from dataclasses import dataclass, field

from ...memory.plain import counted
from ..conversation import readable

_REPLACEMENT = "\ufffd"


@dataclass(slots=True)
class Report:
    """What an export comes to, counted while it is written."""

    episodes: int = 0
    """Episodes that were written."""
    steps: int = 0
    """Their steps."""
    empty: int = 0
    """Episodes that were left out because they have no steps, and the format needs one."""
    replaced: int = 0
    """Texts in which half a character became U+FFFD."""
    notes: list[str] = field(default_factory=list)
    """What else there is to know, a line each."""

    def text(self, value: str, also: str = "") -> str:
        """A text that UTF-8 can hold.

        Args:
            value: any text.
            also: further characters that the format cannot hold.
        """
        fit = readable(value)
        for character in also:
            fit = fit.replace(character, _REPLACEMENT)
        self.replaced += fit != value
        return fit

    @property
    def remarks(self) -> list[str]:
        """All there is to say beside how many episodes were written."""
        said = list(self.notes)
        if self.empty:
            said.append(f"left out: {counted(self.empty, 'episode')} without a step")
        if self.replaced:
            said.append(
                f"{counted(self.replaced, 'text')} with half characters, or others that the format "
                "cannot hold; each is written as U+FFFD"
            )
        return said
