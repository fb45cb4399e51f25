"""Several processes that train one adapter: each works on its share of every batch.

``accelerate launch`` starts them and says how many there are. Every process makes the same batches,
takes every n-th piece of each, and has the sum of all gradients before it changes its weights, so
that all of them hold the same adapter at any time.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from ..extras import needs

with needs("llm"):
    import torch
    import torch.distributed as distributed

T = TypeVar("T")


class Together:
    """This process among those that were launched with it; alone without a launcher.

    Args:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.count, self.rank, self.device = 1, 0, device
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState  # sets up what the processes speak through

            state = PartialState(cpu=device.type == "cpu")
            self.count, self.rank = state.num_processes, state.process_index

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, pieces: Sequence[T]) -> Sequence[T]:
        """What of a batch is worked on here."""
        return pieces[self.rank :: self.count]

    @property
    def weight(self) -> float:
        """By what a loss is multiplied before its gradients are worked out."""
        return 1.0

    def twin(self, base: Any) -> Any:
        """The model that is trained: the policy's own."""
        return base

    def shard(self, tuned: Any) -> Any:
        """Distributes a model with its adapter; here every process has all of it."""
        return tuned

    def save(self, tuned: Any, folder: str) -> None:
        """Writes the adapter, in the first process."""
        if self.first:
            tuned.save_pretrained(folder)

    def sum_up(self, parameters: Sequence[Any], loss: float) -> float:
        """Adds up gradients over all processes, in place, and the loss, which is returned."""
        if self.count == 1:
            return loss
        for parameter in parameters:
            if parameter.grad is None:  # this process had no piece
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
        return self.total(loss)

    def total(self, loss: float) -> float:
        """The sum of what all processes have."""
        total = torch.tensor([loss], dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()
