"""Sampled ids taken apart: what was thought, and what was answered."""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from ..action_format import CLOSED, OPENED
from ..conversation import Turn
from .template import Frame, ThoughtFrame


@dataclass(frozen=True, slots=True)
class Answer:
    """What was sampled, taken apart."""

    thoughts: str
    text: str
    """The answer, space and special tokens included."""
    bare: str
    """The answer without them."""
    tokens: tuple[int, ...]
    """The ids of `text`; none where it does not begin with a token."""


class Answers:
    """Takes answers of one model apart.

    Args:
        thoughts: where a template puts them; None where there are to be none.
        frame: what it writes around an answer without them.
        tokenize: from text to ids, without special tokens of its own.
        decode: from ids to text, with special tokens.
        special: ids of special tokens.
        cache_size: how many answers to remember.
    """

    def __init__(
        self,
        thoughts: ThoughtFrame | None,
        frame: Frame,
        tokenize: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        special: Collection[int],
        cache_size: int = 4096,
    ) -> None:
        self._thoughts, self._tokenize, self._decode = thoughts, tokenize, decode
        self._special = special
        self._opening = (thoughts.opening.strip() if thoughts else "") or OPENED
        self._mark = CLOSED
        if thoughts and CLOSED not in thoughts.between:
            inside = frame.opening and thoughts.between.endswith(frame.opening)
            self._mark = frame.opening if inside else thoughts.between.strip()
        self.of = functools.lru_cache(maxsize=cache_size)(self._take_apart)
        """The parts of some ids, a tuple."""

    def begun(self, tokens: Sequence[int]) -> bool:
        """Whether the thoughts in sampled ids are over."""
        return self._mark in self._decode(tokens[-len(self._mark) :])

    def known(self, turn: Turn) -> Turn:
        """The turn with thoughts only where there may be some, and with its sampled ids only if
        they are this tokenizer's: an episode may come from another model."""
        if self._thoughts is None and turn.reasoning:
            turn = replace(turn, reasoning="")
        if not turn.tokens:
            return turn
        try:
            answer = self.of(turn.tokens)
        except (IndexError, OverflowError, TypeError, ValueError):  # no such ids
            return replace(turn, tokens=())
        if answer.bare != turn.text.strip():
            return replace(turn, tokens=())
        return turn if self._thoughts else replace(turn, tokens=answer.tokens)

    def _take_apart(self, tokens: tuple[int, ...]) -> Answer:
        text, frame, mark = self._decode(tokens), self._thoughts, self._mark
        before, found, answer = text.rpartition(mark)
        if not found:
            if text.lstrip().startswith(self._opening) or (frame and not frame.opening):
                thoughts = self._bare(text.lstrip().removeprefix(self._opening))
                return Answer(thoughts, "", "", ())  # it never came to an answer
            return Answer("", text, self._bare(text), tokens)
        answer = answer.lstrip("\n")
        ending = frame.between.partition(mark)[0] if frame else ""
        thoughts = self._bare(before.lstrip().removeprefix(self._opening).removesuffix(ending))
        for first in range(len(tokens) - 1, -1, -1):
            tail = tokens[first:]
            if (end := self._decode(tail)) == answer:
                return Answer(thoughts, answer, self._bare(answer), tail)
            if len(end) > len(answer) + len(mark):
                break
        return Answer(thoughts, answer, self._bare(answer), ())

    def _bare(self, text: str) -> str:
        """Text without special tokens and without space around."""
        ids = self._tokenize(text)
        if any(token in self._special for token in ids):
            text = self._decode([i for i in ids if i not in self._special])
        return text.strip()
