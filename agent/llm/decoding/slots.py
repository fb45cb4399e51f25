"""Token sequences continued by a causal model, with the keys and values of earlier calls reused.

Every call finds, for every prompt, what of it has been encoded before: its own past, or the
beginning of another one (the same instructions, the same memory). Only the rest is encoded, for all
prompts together, and then all answer together, token by token.
"""

import inspect
from typing import Any, Protocol

import numpy as np

from ....extras import needs

with needs("llm"):
    import torch

from .cache import SlotCache, SlotTable, shared_prefix
from .sampling import Row, Sampler

_LONG = 96
"""More new tokens than this are encoded for one conversation alone: a batch wins nothing then, and
padding costs."""
_CHUNK = 512
"""How many tokens are encoded at once, which bounds the memory that attention needs."""
_REST = 1
"""How many tokens of a long prompt are left for the common pass, where everybody's first answer
token comes from."""


_GUESSES = 8
"""How many tokens are guessed at most."""
_FEW, _LARGE = 4, 20_000_000
"""Guesses pay where a pass takes its time from reading the weights: with few rows at most, and with
more parameters than this. Elsewhere they cost more than they save (docs/log.md)."""


class Unsupported(ValueError):
    """A model has layers that a way of decoding cannot deal with."""


class Decoder(Protocol):
    """Continues prompts with a model until their answers end."""

    tokens_encoded: int
    """Tokens that the model has read so far, answers included and padding not."""

    def run(self, rows: list[Row]) -> None:
        """Fills in the rows' tokens, without the one that ends them."""
        ...

    def forget(self) -> None:
        """Forgets everything cached, as when the weights change, and gives its memory back."""
        ...


class SlotDecoder:
    """Continues prompts in batches, for models whose layers all keep keys and values.

    Args:
        model: a causal language model of transformers.
        sampler: chooses tokens.
        slots: how many prompts are kept.
        positions: how many the model knows.
    """

    def __init__(self, model: Any, sampler: Sampler, slots: int, positions: int) -> None:
        self.tokens_encoded = 0
        self._sampler, self._positions, self._slots = sampler, positions, slots
        self._model = model
        self._device = next(model.parameters()).device
        config = model.config.get_text_config()
        self._layers: int = config.num_hidden_layers
        # Its name changed within transformers 5, and a model that knows only one ignores the other.
        takes = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in takes else "past_key_values"
        self._windows = windows_of(config)
        self._guesses = _GUESSES if model.num_parameters() > _LARGE else 0
        if model.get_output_embeddings() is None:
            raise Unsupported("no output layer of its own")
        eager = config._attn_implementation == "eager"
        self._mask_dtype = next(model.parameters()).dtype if eager else None
        self._last: torch.Tensor | None = None
        self.forget()

    def forget(self) -> None:
        """Forgets everything cached, and gives its memory back."""
        self._table = SlotTable(self._slots)
        self._cache = SlotCache(self._layers)

    def run(self, rows: list[Row]) -> None:
        """Fills in the rows' tokens."""
        # The longest first would balance batches better, but whoever asks knows best who belongs
        # together.
        hook = self._model.get_output_embeddings().register_forward_pre_hook(self._only_last)
        try:
            with torch.inference_mode():
                for first in range(0, len(rows), self._slots):
                    self._answer(rows[first : first + self._slots])
        finally:
            hook.remove()

    def agrees(self) -> bool:
        """Whether the model says the same with this cache as without any: two conversations side by
        side, one of them cut back and continued."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = self._model.get_input_embeddings().num_embeddings
        talk = torch.randint(0, vocabulary, (2, 14), generator=generator).numpy()
        self._cache.reserve(2, 14)
        self._cache.open([0, 1], 14, self._device)
        with torch.inference_mode():
            self._forward(talk[:, :9], [0, 0], 9, None)
            self._forward(np.stack([talk[0, 9:11], talk[1, 4:6]]), [9, 4], 11, None)
            ours = self._forward(np.stack([talk[0, 11:], talk[1, 6:9]]), [11, 6], 14, None)
            for row, length in enumerate((14, 9)):
                ids = torch.from_numpy(talk[None, row, :length]).to(self._device)
                plain = self._model(input_ids=ids, use_cache=False).logits[0, -1]
                if not same_logits(self._model, ours[row], plain):
                    return False
        self.forget()
        return True

    def _answer(self, rows: list[Row]) -> None:
        """Fills in the rows' tokens; as many rows as there are slots at most."""
        most = self._sampler.most
        self._place(rows)
        batch = sorted(rows, key=lambda row: row.slot)  # slots side by side need not be copied
        width = max(len(row.prompt) - row.start for row in batch)
        reach = max(max(row.start + width, len(row.prompt) + most) for row in batch) + _GUESSES
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
            self._sampler.choose(logits, batch)
            while batch := self._drop_done(batch):
                self._go_on(batch)
        finally:
            for row in rows:
                slot = self._table.slots[row.slot]
                slot.ids = np.concatenate(
                    [row.prompt, np.array(row.tokens[: row.fed], dtype=np.int32)]
                )
                slot.prompt = len(row.prompt) - self._sampler.asking

    def _go_on(self, batch: list[Row]) -> None:
        """Feeds each row's newest token and what is guessed to follow it, and adds the tokens that
        the model says: one, and another one for each guess that was right.

        What was guessed wrong lies behind the row's end, where nobody reads it and the next pass
        writes. Rows that are done but still between others write there, too.
        """
        most = self._guesses if len(batch) <= _FEW else 0
        guesses = [[] if row.done or not most else self._sampler.guess(row, most) for row in batch]
        width = 1 + max(len(guess) for guess in guesses)
        tokens = np.zeros((len(batch), width), dtype=np.int64)
        for number, (row, guess) in enumerate(zip(batch, guesses, strict=True)):
            if not row.done:
                tokens[number, : 1 + len(guess)] = [row.tokens[-1], *guess]
        starts = [row.length for row in batch]
        logits = self._forward(tokens, starts, max(starts) + width, None, every=True)
        going = [number for number, row in enumerate(batch) if not row.done]
        for place in range(width):
            for number in going:
                batch[number].fed += 1
            self.tokens_encoded += len(going)
            self._sampler.choose(logits[going, place], [batch[number] for number in going])
            going = [
                number
                for number in going
                if not batch[number].done
                and guesses[number][place : place + 1] == batch[number].tokens[-1:]
            ]
            if not going:
                break

    def _place(self, rows: list[Row]) -> None:
        """Gives every row a slot, and encodes all but the last token of what is long."""
        owners = self._table.begin([row.prompt for row in rows])
        slots = min(self._slots, len(self._table.slots) + owners.count(None))
        longest = max(len(row.prompt) for row in rows)
        self._cache.reserve(slots, longest + self._sampler.most + _GUESSES)
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

    def _encode_alone(self, row: Row) -> None:
        self._cache.open([row.slot], len(row.prompt), self._device)
        end = len(row.prompt) - _REST
        while row.start < end:
            stop = min(end, row.start + _CHUNK)
            part = row.prompt[None, row.start : stop].astype(np.int64)
            self._forward(part, [row.start], stop, [stop - row.start - 1])
            self.tokens_encoded += stop - row.start
            row.start = stop

    def _forward(
        self,
        tokens: np.ndarray[Any, Any],
        starts: list[int],
        length: int,
        last: list[int] | None,
        every: bool = False,
    ) -> torch.Tensor:
        """One pass of the model.

        Args:
            tokens: new tokens, shape (rows, new tokens), padded on the right.
            starts: where each row's begin.
            length: tokens of the longest row, new ones included and padding not.
            last: which new token of each row is to be continued; None for the last one.
            every: all new tokens are.

        Returns:
            Logits, shape (rows, vocabulary); with `every`, (rows, new tokens, vocabulary).
        """
        width = tokens.shape[1]
        ids = torch.from_numpy(tokens).to(self._device)
        positions = torch.tensor(starts, device=self._device)[:, None] + torch.arange(
            width, device=self._device
        )
        # Padding may stick out behind the longest row, and behind the last position that the model
        # knows.
        length = max(length, max(starts) + width) if width > 1 else length
        mask = self._mask(positions, length)
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
        return logits if every else logits[:, -1]

    def _mask(self, positions: torch.Tensor, length: int) -> Any:
        """What each new token sees, shape (rows, 1, new tokens, length); by kind of layer where a
        model has several."""
        column = torch.arange(length, device=self._device)
        row = positions[:, None, :, None]
        masks = {}
        for kind, window in self._windows.items():
            visible = column <= row
            if window:
                visible &= column > row - window
            if self._mask_dtype is not None:
                lowest = torch.finfo(self._mask_dtype).min
                visible = torch.where(visible, 0.0, lowest).to(self._mask_dtype)
            masks[kind] = visible
        return masks if len(masks) > 1 else next(iter(masks.values()))

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

    def _drop_done(self, batch: list[Row]) -> list[Row]:
        """Rows that are done at either end cost nothing to leave out; those between cost a copy of
        all others, about as much as a step with four times as many."""
        live = [number for number, row in enumerate(batch) if not row.done]
        if not live:
            return []
        keep = live if 4 * len(live) <= len(batch) else list(range(live[0], live[-1] + 1))
        if len(keep) < len(batch):
            self._cache.narrow(keep)
        return [batch[number] for number in keep]


def windows_of(config: Any) -> dict[str, int]:
    """How far back each kind of a model's layers sees, in tokens; 0 for everything.

    Raises:
        Unsupported: it has layers of another kind than attention.
    """
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    window = int(getattr(config, "sliding_window", None) or 0)
    if not kinds:
        uses = getattr(config, "use_sliding_window", True)
        return {"full_attention": window if uses else 0}
    others = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
    if others:
        raise Unsupported(f"layers of kind {', '.join(others)}")
    return {kind: window if kind == "sliding_attention" else 0 for kind in kinds}


def same_logits(model: Any, ours: torch.Tensor, plain: torch.Tensor) -> bool:
    """Whether two vectors of logits of a model, shape (vocabulary,), are the same but for
    rounding."""
    coarse = plain.dtype is not torch.float32 or getattr(model, "is_quantized", False)
    spread = float(plain.float().std()) + 1e-6
    apart = float((ours.float() - plain.float()).abs().max())
    return apart <= (0.2 if coarse else 2e-3) * spread
