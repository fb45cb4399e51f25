"""Fine-tuning with LoRA on whole episodes, cross-entropy on the assistant's tokens only.

One pass over a multi-turn episode trains all of its actions at once (Ferraz et al.,
arXiv:2603.18272). peft and transformers do what they do; what is ours is the choice of examples and
the manifest. Rehearsal mixes in synthetic worlds, whose procedures are bound afresh each time:
without it, easy tasks (whose procedures are always the same) teach the answer by heart and unlearn
reading it from memory.
"""

import itertools
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..agent.settings import as_stored
from ..extras import needs

with needs("llm"):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from torch import Tensor, nn
    from transformers import AutoModelForCausalLM

from ..agent.llm.adapters import check_tensors
from ..agent.llm.chat import ChatEncoder
from ..agent.llm.manifest import FILE, AdapterManifest
from ..agent.llm.weights import find_model, hash_weights, quiet
from .examples import Example
from .teacher_forced import Encoded


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The paper's settings where they carry over to a small model; the rate does not."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    learning_rate: float = field(default=5e-4, metadata={"stored": "rate"})
    """Peak learning rate. The paper's 5e-5 is for 4-8 B parameters. The bundled model learnt most
    at 1.5e-3, with retrieval in context; without rehearsal it got worse there at what it had not
    been taught yet (docs/log.md)."""
    steps: int = 120
    """Optimiser steps."""
    batch_tokens: int = 4096
    """Tokens of a batch at most, padding included; with `batch_examples`, of each piece that a
    batch is worked on in."""
    batch_examples: int = 0
    """Examples of a batch, however long, rehearsal coming on top; 0 to fill it by tokens. With it,
    runs that differ in what their contexts show, or in rehearsal, see the same episodes and the
    same tokens of them in the same order."""
    decay: bool = True
    """Linear to a twentieth of the rate, so that a short run does not end at full rate; False keeps
    it constant."""
    rehearsal: float | None = None
    """Share of each batch's examples that are rehearsed. None: half where there is something to
    rehearse (for the bundled model, its synthetic worlds), none elsewhere."""
    gradient_checkpointing: bool = False
    """Compute the layers' activations again for the backward pass instead of keeping them: a third
    slower, and a fraction of the memory."""
    bf16: bool = True
    """Autocast to bf16 (weights stay fp32)."""
    seed: int = 2025

    def __post_init__(self) -> None:
        if self.rehearsal is not None and not 0 <= self.rehearsal < 1:
            raise ValueError(
                f"lora.rehearsal is {self.rehearsal}; it is a share of each batch, from 0 to below "
                "1"
            )
        if (
            self.steps < 1
            or self.rank < 1
            or self.batch_tokens < 64
            or self.batch_examples < 0
            or self.learning_rate <= 0
        ):
            raise ValueError(
                "lora needs steps >= 1, rank >= 1, batch_tokens >= 64, batch_examples >= 0 and "
                "learning_rate > 0"
            )

    @property
    def mix(self) -> tuple[int, int]:
        """How many of how many items are rehearsal; the second number is the size of a batch of
        examples."""
        share = self.rehearsal or 0.0
        if not self.batch_examples:
            return round(1000 * share), 1000
        extra = round(self.batch_examples * share / (1 - share))
        return extra, self.batch_examples + extra

    def resolved(self, rehearses: bool) -> "LoraSettings":
        """The same settings, with a share of rehearsal where none is set: half where there is
        something to rehearse."""
        return (
            self
            if self.rehearsal is not None
            else replace(self, rehearsal=0.5 if rehearses else 0.0)
        )


def encode_example(encoder: ChatEncoder, example: Example) -> Encoded:
    """Ids and a mask of the tokens to learn: the assistant's, end of turn included, refused actions
    excluded."""
    encoded = encoder.encode(example.conversation, generation_prompt=False)
    mask, turn, inside = list(encoded.supervised), -1, False
    for i, supervised in enumerate(encoded.supervised):
        turn += supervised and not inside
        inside = supervised
        if supervised and turn in example.masked_turns:
            mask[i] = False
    return encoded.ids, mask


def mixed(
    encoded: Sequence[Encoded],
    encoder: ChatEncoder,
    settings: LoraSettings,
    rehearsal: Iterator[Example] | None,
) -> Iterator[Encoded]:
    """An endless stream of examples and rehearsal, evenly mixed; every example comes once before
    any comes again."""
    rng = random.Random(settings.seed)
    rehearsed, of = settings.mix
    queue: list[Encoded] = []
    for number in itertools.count():
        if (number + 1) * rehearsed // of > number * rehearsed // of:
            assert rehearsal is not None
            yield encode_example(encoder, next(rehearsal))
        else:
            queue = queue or rng.sample(list(encoded), len(encoded))
            yield queue.pop()


def batches(items: Iterator[Encoded], tokens: int, examples: int = 0) -> Iterator[list[Encoded]]:
    """What each optimiser step learns from: at most so many tokens, padding included, or so many
    examples if that is not 0."""
    group: list[Encoded] = []
    for item in items:
        full = max(len(ids) for ids, _ in [*group, item]) * (len(group) + 1) > tokens
        if group and (len(group) == examples if examples else full):
            yield group
            group = []
        group.append(item)


def pieces(batch: Sequence[Encoded], tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in pieces of like length, each of at most so many tokens unless one example alone has
    more.

    Yields:
        ids (B, T) and the mask of what to learn (B, T), padded on the right with 0.
    """
    group: list[Encoded] = []
    for item in [*sorted(batch, key=lambda e: len(e[0])), None]:
        if group and (item is None or len(item[0]) * (len(group) + 1) > tokens):
            width = len(group[-1][0])
            ids_BT = torch.zeros(len(group), width, dtype=torch.long)
            learn_BT = torch.zeros(len(group), width, dtype=torch.bool)
            for row, (ids, mask) in enumerate(group):
                ids_BT[row, : len(ids)], learn_BT[row, : len(ids)] = (
                    torch.tensor(ids),
                    torch.tensor(mask),
                )
            yield ids_BT, learn_BT
            group = []
        if item is not None:
            group.append(item)


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


def train_adapter(
    model: str | Path,
    encoder: ChatEncoder,
    examples: Sequence[Example],
    settings: LoraSettings,
    out: Path,
    manifest: AdapterManifest,
    *,
    rehearsal: Iterator[Example] | None = None,
    report: Callable[[int, float], object] | None = None,
    checkpoint: Callable[[int, Any], object] | None = None,
    start: Path | None = None,
) -> AdapterManifest:
    """Trains a LoRA adapter and writes it with its manifest.

    Args:
        model: folder or hub name of the base model.
        encoder: its chat encoder.
        examples: what to learn; at least one.
        settings: how.
        out: folder of the adapter; it appears complete or not at all, and is never overwritten.
        manifest: what the caller knows about it; completed and written to ``manifest.json`` last.
        rehearsal: endless examples of other kinds, of which ``settings.rehearsal`` takes its share.
        report: called with (step, loss) after each step.
        checkpoint: called with (step, the peft model) after each step; for learning curves.
        start: folder of an adapter to go on from; a fresh one on the bare model when None. Its
            optimiser state is not kept.

    Returns:
        The manifest as written: with settings, hash of the weights, number of examples, supervised
        tokens, losses, seconds.

    Raises:
        ValueError: no examples, modules to adapt that the model does not have, an adapter to start
            from that is not whole, or a share of rehearsal and nothing to rehearse.
        FileExistsError: `out` is there already.
    """
    if not examples:
        raise ValueError("there is nothing to fine-tune on: no successful episode was selected")
    if settings.mix[0] and rehearsal is None:
        raise ValueError(
            f"lora.rehearsal is {settings.rehearsal} and there is nothing to rehearse: set it to "
            "0, or pass examples as rehearsal="
        )
    if out.exists():
        raise FileExistsError(
            f"{out} exists: an adapter is never overwritten, use a new version name"
        )
    started = time.monotonic()
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules=list(settings.targets), task_type="CAUSAL_LM",
    )  # fmt: skip
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(
            find_model(model), dtype=torch.float32, local_files_only=True
        )
        if start:
            check_tensors(start, base)
        tuned: Any = (
            PeftModel.from_pretrained(base, start, is_trainable=True)
            if start
            else get_peft_model(base, config)
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tuned.to(device).train()
    if settings.gradient_checkpointing:
        with quiet():  # it has a newer name, which older versions do not have
            tuned.gradient_checkpointing_enable({"use_reentrant": False})
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    losses: list[float] = []
    supervised = 0
    encoded = [encode_example(encoder, e) for e in examples]
    stream = batches(
        mixed(encoded, encoder, settings, rehearsal),
        settings.batch_tokens,
        settings.mix[1] if settings.batch_examples else 0,
    )
    for step in range(settings.steps):
        batch = next(stream)
        count = sum(sum(mask[1:]) for _, mask in batch)
        left = max(0.05, 1 - step / settings.steps) if settings.decay else 1.0
        for group in optimiser.param_groups:
            group["lr"] = (
                settings.learning_rate * min(1.0, (step + 1) / 10) * left
            )  # warm-up over ten steps
        total = 0.0
        for piece in pieces(batch, settings.batch_tokens):
            ids, learn = (t.to(device) for t in piece)
            with torch.autocast(device.type, torch.bfloat16) if settings.bf16 else nullcontext():
                logits, targets = target_logits(tuned, ids, learn)
                loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / count
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
            total += loss.item()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(total)
        supervised += count
        if report:
            report(step + 1, losses[-1])
        if checkpoint:
            checkpoint(step + 1, tuned)
    half = out.with_name(out.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    tuned.save_pretrained(half)
    written = replace(
        manifest,
        lora=as_stored(settings),
        started_from=hash_weights(start) if start else "",
        examples=len(examples),
        contexts={
            kind: sum(e.memory == kind for e in examples)
            for kind in ("retrieved", "empty", "irrelevant")
        },
        supervised_tokens=supervised,
        loss_first=round(sum(losses[:10]) / len(losses[:10]), 4),
        loss_last=round(sum(losses[-10:]) / len(losses[-10:]), 4),
        adapter_sha256=hash_weights(half),
        seconds=round(time.monotonic() - started, 1),
    )
    (half / FILE).write_text(json.dumps(written.plain, indent=2) + "\n")
    os.replace(half, out)
    return written
