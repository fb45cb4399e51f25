"""How much memory a training step takes, and how much there is."""

import os
from typing import Any

from ..extras import needs

with needs("llm"):
    import torch


def activations(config: Any, tokens: int, size: int) -> float:
    """What is kept of a forward pass for the backward pass, in bytes; a rule of thumb for
    transformers.

    Each layer keeps about 16 vectors as wide as the model and 6 as wide as its inner layer.

    Args:
        config: the model's.
        tokens: in the pass.
        size: bytes of a number.
    """
    config = config.get_text_config()
    width = int(getattr(config, "hidden_size", 0) or getattr(config, "n_embd", 0) or 1024)
    inner = int(getattr(config, "intermediate_size", 0) or 4 * width)
    return float(config.num_hidden_layers * tokens * size * (16 * width + 6 * inner))


def spare_memory(device: torch.device) -> float:
    """Bytes that activations may take on a device without anybody noticing: a quarter of what is
    free, and at most 2 GB on a CPU, whose memory others use too."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0]) / 4
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on this system
        return _SPARE
    return min(_SPARE, free / 4)


_SPARE = 2e9
