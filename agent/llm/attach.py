"""LoRA adapters on a model in memory: attached, swapped and taken off without loading it again.

An adapter's matrices are added to those of the model, which is then as fast as without. The
model's own stay as they are beside them, so that taking an adapter off gives back every bit.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("llm"):
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

from .weights import quiet

_KEPT = 2
"""Adapters whose sums stay in memory: the one in force and the one it is compared with."""

Tensors = dict[str, torch.Tensor]


class Attachable:
    """A model with at most one adapter at a time.

    Args:
        model: a causal language model of transformers.
        merges: whether the adapter's matrices are added; else they are worked out beside the
            model's at every pass, as quantised weights need it.
    """

    def __init__(self, model: Any, merges: bool = True) -> None:
        self.model = model
        """The model as it is now."""
        self._merges = merges
        self._base: Tensors = {name: p.data for name, p in model.named_parameters()}
        self._sums: OrderedDict[str, Tensors] = OrderedDict()
        self._beside: Any = None

    def attach(self, folder: Path, content: str) -> None:
        """Adds an adapter, in place of the one before.

        Args:
            folder: of PEFT.
            content: hash of its weights; the same hash is not added up again.
        """
        self.detach()
        if not self._merges:
            with quiet():
                self._beside = PeftModel.from_pretrained(self.model, str(folder))
            self._beside.eval().requires_grad_(False)
            return
        if content not in self._sums:
            self._sums[content] = self._add_up(folder)
            while len(self._sums) > _KEPT:
                self._sums.popitem(last=False)
        self._sums.move_to_end(content)
        self._point_to(self._sums[content])

    def detach(self) -> None:
        """Takes the adapter off; the weights are bit by bit those that were loaded."""
        if self._beside is not None:
            with quiet():
                self._beside.unload()
            self._beside = None
        self._point_to(self._base)

    def forget(self) -> None:
        """Gives the memory of adapters back that are not in force."""
        self._sums.clear()

    def _point_to(self, tensors: Tensors) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.data is not tensors.get(name, self._base[name]):
                parameter.data = tensors.get(name, self._base[name])

    def _add_up(self, folder: Path) -> Tensors:
        """The model's matrices with the adapter's added, those that it changes only."""
        with quiet():
            tuned: Any = PeftModel.from_pretrained(self.model, str(folder))
        for layer in tuned.modules():
            if isinstance(layer, BaseTunerLayer):
                for parameter in layer.get_base_layer().parameters():  # the sum is made in place
                    parameter.data = parameter.data.clone()
        with quiet():
            self.model = tuned.merge_and_unload().eval().requires_grad_(False)
        return {
            name: parameter.data
            for name, parameter in self.model.named_parameters()
            if parameter.data.data_ptr() != self._base[name].data_ptr()
        }
