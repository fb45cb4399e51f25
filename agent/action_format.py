"""How an action is written in an answer: the whole turn, behind ``Action:``, or in tags.

Models decorate what they are asked for. Reading takes off quotes, back-ticks, a leading
``Action:``, a full stop at the end and further lines; what was really said stays in the record.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .conversation import Action
from .evaluation.fingerprint import fingerprint

Read = Callable[[str], str | None]
"""From an answer to the action in it; None where there is none."""

OPENED, CLOSED = "<think>", "</think>"
"""What most models write around their thoughts."""

_LABEL = re.compile(r"^[\s>*#_-]*actions?[\s*_]*:[\s*_]*", re.IGNORECASE)
_TAGS = re.compile(r"<action>(.*?)(?:</action>|$)", re.IGNORECASE | re.DOTALL)
_INSIDE = re.compile(r"\bAction:\s*(\S.*)$")
_QUOTES = {"```": "```", '"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "**": "**"}


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

    @property
    def settings(self) -> dict[str, str]:
        """For the record; nothing where the turn is the action."""
        if self.name == PLAIN.name:
            return {}
        if self.name in FORMATS:
            return {"action_format": self.name}
        return {"action_format": self.name, "action_format_code": fingerprint(self.read)}

    def action(self, answer: str, tokens: tuple[int, ...] = (), reasoning: str = "") -> Action:
        """What an answer comes to.

        Args:
            answer: as said, thoughts excluded.
            tokens: as sampled, thoughts included.
            reasoning: the thoughts.
        """
        text = self.read(answer)
        if text is not None and not isinstance(text, str):
            raise TypeError(f"action format {self.name} must return text or None, not {text!r:.80}")
        text = text and text.strip()
        if not text:
            told = (
                "There is no action in this answer. Write one action like this: "
                f"{self.example.format(action='look')}"
            )
            return Action("", tokens, answer, reasoning, told)
        return Action(text, tokens, "" if answer == text else answer, reasoning)


def tidy(text: str) -> str | None:
    """An action without what models put around it; None where nothing is left."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not re.fullmatch(r"```\w*", line)]
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
        if line.endswith(".") and len(line) > 1 and not re.search(r"[.!?]", line[:-1]):
            line = line[:-1].rstrip()
    return line or None


def split_thoughts(text: str) -> tuple[str, str]:
    """Thoughts and answer of a text that may have both; the answer is empty where the thoughts do
    not end."""
    thoughts, found, answer = text.rpartition(CLOSED)
    if found:
        return thoughts.strip().removeprefix(OPENED).strip(), answer.strip()
    if text.lstrip().startswith(OPENED):
        return text.strip().removeprefix(OPENED).strip(), ""
    return "", text.strip()


def _read_react(answer: str) -> str | None:
    lines = answer.splitlines()
    for number, line in enumerate(lines):
        if _LABEL.match(line):
            return tidy(_LABEL.sub("", line)) or tidy("\n".join(lines[number + 1 :]))
    for line in lines:  # thought and action in one
        if found := _INSIDE.search(line):
            return tidy(found[1])
    return None


def _read_tagged(answer: str) -> str | None:
    found = _TAGS.search(answer)
    return tidy(found[1]) if found else None


def _ends_react(answer: str) -> bool:
    *whole, _ = f"{answer}".split("\n")
    return any(_LABEL.match(line) and _LABEL.sub("", line).strip() for line in whole)


def _ends_plain(answer: str) -> bool:
    return "\n" in answer.lstrip()


def _ends_tagged(answer: str) -> bool:
    return "</action>" in answer.lower()


def _never_ends(answer: str) -> bool:
    return False


PLAIN = ActionFormat("plain", tidy, str, "{action}", _ends_plain, "\n", False, 32)
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
    _ends_tagged, ">", True, 128,
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
            f"function {name}", wanted, str, "{action}", _never_ends, "\n", False, 256
        )
    raise TypeError(
        f"action_format must be {', '.join(FORMATS)}, or a function from an answer to the action "
        f"in it, not {wanted!r}"
    )
