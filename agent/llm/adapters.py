"""Whether an adapter's file holds what its config promises: PEFT itself fills in what is missing,
and leaves out what is too much."""

import copy
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("llm"):
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors import safe_open

from .weights import quiet

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
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"adapter {folder} cannot be used: {first}") from None
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


def _promised(folder: Path, model: Any) -> Shapes:
    """What PEFT makes of the config, on a copy of the model that has shapes and no numbers."""
    config = LoraConfig.from_pretrained(str(folder))
    config.init_lora_weights = False  # some ways to begin need the model's numbers
    config.base_model_name_or_path = None  # or its files are looked up, on the hub if need be
    with quiet(), torch.device("meta"):
        tuned = get_peft_model(type(model)(copy.deepcopy(model.config)), config)
    return {name: tuple(t.shape) for name, t in get_peft_model_state_dict(tuned).items()}


def _shapes(file: Path) -> Shapes:
    with safe_open(file, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
