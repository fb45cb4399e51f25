"""What is kept of a training that is under way, so that one that was stopped goes on."""

import hashlib
import json
import os
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..agent.llm.chat import Encoded
from ..extras import needs

with needs("llm"):
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

EVERY = 180.0
"""Seconds between two states that are kept: what a stop costs at most."""


class Unfinished:
    """The state of one training, in ``<out>.unfinished`` beside the adapter that it will write.

    What goes on gives the same adapter as what was never stopped: weights, optimiser, losses and
    the state of the random numbers are kept, and the batches before are passed over.

    Args:
        out: folder of the adapter.
        told: whatever decides the training besides its sequences, as JSON. A state of anything else
            is not gone on from, and is written over.
        sequences: what is learnt.
        device: where; a GPU has random numbers of its own.
    """

    def __init__(
        self,
        out: Path,
        told: Mapping[str, Any],
        sequences: Sequence[Sequence[Encoded]],
        device: torch.device,
    ) -> None:
        self.file = out.with_name(out.name + ".unfinished")
        key = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
        for some in sequences:
            for ids, mask in some:
                key.update(repr((list(ids), list(mask))).encode())
        self._key = key.hexdigest()
        self._began = self._kept = time.monotonic()
        self._before = 0.0
        self._cuda = device if device.type == "cuda" else None

    def restore(self, tuned: Any, optimiser: Any) -> tuple[list[float], int]:
        """Puts a model and its optimiser where the training was stopped.

        Returns:
            The losses of the steps that are done, and how many tokens they learnt; none where there
            is nothing to go on from.
        """
        if not self.file.exists():
            return [], 0
        try:
            state = torch.load(self.file, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            return [], 0  # it begins anew, which costs time and nothing else
        if state["key"] != self._key:
            return [], 0
        set_peft_model_state_dict(tuned, state["adapter"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if self._cuda is not None and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self._cuda)
        self._before = float(state.get("seconds", 0.0))
        return list(state["losses"]), int(state["supervised"])

    @property
    def seconds_before(self) -> float:
        """Seconds that the part took that was done before it was stopped."""
        return self._before

    def keep(self, tuned: Any, optimiser: Any, losses: Sequence[float], supervised: int) -> None:
        """Keeps the state after a step, if the last one that was kept is long enough ago."""
        if time.monotonic() - self._kept < EVERY:
            return
        half = self.file.with_name(self.file.name + ".half")
        torch.save(
            {
                "key": self._key,
                "adapter": get_peft_model_state_dict(tuned),
                "optimiser": optimiser.state_dict(),
                "random": torch.get_rng_state(),
                **self._random_cuda(),
                "losses": list(losses),
                "supervised": supervised,
                "seconds": self._before + time.monotonic() - self._began,
            },
            half,
        )
        os.replace(half, self.file)
        self._kept = time.monotonic()

    def _random_cuda(self) -> dict[str, torch.Tensor]:
        if self._cuda is None:
            return {}
        return {"random_cuda": torch.cuda.get_rng_state(self._cuda)}

    def done(self) -> None:
        """Removes what was kept: the adapter is there."""
        self.file.unlink(missing_ok=True)
