"""Several processes that train one adapter on a model none of them holds on its device: FSDP.

``accelerate launch`` with FSDP settings (``scripts/recipes/fsdp``) starts them. Every process has
the model in main memory, where the policy keeps it, and its share of every matrix on its device;
a layer is put together when its turn comes, and taken apart again. The sharding is torch's own
(``fully_shard``): accelerate's ``prepare`` leaves models as they are on CPUs, and a recipe that
cannot be run where there is no GPU cannot be tested there either.
"""

import copy
import os
from collections.abc import Sequence
from typing import Any

from ..extras import needs

with needs("llm"):
    import torch
    from torch import Tensor, nn

from .together import Together

Piece = tuple[Tensor, Tensor]
"""Ids and what to learn of them, as of :func:`relive.training.batches.pieces`."""


def processes(device: torch.device) -> Together:
    """This process among those it was launched with, as the launcher's settings say.

    Args:
        device: where the model is.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return Sharded()
    return Together(device)


class Sharded(Together):
    """This process among those that each hold a share of the model.

    Raises:
        ValueError: settings of FSDP that are not followed here.
    """

    def __init__(self) -> None:
        from accelerate import FullyShardedDataParallelPlugin, PartialState
        from torch.distributed.fsdp import CPUOffloadPolicy

        cpus = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
        state = PartialState(cpu=cpus)
        self.count, self.rank, self.device = state.num_processes, state.process_index, state.device
        told = FullyShardedDataParallelPlugin()
        if told.fsdp_version != 2:
            raise ValueError(
                f"these FSDP settings are of version {told.fsdp_version}: use fsdp_version: 2 "
                "(scripts/recipes/fsdp), which shards frozen and trained matrices side by side"
            )
        self._reshard = bool(told.reshard_after_forward)
        self._offload = isinstance(told.cpu_offload, CPUOffloadPolicy)
        if self._offload and self.device.type == "cpu":
            raise ValueError("fsdp_offload_params is for GPUs: shares are in main memory already")

    def twin(self, base: Any) -> Any:
        """A model to shard with the same weights in the same memory: the policy's own stays whole.

        Sharding copies each matrix's share, so the twin costs no second copy of the model.

        Raises:
            ValueError: the weights are packed, in 4 bits for example.
        """
        if not all(parameter.is_floating_point() for parameter in base.parameters()):
            raise ValueError("packed weights cannot be sharded: use dtype 'bfloat16', or no FSDP")
        known: dict[int, Any] = {}
        for parameter in base.parameters():
            known[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False)
        return copy.deepcopy(base, known)

    def shard(self, tuned: Any) -> Any:
        """Distributes a model with its adapter, layer by layer; in place."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
        from torch.distributed.tensor import DTensor

        told: dict[str, Any] = {
            "mesh": init_device_mesh(self.device.type, (self.count,)),
            "reshard_after_forward": self._reshard,
            "offload_policy": CPUOffloadPolicy() if self._offload else OffloadPolicy(),
        }
        for part in (*layers_of(tuned), tuned):  # the last takes what no layer has
            for parameter in part.parameters():
                if not isinstance(parameter, DTensor):  # nobody has taken it yet
                    # A policy on a CPU keeps its matrices transposed.
                    parameter.data = parameter.data.contiguous()
            fully_shard(part, **told)
        return tuned

    def share(self, pieces: Sequence[Any]) -> Sequence[Any]:
        """What of a batch is worked on here; as many pieces everywhere, since every pass puts the
        layers together with all the others. Where one is missing, another is read and nothing is
        learnt of it."""
        mine = list(pieces[self.rank :: self.count])
        ids, learn = pieces[0]
        most = -(-len(pieces) // self.count)
        return mine + [(ids, torch.zeros_like(learn))] * (most - len(mine))

    @property
    def weight(self) -> float:
        """Sharded gradients are averaged over the processes, and a batch's loss is a sum."""
        return float(self.count)

    def sum_up(self, parameters: Sequence[Any], loss: float) -> float:
        """Adds up the loss; the gradients were, with every backward pass."""
        return self.total(loss)

    def save(self, tuned: Any, folder: str) -> None:
        """Puts the adapter together, and writes it in the first process; all take part."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
        )
        whole = get_model_state_dict(tuned, options=options)
        if self.first:
            tuned.save_pretrained(folder, state_dict=whole)


def layers_of(model: Any) -> list[nn.Module]:
    """The repeated blocks of a model: the longest list of modules in it.

    Raises:
        ValueError: it has none.
    """
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of layers that could be sharded")
    return max(lists, key=lambda modules: len(modules))
