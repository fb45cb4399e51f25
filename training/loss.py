"""Predictions where something is learnt, and nowhere else."""

from typing import Any

from ..extras import needs

with needs("llm"):
    from torch import Tensor


def target_logits(model: Any, ids: Tensor, learn: Tensor) -> tuple[Tensor, Tensor]:
    """The model's predictions where something is learnt, and nowhere else: with a vocabulary of
    tens of thousands, predictions of all positions take more memory than the model.

    Args:
        model: a causal language model of transformers, PEFT's adapter included.
        ids: token ids, shape (B, T).
        learn: which of them are targets, shape (B, T).

    Returns:
        logits, shape (targets, vocabulary), and the targets, shape (targets,), row by row.
    """
    keep = learn[:, 1:]
    head = model.get_output_embeddings()
    if head is None:
        return model(input_ids=ids, use_cache=False).logits[:, :-1][keep], ids[:, 1:][keep]
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :-1][keep],))
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    return logits, ids[:, 1:][keep]
