"""Conversations as token ids, one turn at a time: for templates that never look back.

A turn is then tokenised once however often its conversation is encoded, which is a hundred times
faster than rendering all of it, and the ids of a conversation are a prefix of those of the longer
one. Whether that gives what rendering everything at once gives is found out when it is made.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..conversation import Conversation, Role, Turn
from .template import PROBE, ChatTemplate

Tokenize = Callable[[str], list[int]]


class LooksBackError(ValueError):
    """A template writes a turn differently when others follow."""


@dataclass(frozen=True, slots=True)
class _Segment:
    ids: tuple[int, ...]
    first: int = 0
    last: int = 0
    """`ids[first:last]` are supervised."""


class TurnByTurn:
    """Encodes conversations turn by turn.

    Args:
        template: what writes them.
        tokenize: from text to ids, without special tokens of its own.
        decode: from ids to text, with special tokens.
        end: how many tokens behind an answer end it.
        cache_size: how many distinct turns to remember.

    Raises:
        LooksBackError: the template cannot be applied turn by turn.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tokenize: Tokenize,
        decode: Callable[[tuple[int, ...]], str],
        end: int,
        cache_size: int = 4096,
    ) -> None:
        self._template, self._tokenize, self._decode = template, tokenize, decode
        self._end = end
        self._segment = functools.lru_cache(maxsize=cache_size)(self._encode_segment)
        opening, first = PROBE[:2], PROBE[2]
        self._user_head = template.render((*opening, first))
        self._assistant_head = template.render(opening)
        prompt = _remainder(self._assistant_head, template.render(opening, True))
        reply = _remainder(self._assistant_head, template.render((*opening, first)))
        before, found, close = reply.partition(first.text)
        if not found or before != prompt:
            raise LooksBackError("it opens a turn otherwise than it asks for one")
        self._prompt, self._close = prompt, close
        self._prompt_ids = tuple(tokenize(prompt))
        said = f"{prompt}{first.text}"
        both, before_close = tokenize(said + close), tokenize(said)
        in_context = both[: len(before_close)] == before_close
        self._close_ids = tuple(both[len(before_close) :] if in_context else tokenize(close))
        if len(self._close_ids) < end:
            raise LooksBackError("the end of a turn is the beginning of the next")
        self._plain: Mapping[Role, tuple[str, str]] = {}
        roles: tuple[Role, ...] = ("user", "assistant")
        self._plain = {role: around for role in roles if (around := self._find_plain(role))}
        self._check()

    def encode(
        self, conversation: Conversation, generation_prompt: bool
    ) -> tuple[list[int], list[bool]]:
        """Ids of a conversation, and which of them an assistant must produce: its text and
        what ends it."""
        ids: list[int] = []
        supervised: list[bool] = []
        system, rest = "", conversation
        if conversation[0].role == "system":
            system, rest = conversation[0].text, conversation[1:]
        for index, turn in enumerate(rest):
            if turn.tokens:
                segment = self._segment_of_sampled(turn.tokens)
            elif index == 0:
                segment = self._segment(
                    "system" if conversation[0].role == "system" else "user", turn.text, system
                )
            else:
                segment = self._segment(turn.role, turn.text, None)
            start = len(ids)
            ids.extend(segment.ids)
            supervised.extend([False] * len(segment.ids))
            if segment.last:
                count = segment.last - segment.first
                supervised[start + segment.first : start + segment.last] = [True] * count
        if generation_prompt:
            ids.extend(self._prompt_ids)
            supervised.extend([False] * len(self._prompt_ids))
        return ids, supervised

    def _encode_segment(self, role: Role, text: str, system: str | None) -> _Segment:
        """One turn's ids. `system` is None after the opening; role "system" means system and first
        user turn."""
        if system is not None:
            # Both turns at once: some templates write the system text inside the first user turn.
            turns = (
                (Turn("system", system), Turn("user", text))
                if role == "system"
                else (Turn("user", text),)
            )
            return _Segment(tuple(self._tokenize(self._template.render(turns))))
        ids = tuple(self._tokenize(self._render_turn(role, text)))
        if role == "user":
            return _Segment(ids)
        opened, closed = len(self._prompt_ids), len(self._close_ids)
        if ids[:opened] != self._prompt_ids or ids[len(ids) - closed :] != self._close_ids:
            # The text's first or last token swallowed part of the template. Growing at the end only
            # matters more than the same ids, because a sampled turn could never have had that
            # token.
            return self._from_tokens(tuple(self._tokenize(text)))
        return _Segment(ids, opened, len(ids) - closed + self._end)

    def _segment_of_sampled(self, tokens: tuple[int, ...]) -> _Segment:
        """A turn that was sampled: its own ids, unless the template changes the text."""
        if "assistant" not in self._plain:
            text = self._decode(tokens)
            if self._render_turn("assistant", text) != f"{self._prompt}{text}{self._close}":
                return self._segment("assistant", text, None)
        return self._from_tokens(tokens)

    def _from_tokens(self, tokens: tuple[int, ...]) -> _Segment:
        ids = self._prompt_ids + tokens + self._close_ids
        first = len(self._prompt_ids)
        return _Segment(ids, first, first + len(tokens) + self._end)

    def _render_turn(self, role: Role, text: str) -> str:
        """One turn after the opening, as the template writes it behind others."""
        if role in self._plain:
            before, after = self._plain[role]
            return f"{before}{text}{after}"
        head, turns = (
            (self._user_head, PROBE[:3]) if role == "user" else (self._assistant_head, PROBE[:2])
        )
        return _remainder(head, self._template.render((*turns, Turn(role, text))))

    def _find_plain(self, role: Role) -> tuple[str, str] | None:
        """What the template writes around a text, if it leaves the text itself alone.

        Most do, and writing it here is a hundred times faster than rendering a conversation. Texts
        with space around, without anything, with markup and so on show whether it does.
        """
        before, found, after = self._render_turn(role, "plain").partition("plain")
        texts = (
            "plain",
            " padded \n",
            "",
            "two\nlines\n\nand <think>a</think> {{ b }}",
            "<b>&amp;'\"</b>",
            "\n",
        )
        same = found and all(
            self._render_turn(role, text) == f"{before}{text}{after}" for text in texts
        )
        return (before, after) if same else None

    def _check(self) -> None:
        """The whole point: turn by turn must give what rendering everything at once gives."""
        # A long one too: some templates show the last few turns only.
        long = (*PROBE[:1], *PROBE[1:3] * 20, PROBE[3])
        for turns in [*(PROBE[:length] for length in range(2, len(PROBE) + 1)), long]:
            asked = turns[-1].role == "user"
            for prompt in (False, True) if asked else (False,):
                expected = self._tokenize(self._template.render(turns, prompt))
                if self.encode(turns, prompt)[0] != expected:
                    raise LooksBackError(f"{len(turns)} turns come out differently at once")


def _remainder(head: str, whole: str) -> str:
    if not whole.startswith(head):
        raise LooksBackError("it rewrites turns when one is added")
    return whole[len(head) :]
