"""Keys and values of many conversations at once, kept from one decision to the next.

`SlotTable` knows which slot holds the tokens of which conversation and decides which is reused,
copied or given up. `SlotCache` holds the tensors, and is the `Cache` that a transformers model is
called with. A call works on a *window*: some slots, in order, as the rows of the batch. Slots that
lie side by side are used where they are; others are copied out once per window, and what is written
is then written to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ....extras import needs

with needs("llm"):
    import torch
    from transformers.cache_utils import Cache, CacheLayerMixin

from .sampling import Ids

_EMPTY: Ids = np.zeros(0, dtype=np.int32)


def shared_prefix(left: Ids, right: Ids) -> int:
    """How many ids two conversations have in common, from the start."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


@dataclass(slots=True)
class Slot:
    """What one slot of the cache holds."""

    ids: Ids = field(default_factory=lambda: _EMPTY)
    """Tokens whose keys and values are valid; whatever lies behind them is garbage."""
    prompt: int = 0
    """How many of `ids` were given and stay when the conversation goes on: whoever shares all of
    them carries it on."""
    used: int = 0
    """When it was last used, in calls."""


class SlotTable:
    """Which slot holds what. Knows nothing about tensors.

    Args:
        limit: how many slots there may ever be.
    """

    def __init__(self, limit: int) -> None:
        self.slots: list[Slot] = []
        self._limit = limit
        self._call = 0

    def begin(self, prompts: Sequence[Ids]) -> list[int | None]:
        """Starts a call: which slot each prompt carries on, None where there is none. No slot is
        given twice.

        Args:
            prompts: at most as many as there may be slots.
        """
        self._call += 1
        owners: list[int | None] = [None] * len(prompts)
        keys = [prompt.tobytes() for prompt in prompts]
        # Longest first: of two slots that both lead up to a prompt, the longer one saves more.
        order = sorted(range(len(self.slots)), key=lambda index: -self.slots[index].prompt)
        for index in order:
            slot = self.slots[index]
            if not slot.prompt:
                continue
            given = slot.ids[: slot.prompt].tobytes()
            for row, key in enumerate(keys):
                if owners[row] is None and key.startswith(given):
                    owners[row] = index
                    slot.used = self._call
                    break
        return owners

    def place(self, prompt: Ids) -> tuple[int, int, int]:
        """A slot for a prompt that carries on none: (slot, slot to copy from, tokens to copy).

        The slot is a new one or, when there may be no more, the one that was used longest ago,
        never one in use in this call. The source may be any slot, also the chosen one, whose tokens
        are then cut and not copied.
        """
        source, shared = 0, 0
        for index, slot in enumerate(self.slots):
            common = shared_prefix(slot.ids, prompt)
            if common > shared:
                source, shared = index, common
        if len(self.slots) < self._limit:
            self.slots.append(Slot())
            chosen = len(self.slots) - 1
        else:
            idle = [index for index, slot in enumerate(self.slots) if slot.used != self._call]
            chosen = min(idle, key=lambda index: self.slots[index].used)
        slot = self.slots[chosen]
        slot.ids, slot.prompt, slot.used = prompt[:shared].copy(), 0, self._call
        return chosen, source, shared


@dataclass(slots=True)
class _Window:
    """The rows of the present batch, and where this forward pass writes. Shared by all layers."""

    first: int = 0
    count: int = 0
    slots: torch.Tensor | None = None
    """The rows' slots, shape (rows, 1), when they are copied out; None: slots `first` to
    `first + count` themselves."""
    rows: torch.Tensor | None = None
    """0, 1, 2, … in shape (rows, 1)."""
    positions: torch.Tensor | None = None
    """Where each row's new tokens go, shape (rows, new tokens)."""
    start: int | None = None
    """The same as one number, when all rows write at the same place."""
    length: int = 0
    """How much of each row is attended to."""
    reach: int = 0
    """How long a row can get while the window is open: as much of it is copied out."""
    capacity: int = 0
    total: int = 0


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, each of shape (slots, key-value heads, capacity, head size)."""

    is_sliding = False
    supports_early_init = False

    def __init__(self, window: _Window) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._window = window
        self._work: tuple[torch.Tensor, torch.Tensor] | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates zeros: what is masked is still multiplied, by nought, and must be finite."""
        window = self._window

        def room(like: torch.Tensor) -> torch.Tensor:
            return like.new_zeros((window.total, like.shape[1], window.capacity, like.shape[3]))

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes new keys and values, (rows, heads, new tokens, head size), at the window's
        positions.

        Returns:
            Keys and values of the whole rows, (rows, heads, window length, head size).
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._work is None:
            self.open()
        assert self._work is not None
        keys, values = self._work
        window = self._window
        if window.start is not None:
            end = window.start + key_states.shape[2]
            keys[:, :, window.start : end] = key_states
            values[:, :, window.start : end] = value_states
        else:
            assert window.rows is not None
            self._write(window.rows, keys, values, key_states, value_states)
        if window.slots is not None:
            self._write(window.slots, self.keys, self.values, key_states, value_states)
        return keys[:, :, : window.length], values[:, :, : window.length]

    def _write(self, rows: torch.Tensor, keys: object, values: object, *new: torch.Tensor) -> None:
        for whole, part in zip((keys, values), new, strict=True):
            assert isinstance(whole, torch.Tensor)
            assert self._window.positions is not None
            whole.transpose(1, 2)[rows, self._window.positions] = part.transpose(1, 2)

    def open(self) -> None:
        """Takes up the window's slots as the batch to work on."""
        if not self.is_initialized:
            self._work = None
            return
        assert self.keys is not None
        assert self.values is not None
        window = self._window
        if window.slots is None:
            rows = slice(window.first, window.first + window.count)
            self._work = self.keys[rows], self.values[rows]
        else:
            index = window.slots.flatten()
            self._work = (
                self.keys[:, :, : window.reach][index],
                self.values[:, :, : window.reach][index],
            )

    def narrow(self, keep: slice | torch.Tensor) -> None:
        """Goes on with some of the rows only."""
        assert self._work is not None
        reach = slice(None, self._window.reach)
        self._work = self._work[0][:, :, reach][keep], self._work[1][:, :, reach][keep]

    def grow(self) -> None:
        """Makes room for as many slots and tokens as the window says."""
        if not self.is_initialized:
            return
        assert self.keys is not None
        assert self.values is not None
        grown = []
        for old in (self.keys, self.values):
            slots, heads, capacity, size = old.shape
            new = old.new_zeros((self._window.total, heads, self._window.capacity, size))
            new[:slots, :, :capacity] = old
            grown.append(new)
        self.keys, self.values = grown
        self._work = None

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first tokens of one slot to another."""
        for whole in (self.keys, self.values):
            if whole is not None:
                whole[target, :, :length] = whole[source, :, :length]

    def get_seq_length(self) -> int:
        return self._window.length

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._window.length, 0


class SlotCache(Cache):
    """A transformers `Cache` of slots, each with a length of its own.

    Masks and positions are the caller's: the cache writes where it is told and returns everything
    up to `length`.

    Args:
        layers: the model's number of layers.
        block: by how many tokens the capacity grows.
    """

    def __init__(self, layers: int, block: int = 256) -> None:
        self._window = _Window()
        self._block = block
        self._slot_layers = [_SlotLayer(self._window) for _ in range(layers)]
        super().__init__(layers=list(self._slot_layers))

    def reserve(self, slots: int, length: int) -> None:
        """Makes sure that there are so many slots of at least so many tokens."""
        window = self._window
        if length > window.capacity or slots > window.total:
            # Everything is copied, so room for half as much again is made at once.
            wanted = (
                max(length, window.capacity * 3 // 2)
                if length > window.capacity
                else window.capacity
            )
            window.capacity = -(-wanted // self._block) * self._block
            window.total = max(slots, window.total)
            for layer in self._slot_layers:
                layer.grow()

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of one slot to another."""
        for layer in self._slot_layers:
            layer.copy(source, target, length)

    def open(self, slots: Sequence[int], reach: int, device: torch.device) -> None:
        """Takes some slots, in ascending order, as the rows of the batch.

        Args:
            slots: which.
            reach: no position at or beyond this one will be written before the next `open`.
            device: where the model is.
        """
        window = self._window
        window.reach = reach
        window.first, window.count = slots[0], len(slots)
        adjacent = slots[-1] - slots[0] == len(slots) - 1
        window.slots = None if adjacent else torch.tensor(slots, device=device)[:, None]
        window.rows = torch.arange(len(slots), device=device)[:, None]
        for layer in self._slot_layers:
            layer.open()

    def narrow(self, keep: Sequence[int]) -> None:
        """Goes on with some rows of the batch only; `keep` are their numbers, ascending."""
        window = self._window
        assert window.rows is not None
        adjacent = keep[-1] - keep[0] == len(keep) - 1
        rows = (
            slice(keep[0], keep[-1] + 1)
            if adjacent
            else torch.tensor(keep, device=window.rows.device)
        )
        if window.slots is not None:
            window.slots = window.slots[rows]
        elif not adjacent:
            window.slots = window.rows[rows] + window.first
        window.first, window.count = window.first + keep[0], len(keep)
        window.rows = window.rows[: len(keep)]
        for layer in self._slot_layers:
            layer.narrow(rows)

    def at(self, positions: torch.Tensor, start: int | None, length: int) -> None:
        """Says where the next forward pass writes.

        Args:
            positions: of the new tokens, shape (rows, new tokens).
            start: the first of them, if it is the same in all rows.
            length: how much of each row is to be attended to, new tokens included.
        """
        window = self._window
        window.positions, window.start, window.length = positions, start, length
