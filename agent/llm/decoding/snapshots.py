"""Token sequences continued by any causal model, with the caches that transformers makes for it.

For models that keep a state which cannot be cut back (Mamba, linear attention, hybrids) and for
every other kind that `SlotDecoder` does not know. One conversation at a time: whatever its cache
holds, it belongs to one sequence of tokens. After each answer a conversation's cache is kept, and
a copy of it as it was where the prompt began to ask: one of the two is where it goes on.
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....extras import needs

with needs("llm"):
    import torch

from .cache import shared_prefix
from .sampling import Ids, Row, Sampler
from .slots import same_logits


@dataclass(slots=True)
class _Snapshot:
    """A cache, and the tokens that it holds."""

    ids: Ids
    cache: Any
    used: int = 0


class SnapshotDecoder:
    """Continues prompts one after the other.

    Args:
        model: a causal language model of transformers.
        sampler: chooses tokens.
        slots: how many conversations are kept.
    """

    def __init__(self, model: Any, sampler: Sampler, slots: int) -> None:
        self.tokens_encoded = 0
        self._model, self._sampler = model, sampler
        self._device = next(model.parameters()).device
        takes = inspect.signature(model.forward).parameters
        names = ("cache", "past_key_values", "cache_params")
        self._argument = next((name for name in names if name in takes), names[1])
        wanted = {"use_cache": True, "logits_to_keep": 1}
        anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        self._options = {n: v for n, v in wanted.items() if n in takes or anything}
        self._keep = 2 * slots
        self._calls = 0
        self._kept: list[_Snapshot] = []
        self._at_once = True
        self._goes_on = True
        if not self._agrees():
            self._at_once = False
            self._goes_on = self._agrees()

    @property
    def reuses(self) -> bool:
        """Whether a kept cache can be continued; else each prompt is encoded anew."""
        return self._goes_on

    def forget(self) -> None:
        """Forgets everything cached."""
        self._kept = []

    def run(self, rows: list[Row]) -> None:
        """Fills in the rows' tokens."""
        with torch.inference_mode():
            for row in rows:
                self._answer(row)

    def _answer(self, row: Row) -> None:
        self._calls += 1
        state = self._find(row.prompt)
        stable = len(row.prompt) - self._sampler.asking
        if self._goes_on and len(state.ids) < stable:
            self._feed(state, row.prompt[len(state.ids) : stable])
            self._remember(_Snapshot(state.ids, copy.deepcopy(state.cache), self._calls))
        logits = self._feed(state, row.prompt[len(state.ids) :])
        while True:
            self._sampler.choose(logits, [row])
            if row.done:
                break
            new = np.array(row.tokens, dtype=np.int32)
            if self._goes_on:
                logits = self._feed(state, new[row.fed :])
            else:  # no cache that can be gone on with: everything again
                logits = self._feed(_nothing(), np.concatenate([row.prompt, new]))
            row.fed = len(new)
        if self._goes_on:
            self._remember(state)

    def _find(self, prompt: Ids) -> _Snapshot:
        """What of the prompt has been encoded, for this call to go on with: never all of it, since
        the last token is read for its logits."""
        best: _Snapshot | None = None
        for kept in self._kept:
            length = len(kept.ids)
            fits = length < len(prompt) and shared_prefix(kept.ids, prompt) == length
            if fits and (best is None or length > len(best.ids)):
                best = kept
        if best is None:
            return _nothing(self._calls)
        # Another conversation may begin alike, so what is kept stays as it is.
        return _Snapshot(best.ids, copy.deepcopy(best.cache), self._calls)

    def _remember(self, state: _Snapshot) -> None:
        # What led up to this one is not needed any more.
        self._kept = [
            kept
            for kept in self._kept
            if kept.used == self._calls
            or len(kept.ids) > len(state.ids)
            or shared_prefix(kept.ids, state.ids) < len(kept.ids)
        ]
        self._kept.append(state)
        del self._kept[: -self._keep]

    def _feed(self, state: _Snapshot, ids: Ids) -> torch.Tensor:
        """Encodes further tokens of one conversation; logits of the last one, shape (1,
        vocabulary)."""
        if state.cache is not None and not self._at_once and len(ids) > 1:
            for number in range(len(ids) - 1):
                self._feed(state, ids[number : number + 1])
            ids = ids[-1:]
        output = self._model(
            input_ids=torch.from_numpy(ids.astype(np.int64))[None].to(self._device),
            **self._options,
            **({} if state.cache is None else {self._argument: state.cache}),
        )
        state.cache = getattr(output, self._argument, None)
        state.ids = np.concatenate([state.ids, ids])
        self.tokens_encoded += len(ids)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _agrees(self) -> bool:
        """Whether a cache that holds some tokens can be continued: by several more at once, or
        one by one."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = self._model.get_input_embeddings().num_embeddings
        talk = torch.randint(0, vocabulary, (12,), generator=generator).numpy().astype(np.int32)
        state = _nothing()
        try:
            with torch.inference_mode():
                self._feed(state, talk[:7])
                branch = _Snapshot(state.ids, copy.deepcopy(state.cache))
                self._feed(state, talk[:3])
                ours = self._feed(branch, talk[7:])
                plain = self._feed(_nothing(), talk)
            if branch.cache is None:
                return False
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever else a model raises, it cannot do this
            return False
        return same_logits(self._model, ours[0], plain[0])


def _nothing(call: int = 0) -> _Snapshot:
    """What is known before anything was encoded."""
    return _Snapshot(np.zeros(0, dtype=np.int32), None, call)
