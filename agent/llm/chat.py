"""Conversations as token ids: a tokenizer's own chat template, applied one turn at a time.

The template is rendered turn by turn, so that a turn is tokenised once however often its
conversation is encoded, and so that the ids an assistant turn was sampled as stay the ids it is
read as. That equals rendering the whole conversation only for templates that never look back;
`ChatEncoder` checks this when it is made and refuses the others.

Text of any turn goes through the tokenizer as it is: where it spells a special token, it becomes
that token.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..conversation import Conversation, Role, Turn

if TYPE_CHECKING:  # transformers takes seconds to import, and only the tokenizer's owner needs it
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

_PROBE = (
    Turn("system", "Probe seven: act."),
    Turn("user", "You are in a room. There is a door."),
    Turn("assistant", "open the door"),
    Turn("user", "The door is open."),
    Turn("assistant", "go north"),
    Turn("user", "Nothing happens."),
    Turn("assistant", "look"),
)
_FIX = "pass chat_template= a template that writes each turn the same way wherever it stands"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as the model reads it."""

    ids: list[int]
    """Token ids."""
    supervised: list[bool]
    """As long as `ids`: what the model itself must produce, that is, assistant turns with their
    end-of-turn token."""


@dataclass(frozen=True, slots=True)
class _Segment:
    ids: tuple[int, ...]
    first: int = 0
    last: int = 0
    """`ids[first:last]` are supervised."""


class ChatEncoder:
    """Encodes conversations with a tokenizer's chat template.

    A template that knows no system role gets the system text in front of the first user turn, an
    empty line between.

    Args:
        tokenizer: any transformers tokenizer.
        chat_template: a Jinja template to use instead of the tokenizer's own.
        eos_ids: further ids that end a turn, as from a model's generation_config.
        cache_size: how many distinct turns to remember.

    Raises:
        ValueError: there is no chat template, or it cannot be applied turn by turn.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: str | None = None,
        eos_ids: Collection[int] = (),
        cache_size: int = 4096,
    ) -> None:
        self._tokenizer: Any = tokenizer  # its call signature is far too wide to be checked
        self._template = chat_template
        self._name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if chat_template is None and not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"tokenizer {self._name} has no chat template: use an instruction-tuned model, or "
                "pass chat_template="
            )
        self._segment = functools.lru_cache(maxsize=cache_size)(self._encode_segment)
        self._fold_system = not self._knows_system()
        opening, first, last = _PROBE[:2], _PROBE[2], _PROBE[3]
        self._user_head = self._render((*opening, first))
        self._assistant_head = self._render(opening)
        prompt = self._remainder(
            self._assistant_head, self._render(opening, generation_prompt=True), "the turn marker"
        )
        reply = self._remainder(
            self._assistant_head, self._render((*opening, first)), "the last user turn"
        )
        before, found, self._close = reply.partition(first.text)
        if not found or before != prompt:
            raise ValueError(
                f"chat template of {self._name} opens an assistant turn with {before!r}, but asks "
                "for one with "
                f"{prompt!r} (a thinking block?): {_FIX}"
            )
        self._prompt_ids = tuple(self._tokenize(prompt))
        self._plain: dict[Role, tuple[str, str]] = {}
        self._plain = {
            role: around for role in ("user", "assistant") if (around := self._find_plain(role))
        }
        self._close_ids = tuple(self._tokenize(self._close))
        self.stop_ids: frozenset[int] = self._find_stops(eos_ids)
        """Ids that end an assistant turn; the first token of what the template puts after one is
        among them."""
        self._check_probe(last)

    def encode(self, conversation: Conversation, generation_prompt: bool) -> Encoded:
        """Token ids of a conversation, and which of them the model must produce.

        The ids of a conversation are a prefix of those of the same conversation with more turns,
        also with `generation_prompt` when the turn that follows is an assistant's.

        Args:
            conversation: at most one system turn, in front, then user and assistant turns in
                alternation, user first.
            generation_prompt: append what tells the model that its turn has come; the last turn
                must be a user's.

        Raises:
            ValueError: the turns are not in that order.
        """
        _check_order(conversation)
        if generation_prompt and conversation[-1].role != "user":
            raise ValueError(
                "the model can only be asked after a user turn, not after a "
                f"{conversation[-1].role} turn"
            )
        ids: list[int] = []
        supervised: list[bool] = []
        system = ""
        rest = conversation
        if conversation[0].role == "system":
            system, rest = conversation[0].text, conversation[1:]
            if not rest:
                raise ValueError("a conversation needs a user turn after its system turn")
        for index, turn in enumerate(rest):
            if turn.tokens:
                segment = self._from_tokens(turn.tokens)
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
        return Encoded(ids, supervised)

    def count(self, text: str) -> int:
        """Number of tokens of a text by itself."""
        return len(self._tokenize(text))

    def decode(self, ids: Collection[int]) -> str:
        """Text of sampled ids, without special tokens and without space around it."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def raw_text(self, token: int) -> str:
        """Text of one token, special ones and space included."""
        text: str = self._tokenizer.decode([token])
        return text

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
            return _Segment(tuple(self._tokenize(self._render(turns))))
        ids = tuple(self._tokenize(self._render_turn(role, text)))
        if role == "user":
            return _Segment(ids)
        opened, closed = len(self._prompt_ids), len(self._close_ids)
        if ids[:opened] != self._prompt_ids or ids[len(ids) - closed :] != self._close_ids:
            # The text's first or last token swallowed part of the template. Growing at the end only
            # matters more than the same ids, because a sampled turn could never have had that
            # token.
            return self._from_tokens(tuple(self._tokenize(text)))
        return _Segment(ids, opened, len(ids) - closed + 1)

    def _render_turn(self, role: Role, text: str) -> str:
        """One turn after the opening, as the template writes it behind others."""
        if role in self._plain:
            before, after = self._plain[role]
            return f"{before}{text}{after}"
        head, turns = (
            (self._user_head, _PROBE[:3]) if role == "user" else (self._assistant_head, _PROBE[:2])
        )
        return self._remainder(head, self._render((*turns, Turn(role, text))), "earlier turns")

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

    def _from_tokens(self, tokens: tuple[int, ...]) -> _Segment:
        ids = self._prompt_ids + tokens + self._close_ids
        first = len(self._prompt_ids)
        return _Segment(ids, first, first + len(tokens) + 1)

    def _render(self, turns: Conversation, generation_prompt: bool = False) -> str:
        messages: list[Message] = [{"role": turn.role, "content": turn.text} for turn in turns]
        if self._fold_system and messages[0]["role"] == "system":
            folded = f"{messages[0]['content']}\n\n{messages[1]['content']}"
            messages[:2] = [{"role": "user", "content": folded}]
        return self._apply(messages, generation_prompt)

    def _apply(self, messages: list[Message], generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )
        return text

    def _tokenize(self, text: str) -> list[int]:
        # The template has written every special token already.
        ids: list[int] = (
            self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        )
        return ids

    def _remainder(self, head: str, whole: str, what: str) -> str:
        if not whole.startswith(head):
            raise ValueError(
                f"chat template of {self._name} rewrites {what} when a turn is added: {_FIX}"
            )
        return whole[len(head) :]

    def _knows_system(self) -> bool:
        messages = [{"role": turn.role, "content": turn.text} for turn in _PROBE[:2]]
        try:
            return _PROBE[0].text in self._apply(messages, False)
        except Exception:  # templates refuse through raise_exception, whose type is Jinja's
            return False

    def _find_stops(self, eos_ids: Collection[int]) -> frozenset[int]:
        added = self._tokenizer.added_tokens_decoder
        eos = self._tokenizer.eos_token_id
        if not self._close_ids or (self._close_ids[0] not in added and self._close_ids[0] != eos):
            raise ValueError(
                f"chat template of {self._name} ends an assistant turn with {self._close!r}, which "
                "does not begin with "
                "a special token, so nothing would tell that the model has finished: add one to "
                "template and tokenizer"
            )
        return frozenset(eos_ids) | {self._close_ids[0]} | ({eos} if eos is not None else set())

    def _check_probe(self, last: Turn) -> None:
        """The whole point: turn by turn must give what rendering everything at once gives."""
        now = datetime.now()
        rendered = self._render(_PROBE)
        for pattern in ("%d %b %Y", "%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d/%m/%Y"):
            if now.strftime(pattern) in rendered:
                raise ValueError(
                    f"chat template of {self._name} writes today's date into the prompt, so that "
                    "tomorrow the same "
                    f"conversation would read differently: {_FIX}"
                )
        for length in range(2, len(_PROBE) + 1):
            turns = _PROBE[:length]
            asked = turns[-1].role == "user"
            for prompt in (False, True) if asked else (False,):
                expected = self._tokenize(self._render(turns, prompt))
                if self.encode(turns, prompt).ids != expected:
                    raise ValueError(
                        f"chat template of {self._name} cannot be applied turn by turn: {length} "
                        "turns of a probe "
                        "conversation come out differently at once (earlier turns rewritten, a "
                        "thinking block or a "
                        f"token across two turns?): {_FIX}"
                    )


def _check_order(conversation: Conversation) -> None:
    if not conversation:
        raise ValueError("a conversation needs at least one turn")
    offset = 1 if conversation[0].role == "system" else 0
    for index, turn in enumerate(conversation[offset:]):
        expected = "assistant" if index % 2 else "user"
        if turn.role != expected:
            raise ValueError(
                f"turn {index + offset} is a {turn.role} turn where a {expected} turn has to come"
            )
        if turn.tokens and turn.role != "assistant":
            raise ValueError(
                f"turn {index + offset} is a {turn.role} turn with sampled tokens; only assistants "
                "sample"
            )
