"""Fine-tuning with LoRA on whole episodes, cross-entropy on the assistant's tokens only.

One pass over a multi-turn episode trains all of its actions at once (Ferraz et al.,
arXiv:2603.18272). peft and transformers do what they do; what is ours is the choice of examples and
the manifest. Rehearsal mixes in synthetic worlds, whose procedures are bound afresh each time:
without it, easy tasks (whose procedures are always the same) teach the answer by heart and unlearn
reading it from memory.
"""

import json
import os
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
    from torch import nn

from ..agent.llm.adapters import check_tensors
from ..agent.llm.chat import Encoded
from ..agent.llm.local import LocalModel
from ..agent.llm.manifest import FILE, AdapterManifest
from ..agent.llm.weights import hash_weights, quiet
from .batches import Fading, batches, encode_all, encode_example, mixed, pieces
from .examples import Example
from .loss import target_logits
from .memory_needed import activations, spare_memory
from .sharded import processes
from .together import Together
from .unfinished import Unfinished


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The paper's settings where they carry over to a small model; the rate does not."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    targets: str | tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the layers that are adapted, or ``all-linear``."""
    learning_rate: float = field(default=5e-4, metadata={"stored": "rate"})
    """Peak learning rate. The paper's 5e-5 is for 4-8 B parameters. The bundled model learnt most
    at 1.5e-3, with retrieval in context; without rehearsal it got worse there at what it had not
    been taught yet (docs/log.md)."""
    steps: int = 120
    """Optimiser steps."""
    batch_tokens: int = 4096
    """Tokens of a batch at most, padding included; with `batch_examples`, of each piece that a
    batch is worked on in."""
    piece_tokens: int = 0
    """Tokens that are worked on at once, unless one sequence has more; the gradient is the whole
    batch's all the same. 0: 1,024 on a CPU for models beyond 20 million parameters, which takes a
    fraction of the memory and no more time; else the whole batch."""
    max_tokens: int = 0
    """Tokens of a sequence at most; 0 for the model's context. Longer episodes are learnt in parts
    (:func:`relive.training.batches.encode_all`), and what does not fit even so is counted."""
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
    gradient_checkpointing: bool | None = None
    """Compute the layers' activations again for the backward pass instead of keeping them: a third
    slower, and a fraction of the memory. None: where the activations would take more than a
    quarter of the memory that is free, or more than 2 GB beside everything else on a CPU."""
    learn_reasoning: bool = True
    """Whether thoughts are targets too. They are only there with the policy's thinking on."""
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
            or self.piece_tokens < 0
            or self.max_tokens < 0
            or self.learning_rate <= 0
        ):
            raise ValueError(
                "lora needs steps >= 1, rank >= 1, batch_tokens >= 64, learning_rate > 0, and "
                "batch_examples, piece_tokens and max_tokens >= 0"
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


def train_adapter(
    model: LocalModel,
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

    The weights are those that the policy acts with: nothing is loaded a second time, its device and
    dtype are its own, and it has its adapter again when this is over. The adapter's own weights are
    fp32. Under ``accelerate launch`` the processes share every batch, and the first one writes;
    with FSDP settings they share the model as well (:mod:`relive.training.sharded`).

    A training that is stopped goes on where it was some minutes before, when it is asked for again
    with the same arguments (:mod:`relive.training.unfinished`; not when several processes share
    it), and gives the same adapter.

    Args:
        model: whose bare weights the adapter is for, and whose chat template.
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
        ValueError: no examples, none that fits or that has a target, modules to adapt that the
            model does not have, an adapter to start from that is not whole, or a share of rehearsal
            and nothing to rehearse.
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
    if model.dtype == "4bit" and model.device.type == "cpu":
        raise ValueError(
            "weights in 4 bits cannot be trained on a CPU: bitsandbytes packs them there for "
            "acting only; use a GPU, or dtype 'bfloat16'"
        )
    started = time.monotonic()
    longest = min(settings.max_tokens or model.context, model.context)
    encodings = encode_all(
        model.encoder, examples, longest, settings.learn_reasoning, model.answer_tokens
    )
    together = processes(model.device)
    told = {"lora": as_stored(settings), "base": model.base_sha256, "start": _hash_of(start)}
    if share := manifest.context.get("fade"):
        told["fade"] = share
    kept = None if together.count > 1 else Unfinished(out, told, encodings.sequences, model.device)
    half = out.with_name(out.name + ".half")
    with model.lent() as base:
        try:
            tuned = _prepare(together.twin(base), settings, start, encodings.longest)
            tuned = together.shard(tuned)
            losses, supervised = _optimise(
                tuned, encodings.sequences, _rehearsed(model, rehearsal, longest, settings),
                _fading(model, encodings.examples, manifest, settings, longest),
                settings, together, kept, report, checkpoint,
            )  # fmt: skip
            if together.first:
                shutil.rmtree(half, ignore_errors=True)
            together.save(tuned, str(half))
        finally:
            _keep_all_activations(base)
    written = replace(
        manifest,
        lora=as_stored(settings),
        started_from=_hash_of(start),
        examples=len(encodings.examples),
        too_long=encodings.too_long,
        cut=encodings.cut,
        without_target=encodings.without_target,
        contexts={
            kind: sum(e.memory == kind for e in encodings.examples)
            for kind in ("retrieved", "empty", "irrelevant")
        },
        supervised_tokens=supervised,
        loss_first=round(sum(losses[:10]) / len(losses[:10]), 4),
        loss_last=round(sum(losses[-10:]) / len(losses[-10:]), 4),
        seconds=round(time.monotonic() - started + (kept.seconds_before if kept else 0.0), 1),
    )
    if together.first:
        written = replace(written, adapter_sha256=hash_weights(half))
        (half / FILE).write_text(json.dumps(written.plain, indent=2) + "\n")
        os.replace(half, out)
    if kept:
        kept.done()
    together.wait()
    return written if together.first else AdapterManifest.read(out) or written


def _hash_of(adapter: Path | None) -> str:
    return hash_weights(adapter) if adapter else ""


def _prepare(base: Any, settings: LoraSettings, start: Path | None, longest: int) -> Any:
    """The model with a trainable adapter on it, for sequences of up to `longest` tokens."""
    torch.manual_seed(settings.seed)
    targets = settings.targets
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with quiet():
        if start:
            check_tensors(start, base)
            tuned: Any = PeftModel.from_pretrained(base, start, is_trainable=True)
        else:
            tuned = get_peft_model(base, config)
    checkpointing = settings.gradient_checkpointing
    if checkpointing is None:
        tokens = max(_piece(settings, base), longest)
        needed = activations(base.config, tokens, 2 if settings.bf16 else 4)
        able = getattr(base, "supports_gradient_checkpointing", False)
        checkpointing = able and needed > spare_memory(base.device)
    if checkpointing:
        with quiet():  # it has a newer name, which older versions do not have
            tuned.gradient_checkpointing_enable({"use_reentrant": False})
    return tuned.train()


def _keep_all_activations(base: Any) -> None:
    """Undoes what saving memory has set on the model; its adapter is taken off by the policy."""
    with quiet():
        if getattr(base, "supports_gradient_checkpointing", False):
            base.gradient_checkpointing_disable()
        if hasattr(base, "_require_grads_hook"):
            base.disable_input_require_grads()


def _piece(settings: LoraSettings, base: Any) -> int:
    if settings.piece_tokens:
        return min(settings.piece_tokens, settings.batch_tokens)
    large = base.device.type == "cpu" and base.num_parameters() > _LARGE
    return min(_PIECE, settings.batch_tokens) if large else settings.batch_tokens


def _rehearsed(
    model: LocalModel,
    rehearsal: Iterator[Example] | None,
    longest: int,
    settings: LoraSettings,
) -> Iterator[list[Encoded]] | None:
    """Rehearsal that can be learnt: what is too long or has no target is passed over."""
    if rehearsal is None:
        return None
    encoded = (encode_example(model.encoder, one, settings.learn_reasoning) for one in rehearsal)
    return (one for one in encoded if one and all(len(s.ids) <= longest for s in one))


def _fading(
    model: LocalModel,
    examples: Sequence[Example],
    manifest: AdapterManifest,
    settings: LoraSettings,
    longest: int,
) -> Fading | None:
    """The curriculum that examples ask for. What does not fit in one piece without its memory keeps
    it: such episodes are learnt in parts."""
    share = float(manifest.context.get("fade", 0.0))
    if not share:
        return None
    without: list[list[Encoded] | None] = []
    for one in examples:
        bare = replace(one, conversation=one.fading) if one.fading else None
        found = encode_example(model.encoder, bare, settings.learn_reasoning) if bare else []
        fits = all(len(each.ids) <= longest for each in found)
        without.append(found if found and fits else None)
    return Fading(without, share)


def _optimise(
    tuned: Any,
    encoded: Sequence[list[Encoded]],
    rehearsal: Iterator[list[Encoded]] | None,
    fading: Fading | None,
    settings: LoraSettings,
    together: Together,
    kept: Unfinished | None,
    report: Callable[[int, float], object] | None,
    checkpoint: Callable[[int, Any], object] | None,
) -> tuple[list[float], int]:
    """All optimiser steps; their losses, and how many tokens were learnt, repeats included."""
    device = next(tuned.parameters()).device
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    stream = batches(
        mixed(encoded, rehearsal, settings.mix, settings.seed, fading),
        settings.batch_tokens,
        settings.mix[1] if settings.batch_examples else 0,
    )
    at_once = min(_piece(settings, tuned), -(-settings.batch_tokens // together.count))
    losses, supervised = kept.restore(tuned, optimiser) if kept else ([], 0)
    for step in range(settings.steps):
        if fading:
            fading.progress = step / settings.steps
        batch = next(stream)
        if step < len(losses):  # learnt before it was stopped
            continue
        count = sum(sum(mask[1:]) for _, mask in batch)
        left = max(0.05, 1 - step / settings.steps) if settings.decay else 1.0
        for group in optimiser.param_groups:
            group["lr"] = (
                settings.learning_rate * min(1.0, (step + 1) / 10) * left
            )  # warm-up over ten steps
        total = 0.0
        for piece in together.share(list(pieces(batch, at_once))):
            ids, learn = (t.to(device) for t in piece)
            with torch.autocast(device.type, torch.bfloat16) if settings.bf16 else nullcontext():
                logits, targets = target_logits(tuned, ids, learn)
                loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / count
            (loss * together.weight).backward()  # type: ignore[no-untyped-call]  # torch's own
            total += loss.item()
        losses.append(together.sum_up(parameters, total))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        supervised += count
        if report and together.first:
            report(step + 1, losses[-1])
        if checkpoint:
            checkpoint(step + 1, tuned)
        if kept:
            kept.keep(tuned, optimiser, losses, supervised)
    return losses, supervised


_LARGE = 20_000_000
"""Parameters beyond which a batch is worked on in pieces on a CPU."""
_PIECE = 1024
"""Tokens of such a piece: enough for the processor to be busy."""
