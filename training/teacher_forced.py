"""Does the model read its memory? Teacher-forced, in seconds: on the expert's own episodes, which
actions would it have said?

*Reading* is the share of the actions at an appliance (going there, and what is done there) that the
model would have said letter by letter, on held-out episodes whose appliance it was never trained
on: nothing but the memory block can tell it. The *loss* beside it is what fine-tuning watches; in
the paper it misleads (hard success rises at 30-50 epochs while validation loss worsens; Ferraz et
al., arXiv:2603.18272).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..agent.llm.chat import Encoded
from ..extras import needs
from .batches import pieces
from .loss import target_logits

with needs("llm"):
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a conversation, as the model would have continued there."""

    matched: bool
    """Whether every token would have been the same."""
    loss: float
    """Mean cross-entropy of its tokens, in nats."""
    tokens: int


@torch.no_grad()
def forced(model: Any, encoded: Encoded) -> list[Action]:
    """What a causal language model says of the supervised actions of one conversation, in their
    order.

    Args:
        model: of transformers, or with a peft adapter; on any device.
        encoded: a conversation.
    """
    ids, mask = encoded
    device = next(model.parameters()).device
    logits = (
        model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, :-1].float()
    )
    target = torch.tensor(ids[1:], device=device)
    right = (logits.argmax(-1) == target).tolist()
    losses = nn.functional.cross_entropy(logits, target, reduction="none").tolist()
    actions: list[Action] = []
    start = None
    for i in range(1, len(ids) + 1):
        inside = i < len(ids) and mask[i]
        if inside and start is None:
            start = i
        elif not inside and start is not None:
            span = range(start - 1, i - 1)
            mean = sum(losses[j] for j in span) / len(span)
            actions.append(Action(all(right[j] for j in span), mean, len(span)))
            start = None
    return actions


@torch.no_grad()
def mean_losses(
    model: Any, sequences: Sequence[Sequence[Encoded]], tokens: int = 8192
) -> list[float]:
    """Cross-entropy per supervised token of each conversation, in nats; many in one pass.

    Args:
        model: as for :func:`forced`.
        sequences: what each conversation became, one or several; each has something supervised.
        tokens: of a pass at most, padding included, unless one sequence alone has more.
    """
    device = next(model.parameters()).device
    owners = [number for number, some in enumerate(sequences) for _ in some]
    flat = [one for some in sequences for one in some]
    order = sorted(range(len(flat)), key=lambda i: len(flat[i].ids))  # as `pieces` sorts them
    total, counts, done = [0.0] * len(sequences), [0] * len(sequences), 0
    for ids, learn in pieces([flat[i] for i in order], tokens):
        logits, targets = target_logits(model, ids.to(device), learn.to(device))
        losses = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        several = torch.split(losses.double().cpu(), learn[:, 1:].sum(1).tolist())
        for place, some in zip(order[done:], several, strict=False):
            total[owners[place]] += float(some.sum())
            counts[owners[place]] += len(some)
        done += len(ids)
    return [loss / count for loss, count in zip(total, counts, strict=True)]


def mean_loss(actions: Sequence[Action]) -> float:
    """Cross-entropy per token over many actions, in nats."""
    return sum(a.loss * a.tokens for a in actions) / sum(a.tokens for a in actions)
