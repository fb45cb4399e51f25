"""Whether an adapter's file holds what its config promises: PEFT itself fills in what is missing,
and leaves out what is too much."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("llm"):
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors import safe_open

from .weights import first_line, quiet

_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin an adapter that take something away from the model's own weights."""

Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by name."""


def check_tensors(folder: Path, model: Any) -> None:
    """Raises unless an adapter has exactly the tensors that its config gives a model.

    Args:
        folder: the adapter, with ``adapter_config.json`` and ``adapter_model.safetensors``.
        model: a transformers model without adapter.

    Raises:
        ValueError: a tensor is missing, is too much or has another shape; or the config cannot be
            used for this model.
    """
    file = folder / "adapter_model.safetensors"
    try:
        promised = _promised(folder, model)
        there = _shapes(file)
    except Exception as error:  # peft, transformers and safetensors each have kinds of their own
        raise ValueError(f"adapter {folder} cannot be used: {first_line(error)}") from None
    missing = sorted(promised.keys() - there.keys())
    extra = sorted(there.keys() - promised.keys())
    changed = [name for name in sorted(promised.keys() & there) if promised[name] != there[name]]
    if missing:
        wrong = (
            f"of the {len(promised)} tensors that its config promises, {len(missing)} are not in "
            f"{file.name}, such as {missing[0]}"
        )
    elif extra:
        wrong = (
            f"{file.name} has {len(extra)} tensors that its config does not promise, such as "
            f"{extra[0]}"
        )
    elif changed:
        name = changed[0]
        wrong = (
            f"{name} has the shape {there[name]}, and its config promises {promised[name]}"
            f" ({len(changed)} such tensors)"
        )
    else:
        return
    raise ValueError(
        f"adapter {folder} is not whole: {wrong}; copy both files again from where they were "
        "trained, or train it again"
    )


def can_be_added(folder: Path, model: Any) -> bool:
    """Whether an adapter's matrices can be added to those of a model: not where it brings modules
    of its own, nor where it changes a matrix that two layers share, such as tied embeddings."""
    config = LoraConfig.from_pretrained(str(folder))
    if config.modules_to_save or config.trainable_token_indices:
        return False
    layers = dict(model.named_modules())
    shared: Counter[int] = Counter(
        id(weight)
        for layer in layers.values()
        if isinstance(weight := getattr(layer, "weight", None), torch.nn.Parameter)
    )
    for key in _shapes(folder / "adapter_model.safetensors"):
        name = key.removeprefix("base_model.model.").partition(".lora_")[0]
        weight = getattr(layers.get(name), "weight", None)
        if weight is not None and shared[id(weight)] > 1:
            return False
    return True


def _promised(folder: Path, model: Any) -> Shapes:
    """What PEFT makes of the config, on a copy of the model that has shapes and no numbers."""
    config = LoraConfig.from_pretrained(str(folder))
    if str(config.init_lora_weights).lower().startswith(_CHANGE_THE_BASE):
        raise ValueError(
            f"it begins with {config.init_lora_weights}, which changes the model's own weights: "
            "save it as a plain adapter (path_initial_model_for_weight_conversion of PEFT)"
        )
    if config.bias != "none":
        raise ValueError(
            f"it has biases of its own (bias={config.bias!r}), which cannot be taken off again: "
            "train it with bias='none'"
        )
    config.init_lora_weights = False  # some ways to begin need the model's numbers
    config.base_model_name_or_path = None  # or its files are looked up, on the hub if need be
    with quiet(), torch.device("meta"):
        tuned = get_peft_model(type(model)(copy.deepcopy(model.config)), config)
    return {name: tuple(t.shape) for name, t in get_peft_model_state_dict(tuned).items()}


def _shapes(file: Path) -> Shapes:
    with safe_open(file, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
