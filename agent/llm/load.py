"""A model's files into memory, with errors that say which of them is the matter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("llm"):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

from ..conversation import readable
from .weights import find_model, first_line, quiet

DTYPES = ("float32", "bfloat16", "4bit")
"""What weights can be held in."""


def read(kind: Any, folder: Path, name: str, what: str, **options: Any) -> Any:
    """Something of transformers, from a folder.

    Args:
        kind: an ``Auto…`` class.
        folder: the model's.
        name: what to call the model in an error.
        what: what is read.
        options: of ``from_pretrained``.

    Raises:
        ValueError: it cannot be read, in one line.
    """
    try:
        with quiet():
            return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (
        Exception
    ) as error:  # transformers, tokenizers and safetensors each have kinds of their own
        raise ValueError(
            f"the {what} of {name} cannot be loaded from {folder}: {first_line(error)}"
        ) from None


def token_counter(model: str) -> Callable[[str], int]:
    """What counts the tokens of a text as a model does, without its weights.

    Args:
        model: as for :class:`relive.LocalModel`.

    Raises:
        ValueError, OSError: it has no tokenizer here.
    """
    tokenizer = read(AutoTokenizer, find_model(model), model, "tokenizer")

    def count(text: str) -> int:
        told = tokenizer(readable(text), add_special_tokens=False, verbose=False)
        return len(told["input_ids"])

    return count


def load_base(
    folder: Path, name: str, device: torch.device, dtype: str, attention: str | None = None
) -> Any:
    """A causal language model, ready to act.

    Args:
        folder: its files.
        name: what to call it in an error.
        device: where it is to be.
        dtype: one of `DTYPES`.
        attention: implementation; by default what transformers chooses for the model.

    Raises:
        ValueError: it cannot be loaded, or quantised here.
    """
    options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if dtype == "4bit":
        options |= {"quantization_config": _four_bit(name), "device_map": {"": device}}
    elif dtype in DTYPES:
        options["dtype"] = getattr(torch, dtype)
    else:
        raise ValueError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    model = read(AutoModelForCausalLM, folder, name, "model", **options)
    model = model.eval().requires_grad_(False)
    if dtype != "4bit":
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"{name} cannot be put on device {str(device)!r}: {first_line(error)}"
            ) from None
        if device.type == "cpu":
            _lay_out_for_vectors(model)
    return model


def context_of(config: Any) -> int:
    """How many tokens a model was made for, from its config; without a word about it, as many as
    anybody could want."""
    config = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            return limit
    return 1 << 20


def _four_bit(name: str) -> Any:
    try:
        import bitsandbytes  # noqa: F401  # only to see whether it is there and loads
        from transformers import BitsAndBytesConfig
    except Exception as error:  # its own checks of the machine raise many kinds
        raise ValueError(
            f"{name} cannot be loaded in 4 bits: bitsandbytes is missing or does not run here "
            f"({type(error).__name__}); pip install bitsandbytes, or use dtype 'bfloat16'"
        ) from None
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


def _lay_out_for_vectors(model: torch.nn.Module) -> None:
    """Stores the layers' matrices column by column: CPUs then multiply one vector, as in decoding,
    twice as fast."""
    tied = {id(layer.weight) for layer in model.modules() if isinstance(layer, torch.nn.Embedding)}
    for layer in model.modules():
        # An embedding's rows are what is read, so a matrix that serves as one stays as it is.
        if isinstance(layer, torch.nn.Linear) and id(layer.weight) not in tied:
            layer.weight.data = layer.weight.data.t().contiguous().t()
