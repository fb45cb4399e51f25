"""LoRA adapters on a model in memory: attached, swapped and taken off without loading it again.

An adapter's matrices are added to those of the model, which is then as fast as without. The
model's own stay as they are beside them, so that taking an adapter off gives back every bit.
"""

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("llm"):
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

from .adapters import can_be_added
from .weights import quiet

_KEPT = 2
"""Adapters whose sums stay in memory: the one in force and the one it is compared with."""

Tensors = dict[str, torch.Tensor]


class Attachable:
    """A model with at most one adapter at a time.

    Args:
        model: a causal language model of transformers.
        merges: whether the adapter's matrices are added; else, and where they cannot be, they are
            worked out beside the model's at every pass.
    """

    def __init__(self, model: Any, merges: bool = True) -> None:
        self.model = model
        """The model as it is now."""
        self._merges = merges
        self._base: Tensors = {name: p.data for name, p in model.named_parameters()}
        self._sums: OrderedDict[str, Tensors] = OrderedDict()
        self._now: tuple[Path, str] | None = None

    def attach(self, folder: Path, content: str) -> None:
        """Adds an adapter, in place of the one before.

        Args:
            folder: of PEFT.
            content: hash of what is in it; the same hash is not added up again.

        Raises:
            Exception: whatever PEFT raises; the model is then as it was.
        """
        before = self._now
        self.detach()
        try:
            self._attach(folder, content)
        except BaseException:
            strip(self.model)
            self._point_to(self._base)
            if before:
                self._attach(*before)
                self._now = before
            raise
        self._now = folder, content

    def detach(self) -> None:
        """Takes the adapter off; the weights are bit by bit those that were loaded."""
        strip(self.model)
        self._point_to(self._base)
        self._now = None

    def bare_copy(self) -> Any:
        """The model without its adapter, as another object with the same weights in memory."""
        before = self._now
        self.detach()
        try:
            shared = {id(p): type(p)(p.data, requires_grad=False) for p in self.model.parameters()}
            return copy.deepcopy(self.model, shared | {id(b): b for b in self.model.buffers()})
        finally:
            if before:
                self.attach(*before)

    def forget_others(self) -> None:
        """Gives back the memory of adapters that are not in force."""
        now = self._now[1] if self._now else ""
        self._sums = OrderedDict((key, sums) for key, sums in self._sums.items() if key == now)

    def _attach(self, folder: Path, content: str) -> None:
        if content not in self._sums:
            if not self._merges or not can_be_added(folder, self.model):
                with quiet():
                    PeftModel.from_pretrained(self.model, str(folder))
                self.model.eval().requires_grad_(False)
                return
            self._sums[content] = self._add_up(folder)
            while len(self._sums) > _KEPT:
                self._sums.popitem(last=False)
        self._sums.move_to_end(content)
        self._point_to(self._sums[content])

    def _point_to(self, tensors: Tensors) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.data = tensors.get(name, self._base[name])

    def _add_up(self, folder: Path) -> Tensors:
        """The model's matrices with the adapter's added, those that it changes only."""
        with quiet():
            tuned: Any = PeftModel.from_pretrained(self.model, str(folder))
            for layer in tuned.modules():
                if isinstance(layer, BaseTunerLayer):
                    for parameter in layer.get_base_layer().parameters():  # it is summed in place
                        parameter.data = parameter.data.clone()
            tuned.merge_and_unload()
        self.model.eval().requires_grad_(False)
        return {
            name: parameter.data
            for name, parameter in self.model.named_parameters()
            if parameter.data.data_ptr() != self._base[name].data_ptr()
        }


def strip(model: Any) -> None:
    """Takes every layer of PEFT off a model, whatever state it is in; weights are not touched."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            below: Any = layer.get_base_layer()
        elif isinstance(layer, ModulesToSaveWrapper):
            below = layer.original_module
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, below)
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in vars(model):
            delattr(model, mark)
