"""Conversations as token ids: what a model reads when it acts, and what it learns from.

What it reads is what the chat template gives for the conversation so far, with its own answers as
they were sampled wherever the template writes their text unchanged. What it learns from is that,
followed by what it would have had to produce. Many templates rewrite what is past (thoughts are
stripped, an empty block of them stands in the last turn only): an episode then becomes several
sequences, each answer the target of one of them.

Text of any turn goes through the tokenizer as it is: where it spells a special token, it becomes
that token.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..conversation import Conversation, Turn, readable
from .answers import Answers
from .by_turn import LooksBackError, TurnByTurn
from .template import PROBE, ChatTemplate, Frame, Thinking

if TYPE_CHECKING:  # transformers takes seconds to import, and only the tokenizer's owner needs it
    from transformers import PreTrainedTokenizerBase

_LEAD = 80
"""Characters before a text that decide how its first tokens are cut."""


class Encoded(NamedTuple):
    """A conversation as the model reads it."""

    ids: list[int]
    """Token ids."""
    supervised: list[bool]
    """As long as `ids`: what the model is to learn to produce, that is, answers with the token
    that ends them."""


class ChatEncoder:
    """Encodes conversations with a tokenizer's chat template.

    A template that knows no system role gets the system text in front of the first user turn, an
    empty line between. Its date is :data:`relive.agent.llm.template.TODAY`.

    Args:
        tokenizer: any transformers tokenizer.
        chat_template: a Jinja template to use instead of the tokenizer's own.
        template_arguments: further arguments of the template.
        thinking: whether the model thinks before it answers.
        eos_ids: further ids that end a turn, as from a model's generation_config.
        cache_size: how many distinct turns to remember.

    Raises:
        ValueError: there is no chat template, it cannot write a conversation, nothing in it ends a
            turn, or it has no place for thoughts that are asked for.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: str | None = None,
        template_arguments: Mapping[str, Any] = MappingProxyType({}),
        thinking: Thinking = "off",
        eos_ids: Collection[int] = (),
        cache_size: int = 4096,
    ) -> None:
        self._tokenizer: Any = tokenizer  # its call signature is far too wide to be checked
        self.template = ChatTemplate(tokenizer, chat_template, template_arguments, thinking)
        """What writes conversations."""
        self._special = frozenset(tokenizer.added_tokens_decoder) | (
            {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else frozenset()
        )
        self._frame = self._find_frame()
        self._end = self._find_end(self._frame.closing)
        self.stop_ids: frozenset[int] = self._find_stops(eos_ids)
        """Ids that end an assistant turn."""
        opening = self._frame.opening
        self._forced = opening if opening.strip() or self._is_cut_after(opening) else ""
        self._own = "" if self._forced else opening
        lead = self.template.render(PROBE[:4], True)[-_LEAD:]
        self.opening_ids: tuple[int, ...] = (
            () if self.template.thoughts else tuple(self._behind(lead, self._forced))
        )
        """What stands between prompt and answer: it is fed, not sampled."""
        self._answers = Answers(
            self.template.thoughts, self._frame, self._tokenize, self._decode, self._special
        )
        self._prompt_cached = functools.lru_cache(maxsize=64)(self._prompt)
        self._by_turn = self._find_by_turn(cache_size)
        asked = self.prompt(PROBE[:4])
        unasked = self._tokenize(self.template.render(PROBE[:4]))
        self.asking: int = len(asked) - _common(asked, unasked)
        """How many tokens at the end of a prompt only ask for an answer; those before stay when
        the conversation goes on."""

    @property
    def looks_back(self) -> bool:
        """Whether an episode may become several training sequences."""
        return self._by_turn is None

    def prompt(self, conversation: Conversation) -> list[int]:
        """What the model reads when it is to answer.

        Args:
            conversation: at most one system turn, in front, then user and assistant turns in
                alternation, user first and last.

        Raises:
            ValueError: the turns are not in that order, or the template refuses them.
        """
        _check_order(conversation)
        if conversation[-1].role != "user":
            raise ValueError(
                "the model can only be asked after a user turn, not after a "
                f"{conversation[-1].role} turn"
            )
        known = tuple(self._answers.known(turn) for turn in conversation)
        if self._by_turn:
            return self._by_turn.encode(known, True)[0]
        return list(self._prompt_cached(known))

    def sequences(
        self,
        conversation: Conversation,
        masked: Collection[int] = (),
        thoughts: bool = True,
    ) -> list[Encoded]:
        """What to learn from a conversation: each answer once, as it would have been produced.

        Args:
            conversation: as for `prompt`, and it may end with an assistant turn.
            masked: which assistant turns, counted from 0, are no targets.
            thoughts: whether thoughts are learnt too; they are there only with thinking "on".

        Returns:
            One sequence where the template never looks back, else as many as it needs; none where
            there is no target.
        """
        _check_order(conversation)
        known = tuple(self._answers.known(turn) for turn in conversation)
        if self._by_turn:
            one = self._mask(*self._by_turn.encode(known, False), masked)
            return [one] if any(one.supervised) else []
        done: list[Encoded] = []
        number = -1
        for index, turn in enumerate(known):
            if turn.role != "assistant":
                continue
            number += 1
            prompt = self._prompt_cached(known[:index])
            goes_on = done and list(prompt[: len(done[-1].ids)]) == done[-1].ids
            if number in masked:
                continue
            ids, learn = self._target(known[:index], turn, thoughts)
            if goes_on:
                current, new = done[-1], len(prompt) - len(done[-1].ids)
                current.ids.extend([*prompt[len(current.ids) :], *ids])
                current.supervised.extend([*[False] * new, *learn])
            else:
                done.append(Encoded([*prompt, *ids], [*[False] * len(prompt), *learn]))
        return done

    def read(self, tokens: Sequence[int]) -> tuple[str, str]:
        """Thoughts and answer of sampled ids, without special tokens and without space around."""
        answer = self._answers.of(tuple(tokens))
        return answer.thoughts, answer.bare

    def count(self, text: str) -> int:
        """Number of tokens of a text by itself."""
        return len(self._tokenize(text))

    def text_of(self, tokens: Sequence[int]) -> str:
        """Text of ids, special ones and space included."""
        return self._decode(tokens)

    def ids_of(self, text: str) -> list[int]:
        """Ids of a text in which the template's special tokens are spelt out."""
        return self._tokenize(text)

    def has_answer(self, tokens: Sequence[int]) -> bool:
        """Whether the thoughts in sampled ids are over."""
        return self._answers.begun(tokens)

    def _prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """The prompt, rendered at once: text between sampled answers, and these as they are."""
        written, kept = self._written(conversation)
        text = self.template.render(written, True)
        ids: list[int] = []
        done = 0
        for first, last, tokens in [*self._places(written, kept, text), (len(text), 0, ())]:
            ids += [*self._behind(text[max(0, done - _LEAD) : done], text[done:first]), *tokens]
            done = last
        return tuple(ids)

    def _written(
        self, conversation: Conversation
    ) -> tuple[Conversation, dict[int, tuple[int, ...]]]:
        """The turns with the answers' text exactly as sampled, and the ids of these answers."""
        written, kept = list(conversation), {}
        for index, turn in enumerate(conversation):
            if turn.tokens:
                answer = self._answers.of(turn.tokens)
                written[index] = replace(turn, text=answer.text.removeprefix(self._own))
                if answer.tokens and answer.text.startswith(self._own):
                    kept[index] = answer.tokens
        return tuple(written), kept

    def _places(
        self, turns: Conversation, kept: Mapping[int, tuple[int, ...]], text: str
    ) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where in the text the sampled answers stand unchanged: (first, last, ids)."""
        if not kept:
            return []
        marks = {index: f"answer{index}here" for index in kept}
        marked = self.template.render(
            tuple(
                replace(turn, text=marks[index]) if index in kept else turn
                for index, turn in enumerate(turns)
            ),
            True,
        )
        places, at = [], 0
        for index, tokens in kept.items():
            between, found, marked = marked.partition(marks[index])
            answer = turns[index].text
            first = at + len(between)
            if not found or text[at:first] != between:
                break  # the template treats this text in a way of its own
            if not text.startswith(answer, first):
                answer = answer.strip()
                if not text.startswith(answer, first):
                    break
                at = first + len(answer)
                continue  # trimmed: the template's text, not the sampled one
            at = first + len(answer)
            if text[first - len(self._own) : first] == self._own:
                places.append((first - len(self._own), at, tokens))
        return places

    def _target(
        self, before: Conversation, turn: Turn, learn_thoughts: bool
    ) -> tuple[list[int], list[bool]]:
        """Ids of an answer behind its prompt, end of turn included, and which are learnt."""
        frame = self.template.thoughts
        answer: str = turn.text
        tail: tuple[int, ...] = ()
        if turn.tokens:
            sampled = self._answers.of(turn.tokens)
            answer, tail = sampled.text, sampled.tokens
        # Space between answer and end may have been sampled already.
        space = self._frame.closing[: -len(self._frame.closing.lstrip()) or None]
        end = self._end[-1:] if space and answer.endswith(space) else self._end
        if frame and tail and len(tail) < len(turn.tokens):
            head = len(turn.tokens) - len(tail)
            return (
                [*turn.tokens, *end],
                [*[learn_thoughts] * head, *[True] * (len(tail) + len(end))],
            )
        reasoning = turn.reasoning
        lead = self.template.render(self._written(before)[0], True)[-_LEAD:]
        own = "" if frame and reasoning else self._own
        ids = list(self.opening_ids)
        learn = [False] * len(ids)
        pieces: list[tuple[str, bool]] = []
        if frame and reasoning:
            pieces = [(part, learn_thoughts) for part in (frame.opening, reasoning, frame.between)]
        elif frame:  # it may think and has not: so it would have said this itself
            pieces = [(self._forced, True)]
        else:
            lead = (lead + self._forced)[-_LEAD:]
        for text, learnt in [*pieces, (own + answer.removeprefix(self._own), True)]:
            last = tail and text.endswith(answer)
            new = tail if last else self._behind(lead, text)
            ids += new
            learn += [learnt] * len(new)
            lead = (lead + text)[-_LEAD:]
        return [*ids, *end], [*learn, *[True] * len(end)]

    def _behind(self, lead: str, text: str) -> Sequence[int]:
        """Ids of a text behind another, where a token begins with it; else of the text alone."""
        if not text:
            return ()
        before, both = self._tokenize(lead), self._tokenize(lead + text)
        return both[len(before) :] if both[: len(before)] == before else self._tokenize(text)

    def _is_cut_after(self, opening: str) -> bool:
        """Whether a token ends with what the template writes before an answer."""
        lead = self.template.render(PROBE[:4], True)[-_LEAD:]
        whole = self._tokenize(lead + opening + PROBE[4].text)
        part = self._tokenize(lead + opening)
        return whole[: len(part)] == part

    def _mask(self, ids: list[int], supervised: list[bool], masked: Collection[int]) -> Encoded:
        mask, turn, inside = list(supervised), -1, False
        for i, own in enumerate(supervised):
            turn += own and not inside
            inside = own
            if own and turn in masked:
                mask[i] = False
        return Encoded(ids, mask)

    def _tokenize(self, text: str) -> list[int]:
        # The template has written every special token already.
        if not text:
            return []
        ids: list[int] = self._tokenizer(readable(text), add_special_tokens=False)["input_ids"]
        return ids

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens))
        return text

    def _find_by_turn(self, cache_size: int) -> TurnByTurn | None:
        if self.template.thinking == "on" or self._frame.opening:
            return None
        try:
            return TurnByTurn(
                self.template,
                self._tokenize,
                self._decode,
                len(self._end),
                cache_size,
            )
        except LooksBackError:
            return None

    def _find_frame(self) -> Frame:
        frames = {
            replace(frame, closing=frame.closing.partition(PROBE[3].text)[0])
            for frame in (self.template.frame(PROBE[:n], PROBE[n]) for n in (2, 4))
        }
        if len(frames) > 1:
            raise ValueError(
                f"chat template of {self.template.name} writes a first answer otherwise than later "
                "ones: pass chat_template= one that writes them alike"
            )
        return frames.pop()

    def _find_end(self, closing: str) -> list[int]:
        """Ids from the end of an answer to the first special token."""
        ids = self._tokenize(closing)
        for number, token in enumerate(ids):
            if token in self._special:
                return ids[: number + 1]
        raise ValueError(
            f"chat template of {self.template.name} ends an assistant turn with {closing!r}, which "
            "has no special token, so nothing would tell that the model has finished: add one to "
            "template and tokenizer"
        )

    def _find_stops(self, eos_ids: Collection[int]) -> frozenset[int]:
        # A turn that others follow may end differently from the last one.
        onward = self.template.render(PROBE[:4])
        after = onward[onward.rfind(PROBE[2].text) + len(PROBE[2].text) :]
        eos = self._tokenizer.eos_token_id
        return frozenset(
            {*eos_ids, self._end[-1], self._find_end(after)[-1], *([] if eos is None else [eos])}
        )


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    for number, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return number
    return min(len(left), len(right))


def _check_order(conversation: Conversation) -> None:
    if not conversation:
        raise ValueError("a conversation needs at least one turn")
    offset = 1 if conversation[0].role == "system" else 0
    if len(conversation) == offset:
        raise ValueError("a conversation needs a user turn after its system turn")
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
