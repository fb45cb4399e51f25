"""Which token comes next and when an answer ends: what all ways of decoding share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ....extras import needs

with needs("llm"):
    import torch

from ...action_format import ActionFormat
from ..chat import ChatEncoder

Ids = npt.NDArray[np.int32]
"""Token ids of one conversation, shape (tokens,)."""


@dataclass(slots=True)
class Row:
    """One conversation during one call."""

    prompt: Ids
    uniform: list[float]
    """One number in [0, 1) for each token that may be sampled; empty when greedy."""
    thinking: bool = False
    """Whether it has not come to its answer yet."""
    slot: int = -1
    start: int = 0
    """How much of the prompt has been encoded."""
    tokens: list[int] = field(default_factory=list)
    fed: int = 0
    """How many of `tokens` have been encoded."""
    answer: int = 0
    """Where in `tokens` the answer begins."""
    forced: list[int] = field(default_factory=list)
    """What comes next, whatever the model says."""
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens in the cache, once the prompt is encoded."""
        return len(self.prompt) + self.fed


class Sampler:
    """Chooses tokens.

    Args:
        encoder: knows which tokens end an answer, and where thoughts end.
        action_format: knows when an answer is complete.
        temperature: 0 for the likeliest token.
        max_new_tokens: an answer ends there at the latest.
        thinking_tokens: thoughts end there at the latest; they come on top.
    """

    def __init__(
        self,
        encoder: ChatEncoder,
        action_format: ActionFormat,
        temperature: float,
        max_new_tokens: int,
        thinking_tokens: int,
    ) -> None:
        self.encoder, self.format = encoder, action_format
        self.temperature = temperature
        self.max_new_tokens, self.thinking_tokens = max_new_tokens, thinking_tokens
        self.asking = encoder.asking + len(encoder.opening_ids)
        """How many tokens at the end of a prompt may be gone when the conversation goes on."""
        self._ends: dict[int, bool] = {}
        frame = encoder.template.thoughts
        self._close = encoder.ids_of(frame.between) if frame else []

    @property
    def most(self) -> int:
        """Tokens that one answer may have, thoughts included."""
        if not self._close:
            return self.max_new_tokens
        return self.max_new_tokens + self.thinking_tokens + len(self._close)

    def row(self, prompt: Sequence[int], seed: int | None) -> Row:
        """A conversation that is to be continued."""
        ids = np.array(prompt, dtype=np.int32)
        return Row(ids, [] if seed is None else self._draw(seed), thinking=bool(self._close))

    def choose(self, logits: torch.Tensor, batch: Sequence[Row]) -> None:
        """Adds a token to each row that is not done.

        Args:
            logits: shape (rows, vocabulary).
            batch: the rows.
        """
        for row, token in zip(batch, self._sample(logits, batch), strict=True):
            if not row.done:
                self._take(row, token)

    def guess(self, row: Row, most: int) -> list[int]:
        """What may follow a row's tokens: what followed the last two, or the last one, where they
        stood before. Actions are made of what was read (prompt lookup; Saxena, 2023)."""
        if not row.tokens:
            return []
        known = np.concatenate([row.prompt, np.array(row.tokens, dtype=np.int32)])
        places = np.flatnonzero(known[:-1] == known[-1])
        if len(places) and len(known) > 2:
            both = places[known[places - 1] == known[-2]]
            places = both if len(both) else places
        if not len(places):
            return []
        found: list[int] = known[places[-1] + 1 : places[-1] + 1 + most].tolist()
        for number, token in enumerate(found):
            if token in self.encoder.stop_ids:
                return found[:number]
        return found

    def _take(self, row: Row, token: int) -> None:
        if row.thinking and not row.forced and len(row.tokens) >= self.thinking_tokens:
            row.forced = list(self._close)
        if row.forced:
            token = row.forced.pop(0)
            row.tokens.append(token)
            if not row.forced:
                row.thinking, row.answer = False, len(row.tokens)
            return
        if row.thinking:
            if token in self.encoder.stop_ids and token != self._close[0]:
                row.done = True
                return
            row.tokens.append(token)
            if self.encoder.has_answer(row.tokens):
                row.thinking, row.answer = False, len(row.tokens)
            return
        inside = self._is_last(token, row)
        if inside is None or inside:
            row.tokens.append(token)
        row.done = inside is not None or len(row.tokens) - row.answer >= self.max_new_tokens

    def _is_last(self, token: int, row: Row) -> bool | None:
        """Whether a token that ends the answer belongs to it; None where it does not end it."""
        if token in self.encoder.stop_ids:
            return False
        if token not in self._ends:
            self._ends[token] = self.format.ends_with in self.encoder.text_of([token])
        if self._ends[token]:
            answer = self.encoder.text_of([*row.tokens[row.answer :], token])
            if self.format.ends(answer):
                return self.format.ends_inside
        return None

    def _sample(self, logits: torch.Tensor, batch: Sequence[Row]) -> list[int]:
        if not self.temperature:
            greedy: list[int] = logits.argmax(-1).tolist()
            return greedy
        # By hand and in float64: torch.multinomial would draw from one generator for the whole
        # batch.
        cumulative = torch.softmax(logits.double() / self.temperature, -1).cumsum(-1)
        drawn = torch.tensor(
            [[0.0 if row.done else row.uniform[len(row.tokens)]] for row in batch],
            dtype=torch.float64,
            device=logits.device,
        )
        chosen = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True).squeeze(1)
        sampled: list[int] = chosen.clamp(max=logits.shape[-1] - 1).tolist()
        return sampled

    def _draw(self, seed: int) -> list[float]:
        if not self.temperature:
            return []
        generator = torch.Generator().manual_seed(seed)
        drawn: list[float] = torch.rand(
            self.most, generator=generator, dtype=torch.float64
        ).tolist()
        return drawn
