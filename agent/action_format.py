"""How an action is written in an answer: the whole turn, behind ``Action:``, or in tags.

Models decorate what they are asked for. Reading takes off quotes, back-ticks, a leading
``Action:``, a full stop at the end and further lines; what was really said stays in the record.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .conversation import Action

Read = Callable[[str], str | None]
"""From an answer to the action in it; None where there is none."""

_LABEL = re.compile(r"^[\s>*#_-]*actions?[\s*_]*:[\s*_]*", re.IGNORECASE)
_TAGS = re.compile(r"<action>(.*?)(?:</action>|$)", re.IGNORECASE | re.DOTALL)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "**": "**"}


@dataclass(frozen=True, slots=True)
class ActionFormat:
    """One way of writing an action."""

    name: str
    """For the record."""
    read: Read
    """The action in an answer; None where there is none."""
    write: Callable[[str], str]
    """The answer that says an action and nothing else."""
    example: str
    """How it looks, ``{action}`` standing for an action; for instructions and reminders."""
    ends: Callable[[str], bool]
    """Whether an answer is complete, so that nothing else need be written."""
    ends_with: str
    """The character that the last token of a complete answer holds."""
    ends_inside: bool
    """Whether that token belongs to the answer."""
    tokens: int
    """How many tokens an answer may have, where nobody says otherwise."""
    instruction: str = ""
    """What the prompt says about it, with an example; empty: nothing. The plain form has none: the
    prompt lists every action as it is written, and models are trained on that prompt."""

    def action(self, answer: str, tokens: tuple[int, ...] = (), reasoning: str = "") -> Action:
        """What an answer comes to.

        Args:
            answer: as said, thoughts excluded.
            tokens: as sampled, thoughts included.
            reasoning: the thoughts.
        """
        text = self.read(answer)
        if text is None:
            told = (
                "There is no action in this answer. Write one action like this: "
                f"{self.example.format(action='look')}"
            )
            return Action("", tokens, answer, reasoning, told)
        return Action(text, tokens, "" if answer == text else answer, reasoning)


def tidy(text: str) -> str | None:
    """An action without what models put around it; None where nothing is left."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("```")]
    if not lines:
        return None
    labelled = [line for line in lines if _LABEL.match(line) and _LABEL.sub("", line)]
    line = _LABEL.sub("", labelled[0] if labelled else lines[0]).strip()
    before = ""
    while line != before:
        before = line
        for first, last in _QUOTES.items():
            inner = line[len(first) : -len(last)]
            if line.startswith(first) and line.endswith(last) and inner and first not in inner:
                line = inner.strip()
        if line.endswith(".") and not re.search(r"[.!?]", line[:-1]):
            line = line[:-1].rstrip()
    return line or None


def _read_react(answer: str) -> str | None:
    lines = answer.splitlines()
    for number, line in enumerate(lines):
        if _LABEL.match(line):
            return tidy(_LABEL.sub("", line)) or tidy("\n".join(lines[number + 1 :]))
    return None


def _read_tagged(answer: str) -> str | None:
    found = _TAGS.search(answer)
    return tidy(found[1]) if found else None


def _ends_react(answer: str) -> bool:
    *whole, _ = f"{answer}".split("\n")
    return any(_LABEL.match(line) and _LABEL.sub("", line).strip() for line in whole)


PLAIN = ActionFormat(
    "plain", tidy, str, "{action}", lambda answer: "\n" in answer.lstrip(), "\n", False, 32
)
"""The turn is the action. Its prompt is that of format version 1, which shows every action."""

REACT = ActionFormat(
    "react", _read_react, "Action: {}".format, "Thought: …\nAction: {action}", _ends_react, "\n",
    False, 256,
    "Write what you think in one line and then one action, like this:\n"
    "Thought: I look around first.\nAction: look",
)  # fmt: skip
"""``Thought: … Action: …``, as in Yao et al., arXiv:2210.03629."""

TAGGED = ActionFormat(
    "tagged", _read_tagged, "<action>{}</action>".format, "<action>{action}</action>",
    lambda answer: "</action>" in answer.lower(), ">", True, 128,
    "Write one action in tags, like this: <action>look</action>",
)  # fmt: skip
"""``<action>…</action>`` anywhere in the turn."""

FORMATS = {known.name: known for known in (PLAIN, REACT, TAGGED)}
"""The formats that settings can name."""


def format_of(wanted: "str | ActionFormat | Read") -> ActionFormat:
    """A format by its name, or from a function that reads the action from an answer.

    Raises:
        ValueError: no format has this name.
        TypeError: it is neither.
    """
    if isinstance(wanted, ActionFormat):
        return wanted
    if isinstance(wanted, str):
        if wanted not in FORMATS:
            raise ValueError(
                f"unknown action format {wanted!r}: use {', '.join(FORMATS)}, or a function from "
                "an answer to the action in it"
            )
        return FORMATS[wanted]
    if callable(wanted):
        name = getattr(wanted, "__qualname__", type(wanted).__qualname__)
        return ActionFormat(
            f"function {name}", wanted, str, "{action}", lambda answer: False, "\n", False, 256
        )
    raise TypeError(
        f"action_format must be {', '.join(FORMATS)}, or a function from an answer to the action "
        f"in it, not {wanted!r}"
    )
