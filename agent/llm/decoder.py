"""Token sequences continued by a causal model, with the keys and values of earlier calls reused.

Every call finds, for every prompt, what of it has been encoded before: its own past, or the
beginning of another one (the same instructions, the same memory). Only the rest is encoded, for all
prompts together, and then all answer together, token by token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...extras import needs

with needs("llm"):
    import torch

from .cache import Ids, SlotCache, SlotTable, shared_prefix
from .chat import ChatEncoder

_LONG = 96
"""More new tokens than this are encoded for one conversation alone: a batch wins nothing then, and
padding costs."""
_CHUNK = 512
"""How many tokens are encoded at once, which bounds the memory that attention needs."""
_REST = 1
"""How many tokens of a long prompt are left for the common pass, where everybody's first answer
token comes from."""


@dataclass(slots=True)
class _Row:
    """One conversation during one call."""

    prompt: Ids
    uniform: list[float]
    """One number in [0, 1) for each token that may be sampled; empty when greedy."""
    slot: int = -1
    start: int = 0
    """How much of the prompt has been encoded."""
    tokens: list[int] = field(default_factory=list)
    fed: int = 0
    """How many of `tokens` have been encoded."""
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens in the cache, once the prompt is encoded."""
        return len(self.prompt) + self.fed


class Decoder:
    """Continues prompts until an action ends.

    Args:
        model: a causal language model of transformers, on `device`, with `layers` layers.
        cache_argument: what its forward pass calls the cache.
        encoder: knows which tokens end an action.
        device: where the model is.
        layers: how many it has.
        positions: how many it knows.
        mask_dtype: of attention masks, where the model takes numbers; None: it takes booleans.
        slots: how many prompts are kept.
        temperature: 0 for the likeliest token.
        max_new_tokens: an action ends there at the latest.
    """

    def __init__(
        self,
        model: Any,
        *,
        cache_argument: str,
        encoder: ChatEncoder,
        device: torch.device,
        layers: int,
        positions: int,
        mask_dtype: torch.dtype | None,
        slots: int,
        temperature: float,
        max_new_tokens: int,
    ) -> None:
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.encoder = encoder
        """How conversations become token ids."""
        self.tokens_encoded = 0
        """Tokens that the model has read so far, answers included and padding not."""
        self._cache_argument, self._device = cache_argument, device
        self._positions, self._mask_dtype = positions, mask_dtype
        self._newline: dict[int, bool] = {}
        self._slots = slots
        self._table = SlotTable(slots)
        self._cache = SlotCache(layers)
        self._use(model)

    def _use(self, model: Any) -> None:
        """Decodes with this model from now on. Everything cached is forgotten."""
        self._last: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._only_last)
        self._model = model
        self._table.clear()

    def _continue(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None
    ) -> list[list[int]]:
        """The tokens that follow each prompt, without the one that ends them."""
        rows = [
            _Row(np.array(ids, dtype=np.int32), self._draw(seeds[index]) if seeds else [])
            for index, ids in enumerate(prompts)
        ]
        # The longest first would balance batches better, but whoever asks knows best who belongs
        # together.
        for first in range(0, len(rows), self._slots):
            with torch.inference_mode():
                self._answer(rows[first : first + self._slots])
        return [row.tokens for row in rows]

    def _answer(self, rows: list[_Row]) -> None:
        """Fills in the rows' tokens; as many rows as there are slots at most."""
        self._place(rows)
        batch = sorted(rows, key=lambda row: row.slot)  # slots side by side need not be copied
        width = max(len(row.prompt) - row.start for row in batch)
        reach = max(max(row.start + width, len(row.prompt) + self.max_new_tokens) for row in batch)
        self._cache.reserve(len(self._table.slots), reach)
        self._cache.open([row.slot for row in batch], reach, self._device)
        tokens = np.zeros((len(batch), width), dtype=np.int64)
        for number, row in enumerate(batch):
            tokens[number, : len(row.prompt) - row.start] = row.prompt[row.start :]
        last = [len(row.prompt) - row.start - 1 for row in batch]
        logits = self._forward(
            tokens, [row.start for row in batch], max(len(row.prompt) for row in batch), last
        )
        self.tokens_encoded += sum(last) + len(last)
        try:
            for step in range(self.max_new_tokens):
                for row, token in zip(batch, self._choose(logits, batch, step), strict=True):
                    if not row.done:
                        row.done = self._ends(token, row)
                        if not row.done:
                            row.tokens.append(token)
                batch = self._drop_done(batch)
                if not batch or step == self.max_new_tokens - 1:
                    break
                # Rows that are done but still between others write what nobody reads, behind their
                # end.
                tokens = np.array([[0 if row.done else row.tokens[-1]] for row in batch])
                logits = self._forward(
                    tokens,
                    [row.length for row in batch],
                    max(row.length for row in batch) + 1,
                    None,
                )
                for row in batch:
                    if not row.done:
                        row.fed += 1
                        self.tokens_encoded += 1
        finally:
            for row in rows:
                slot = self._table.slots[row.slot]
                slot.ids = np.concatenate(
                    [row.prompt, np.array(row.tokens[: row.fed], dtype=np.int32)]
                )
                slot.prompt = len(row.prompt)

    def _place(self, rows: list[_Row]) -> None:
        """Gives every row a slot, and encodes all but the last token of what is long."""
        owners = self._table.begin([row.prompt for row in rows])
        slots = min(self._slots, len(self._table.slots) + owners.count(None))
        self._cache.reserve(slots, max(len(row.prompt) for row in rows) + self.max_new_tokens)
        for row, owner in zip(rows, owners, strict=True):
            if owner is None:
                row.slot, source, shared = self._table.place(row.prompt)
                if source != row.slot and shared:
                    self._cache.copy(source, row.slot, shared)
            else:
                row.slot = owner
                shared = shared_prefix(self._table.slots[owner].ids, row.prompt)
            row.start = min(
                shared, len(row.prompt) - 1
            )  # the last token is always read again, for its logits
            slot = self._table.slots[row.slot]
            slot.ids, slot.prompt = row.prompt[: row.start], 0
            if len(row.prompt) - row.start > _LONG:
                self._encode_alone(row)
                slot.ids = row.prompt[: row.start]  # whoever is placed next may copy it

    def _encode_alone(self, row: _Row) -> None:
        self._cache.open([row.slot], len(row.prompt), self._device)
        end = len(row.prompt) - _REST
        while row.start < end:
            stop = min(end, row.start + _CHUNK)
            part = row.prompt[None, row.start : stop].astype(np.int64)
            self._forward(part, [row.start], stop, [stop - row.start - 1])
            self.tokens_encoded += stop - row.start
            row.start = stop

    def _forward(
        self, tokens: np.ndarray[Any, Any], starts: list[int], length: int, last: list[int] | None
    ) -> torch.Tensor:
        """One pass of the model.

        Args:
            tokens: new tokens, shape (rows, new tokens), padded on the right.
            starts: where each row's begin.
            length: tokens of the longest row, new ones included and padding not.
            last: which new token of each row is to be continued; None where there is only one.

        Returns:
            Logits, shape (rows, vocabulary).
        """
        width = tokens.shape[1]
        ids = torch.from_numpy(tokens).to(self._device)
        positions = torch.tensor(starts, device=self._device)[:, None] + torch.arange(
            width, device=self._device
        )
        # Padding may stick out behind the longest row, and behind the last position that the model
        # knows.
        length = max(length, max(starts) + width) if width > 1 else length
        visible = torch.arange(length, device=self._device) <= positions[:, None, :, None]
        mask = visible
        if self._mask_dtype is not None:
            lowest = torch.finfo(self._mask_dtype).min
            mask = torch.where(visible, 0.0, lowest).to(self._mask_dtype)
        self._cache.at(positions, starts[0] if min(starts) == max(starts) else None, length)
        self._last = None if last is None else torch.tensor(last, device=self._device)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.clamp(max=self._positions - 1),
            use_cache=True,
            **{self._cache_argument: self._cache},
        )
        logits: torch.Tensor = output.logits
        return logits[:, -1]

    def _only_last(
        self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...] | None:
        """Before the output layer: one position per row is enough. Logits of a whole prompt would
        cost as much as a layer or more, and `logits_to_keep` keeps the same positions of all
        rows."""
        if self._last is None:
            return None
        hidden = inputs[0]
        return (hidden[torch.arange(len(hidden), device=hidden.device), self._last][:, None],)

    def _choose(self, logits: torch.Tensor, batch: list[_Row], step: int) -> list[int]:
        if not self.temperature:
            greedy: list[int] = logits.argmax(-1).tolist()
            return greedy
        # By hand and in float64: torch.multinomial would draw from one generator for the whole
        # batch.
        cumulative = torch.softmax(logits.double() / self.temperature, -1).cumsum(-1)
        drawn = torch.tensor(
            [[row.uniform[step]] for row in batch], dtype=torch.float64, device=self._device
        )
        chosen = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True).squeeze(1)
        sampled: list[int] = chosen.clamp(max=logits.shape[-1] - 1).tolist()
        return sampled

    def _draw(self, seed: int) -> list[float]:
        if not self.temperature:
            return []
        generator = torch.Generator().manual_seed(seed)
        drawn: list[float] = torch.rand(
            self.max_new_tokens, generator=generator, dtype=torch.float64
        ).tolist()
        return drawn

    def _ends(self, token: int, row: _Row) -> bool:
        if token in self.encoder.stop_ids:
            return True
        if token not in self._newline:
            self._newline[token] = "\n" in self.encoder.raw_text(token)
        # Newlines in front of an action are a habit of some models, and stripped.
        return self._newline[token] and any(not self._newline[earlier] for earlier in row.tokens)

    def _drop_done(self, batch: list[_Row]) -> list[_Row]:
        """Rows that are done at either end cost nothing to leave out; those between cost a copy of
        all others, about as much as a step with four times as many."""
        live = [number for number, row in enumerate(batch) if not row.done]
        if not live:
            return []
        keep = live if 4 * len(live) <= len(batch) else list(range(live[0], live[-1] + 1))
        if len(keep) < len(batch):
            self._cache.narrow(keep)
        return [batch[number] for number in keep]
