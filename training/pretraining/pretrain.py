"""Trains the small bundled base model from scratch on synthetic worlds.

A Qwen3-style decoder of 3.5 M parameters learns to act in text and to read procedures out of
demonstrations; which verb and appliance an adjective stands for is drawn afresh in every sample, so
it cannot learn that. Muon for the matrices, AdamW for the rest; action tokens weigh 1, all others
0.1, because only a tenth of the tokens are actions. Runs are resumable: the state is saved at pool
boundaries and every sample is a function of (seed, index, progress).
"""

import copy
import json
import math
import platform
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("llm"):
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ...agent.conversation import Conversation
from ...agent.llm.chat import Encoded
from ..teacher_forced import forced
from . import corpus
from .tokenizer import ASSISTANT, END, PAD, build_tokenizer

POOL = 64  # samples that are sorted by length together; also the unit of resuming


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """Everything that decides what comes out."""

    tokens: int = 40_000_000
    """Training length, padding included."""
    batch_tokens: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    mlp: int = 768
    context: int = 4096
    """Maximum positions of the model."""
    longest: int = 1600
    """Samples with more tokens are left out of the training."""
    matrix_rate: float = 0.01
    """Muon's learning rate; at 0.02 it oscillates."""
    other_rate: float = 2e-3
    observation_weight: float = 0.1
    decision_weight: float = 4.0
    """Of the first token of "take". In a large room one action in sixteen is "take", and a model
    that never takes anything is right about the other fifteen. Of other verbs it would do harm:
    weighed 4, treating a thing on the appliance where it was found looks better than it is."""
    memory: bool = True
    """False trains the control: the same episodes, never a memory block."""
    seed: int = 1
    threads: int = 2


def encode(tokenizer: PreTrainedTokenizerFast, samples: Sequence[corpus.Sample]) -> list[Encoded]:
    """Token ids and a mask of the action tokens to learn, for each sample.

    The text is what the tokenizer's chat template gives (a test compares the two); written out here
    because it runs for every sample of the corpus.
    """
    return [
        Encoded(ids, [k == ACTION for k in kinds]) for ids, kinds in with_kinds(tokenizer, samples)
    ]


OBSERVED, ACTION, SLIP = range(3)
"""What a token is: read, to be said, or said wrongly on purpose."""


def with_kinds(
    tokenizer: PreTrainedTokenizerFast, samples: Sequence[corpus.Sample]
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each sample, and what each token is."""
    vocab = tokenizer.get_vocab()
    act, end = vocab[ASSISTANT], vocab[END]
    encoded = []
    for sample, ids in zip(
        samples, tokenizer([chat_text(s.conversation) for s in samples])["input_ids"], strict=True
    ):
        kinds, inside, turn = [], False, -1
        for token in ids:
            kinds.append(
                OBSERVED if not inside else SLIP if turn in sample.injected_errors else ACTION
            )
            if token == act:
                inside, turn = True, turn + 1
            elif token == end:
                inside = False
        encoded.append((ids, kinds))
    return encoded


def chat_text(conversation: Conversation) -> str:
    """The conversation as the bundled chat template writes it."""
    return "".join(f"<|{turn.role}|>{turn.text}<|end|>" for turn in conversation)


def pool_batches(
    encoded: Sequence[tuple[list[int], list[int]]],
    settings: PretrainSettings,
    take: int,
    rng: random.Random,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of like length: ids (B, T), padded on the right with 0, and loss weights (B, T).

    Args:
        encoded: token ids and kinds of samples.
        settings: weights and sizes.
        take: the token that taking begins with.
        rng: for the order of the batches.
    """
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    for item in sorted(
        (e for e in encoded if len(e[0]) <= settings.longest), key=lambda e: len(e[0])
    ):
        if groups[-1] and (len(groups[-1]) + 1) * len(item[0]) > settings.batch_tokens:
            groups.append([])
        groups[-1].append(item)
    rng.shuffle(groups)
    for group in groups:
        width = max((len(ids) for ids, _ in group), default=0)
        ids_BT, weight_BT = (
            torch.zeros(len(group), width, dtype=torch.long),
            torch.zeros(len(group), width),
        )
        for row, (ids, kinds) in enumerate(group):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            kind = torch.tensor(kinds)
            on = kind == ACTION
            weight = torch.where(on, 1.0, settings.observation_weight)
            begins = on & ~torch.cat([torch.zeros(1, dtype=torch.bool), on[:-1]])
            weight[begins & (ids_BT[row, : len(ids)] == take)] = settings.decision_weight
            weight[kind == SLIP] = 0.0  # or the model learns to slip, and to repeat itself
            weight_BT[row, : len(ids)] = weight
        if group:
            yield ids_BT, weight_BT


def build_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A freshly initialised decoder.

    A name's embedding starts as the mean of its kind's and its number's, so that "cup" and "cup 2"
    are alike from the start.
    """
    torch.manual_seed(settings.seed)
    vocab = tokenizer.get_vocab()
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=math.ceil(len(tokenizer) / 64) * 64,
            hidden_size=settings.hidden,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            head_dim=settings.hidden // settings.heads,
            intermediate_size=settings.mlp,
            max_position_embeddings=settings.context,
            tie_word_embeddings=True,
            pad_token_id=vocab[PAD],
            eos_token_id=vocab[END],
            bos_token_id=None,
        )
    )
    with torch.no_grad():
        for name, p in model.model.layers.named_parameters():
            if p.ndim == 2:
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.5 / math.sqrt(p.shape[1]) * (0.5 if into_stream else 1.0))
        table = model.model.embed_tokens.weight
        nn.init.normal_(table, std=0.02)
        for token, i in vocab.items():
            kind, _, number = token.rpartition("▁")
            if kind in vocab and number.isdigit():
                table[i] = (table[vocab[kind]] + table[vocab[f"▁{number}"]]) / math.sqrt(2)
    return model


def action_loss(model: Qwen3ForCausalLM, ids_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """Weighted mean cross-entropy of the next token. Padding is on the right, so causality masks
    it."""
    hidden = model.model(input_ids=ids_BT, use_cache=False).last_hidden_state[:, :-1]
    weight = weight_BT[:, 1:]
    keep = weight > 0
    losses = nn.functional.cross_entropy(
        model.lm_head(hidden[keep]).float(), ids_BT[:, 1:][keep], reduction="none"
    )
    return (losses * weight[keep]).sum() / weight[keep].sum()


def _action_kinds(sample: corpus.Sample) -> list[str]:
    """What each action of a probe is: first, next, open, take, go to apply, apply, destination,
    put, and what comes then."""
    actions = [turn.text for turn in sample.conversation if turn.role == "assistant"]
    kinds, taken, placed = [], False, False
    for i, action in enumerate(actions):
        verb = action.split()[0]
        if placed:
            kinds.append(f"then {verb if verb in ('go', 'open', 'take', 'move') else 'apply'}")
        elif verb == "go":
            after = actions[i + 1].split()[0] if i + 1 < len(actions) else ""
            searching = "first" if i == 0 else "next"
            kinds.append(
                searching
                if not taken
                else "destination"
                if after in ("move", "open")
                else "go to apply"
            )
        else:
            kinds.append({"open": "open", "take": "take", "move": "put"}.get(verb, "apply"))
            taken, placed = taken or verb == "take", placed or verb == "move"
    return kinds


def action_accuracy(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, samples: Sequence[corpus.Sample]
) -> dict[str, float]:
    """Teacher-forced exact match of whole actions, by kind of action. Seconds, and it says what to
    teach next."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for sample, encoded in zip(samples, encode(tokenizer, samples), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            actions = forced(model, encoded)
        for kind, action in zip(_action_kinds(sample), actions, strict=True):
            hits[kind].append(action.matched)
    return {kind: round(sum(h) / len(h), 2) for kind, h in hits.items()}


def settle_unseen(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seen: Set[int]
) -> None:
    """Gives tokens that training never held the embedding of an average word, or of their kind's
    other numbers.

    Input and output share the table, so a token that is never right is pushed away from every
    answer: at the end all of them lie on one line, at four times the length of a word, and one of
    them in a goal drowns the rest. An average word is merely unknown.
    """
    vocab = tokenizer.get_vocab()
    words = [
        i for token, i in vocab.items() if i in seen and token[:1] == "▁" and token[1:].isalpha()
    ]
    kinds: dict[str, list[int]] = defaultdict(list)
    for token, i in vocab.items():
        if i in seen and token.rpartition("▁")[0]:
            kinds[token.rpartition("▁")[0]].append(i)
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        average = table[words].mean(0)
        settled = {
            i: table[kinds[token.rpartition("▁")[0]]].mean(0)
            if kinds.get(token.rpartition("▁")[0])
            else average
            for token, i in vocab.items()
            if i not in seen
        }
        for i, row in settled.items():
            table[i] = row


class Pretraining:
    """A resumable run: model, optimisers, and how far it has come."""

    def __init__(self, settings: PretrainSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.tokenizer = build_tokenizer()
        self.model = build_model(settings, self.tokenizer)
        matrices = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        known = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in known]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=settings.matrix_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(
                others, lr=settings.other_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            ),
        ]
        self.rates = [settings.matrix_rate, settings.other_rate]
        self.step = self.tokens = self.pool = 0
        self.seen: set[int] = set()
        """Tokens that training held so far."""
        self.seconds = 0.0

    @property
    def state_file(self) -> Path:
        """Where the run is saved."""
        return self.folder / "state.pt"

    def resume(self) -> bool:
        """Loads the saved state, if there is one. Raises `ValueError` when it is of other
        settings."""
        if not self.state_file.exists():
            return False
        state = torch.load(self.state_file, weights_only=True)
        if "seen" not in state:
            raise ValueError(
                f"{self.state_file} is of a version that kept no count of tokens: train in another "
                "folder"
            )
        # Only the length may change on the way: the learning rate follows it.
        changed = [
            k
            for k, v in state["settings"].items()
            if k not in ("tokens", "threads") and v != asdict(self.settings)[k]
        ]
        if changed:
            raise ValueError(
                f"{self.state_file} is of a run with other settings ({', '.join(changed)}): use "
                "another folder"
            )
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.tokens, self.pool, self.seconds = (
            state[k] for k in ("step", "tokens", "pool", "seconds")
        )
        self.seen = set(state["seen"])
        return True

    def save(self) -> None:
        """Saves the state, old or new but never half."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.state_file.with_suffix(".new")
        counters: dict[str, Any] = {
            "step": self.step,
            "tokens": self.tokens,
            "pool": self.pool,
            "seconds": self.seconds,
        }
        counters |= {"seen": sorted(self.seen)}
        optimisers = [o.state_dict() for o in self.optimisers]
        settings = asdict(self.settings)
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimisers": optimisers,
                "settings": settings,
                **counters,
            },
            new,
        )
        new.replace(self.state_file)

    def train_pool(self) -> float:
        """One pool of samples; returns the mean loss."""
        s, started, losses = self.settings, time.monotonic(), []
        progress = self.tokens / s.tokens
        drawn = [corpus.draw(s.seed, self.pool * POOL + i, progress, s.memory) for i in range(POOL)]
        take = self.tokenizer.get_vocab()["▁take"]
        for ids, weight in pool_batches(
            with_kinds(self.tokenizer, drawn), s, take, random.Random(self.pool)
        ):
            # Warm-up over 30 steps, constant, then linear to zero over the last 40 %.
            scale = min(1.0, (self.step + 1) / 30) * min(
                1.0, (1 - min(1.0, self.tokens / s.tokens)) / 0.4 + 0.02
            )
            for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = rate * scale
            with torch.autocast("cpu", torch.bfloat16):
                loss = action_loss(self.model, ids, weight)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own is untyped
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            self.step += 1
            self.tokens += ids.numel()
            self.seen.update(ids.flatten().tolist())
            losses.append(loss.item())
        self.pool += 1
        self.seconds += time.monotonic() - started
        return sum(losses) / len(losses)

    def measure(self, count: int = 24) -> dict[str, dict[str, float]]:
        """Accuracy on probes with the household's true bindings, with and without memory."""
        self.model.train(False)
        rows = {}
        for adjective, k in (
            ("hot", 2),
            ("hot", 0),
            ("put", 0),
            ("put", 2),
            ("device", 1),
            ("routine", 2),
        ):
            rows[f"{adjective} K={k}"] = action_accuracy(
                self.model, self.tokenizer, corpus.probe(adjective, k, count)
            )
        self.model.train()
        return rows

    def export(self, folder: Path) -> None:
        """Writes an ordinary transformers folder: bf16 weights, config, tokenizer, training
        record."""
        folder.mkdir(parents=True, exist_ok=True)
        rounded = copy.deepcopy(self.model)
        settle_unseen(rounded, self.tokenizer, self.seen)
        rounded.bfloat16().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        record: dict[str, Any] = {
            "settings": asdict(self.settings), "tokens": self.tokens, "steps": self.step,
            "seconds": round(self.seconds),
            "hardware": f"{platform.machine()} CPU, {self.settings.threads} thread(s)",
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }  # fmt: skip
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")

    def run(self, save_every: float = 300.0, measure_every: float = 240.0) -> None:
        """Trains to the end, saving and measuring every so many seconds."""
        torch.set_num_threads(self.settings.threads)
        saved = measured = time.monotonic()
        self.model.train()
        while self.tokens < self.settings.tokens:
            loss = self.train_pool()
            now = time.monotonic()
            last = self.tokens >= self.settings.tokens
            if now - measured > measure_every or last:
                head = (
                    f"{self.seconds:.0f}s {self.tokens / 1e6:.2f}M tokens, {self.step} steps, "
                    f"loss {loss:.3f}"
                )
                lines = [f"  {name}: {row}" for name, row in self.measure().items()]
                print("\n".join([head, *lines]), flush=True)
                measured = time.monotonic()
            if now - saved > save_every or last:
                self.save()
                saved = time.monotonic()
