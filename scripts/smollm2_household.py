"""SmolLM2-135M on the household's easy types: frozen, and fine-tuned with retrieval on the expert.

    python scripts/smollm2_household.py RUN [--episodes 900] [--chunks 12] [--tasks 60]

The expert's episodes in train rooms are the memory and the examples. Training goes in chunks of 50
optimiser steps, each going on from the adapter before, so that it can be stopped at any time; the
same command goes on. Both policies then play the same tasks in test rooms under two retrieved
episodes. Writes RUN/result.json, which ``check_models.py --easy`` takes over.
"""

import argparse
import json
from pathlib import Path

import fetch_smollm2

from relive import LocalModel, Memory, Retrieval, evaluate
from relive.agent.collect import collect
from relive.agent.policy import ExpertPolicy
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Runner, RunSettings, spec_of
from relive.envs import get_suite
from relive.envs.base import types_of
from relive.memory import Purpose
from relive.training.examples import ContextRates
from relive.training.lora import LoraSettings
from relive.training.select import SelectSettings, select
from relive.training.tune import tune

SHOWN = Retrieval(k=2, max_tokens=800)
RATES = ContextRates(empty=0.4, irrelevant=0.05)
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
STEPS = 50


def train(run: Path, model: LocalModel, memory: Memory, chunks: int, rate: float) -> Path:
    """The adapter after the last chunk."""
    suite = get_suite("household")
    episodes = select(memory, SelectSettings(policies=("expert",)))
    before: Path | None = None
    for number in range(chunks):
        out = run / f"c{number}"
        if not out.exists():
            settings = LoraSettings(
                rank=8, alpha=16, dropout=0.0, targets=LAYERS, steps=STEPS, batch_tokens=2048,
                learning_rate=rate * max(0.08, 1 - (number + 0.5) / chunks), decay=False,
                rehearsal=0.0, seed=100 + number,
            )  # fmt: skip
            made = tune(
                model, {spec_of(suite, model): episodes},
                lambda spec: MemoryRetriever(
                    memory, spec, model.count_tokens, SHOWN, Purpose.TRAIN, memory.position
                ),
                RATES, settings, out, seed=0, start=before,
            )  # fmt: skip
            print(f"{out.name}: loss {made.loss_last}, {made.seconds:.0f} s", flush=True)
        before = out
    assert before
    return before


def main() -> None:
    """Collects, trains and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=900)
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--tasks", type=int, default=60)
    args = parser.parse_args()
    suite = get_suite("household")
    easy = types_of(suite, ["easy"])
    with Memory(args.run / "memory") as memory:
        expert = Runner(suite, ExpertPolicy(suite), RunSettings(batch=16))
        for _ in collect(memory, expert, suite.tasks("train", args.episodes, easy)):
            pass
        model = LocalModel(fetch_smollm2.gguf_file(), slots=12)
        adapter = train(args.run / "adapters", model, memory, args.chunks, args.rate)
        found = {}
        for name, folder in (("frozen", None), ("tuned", adapter)):
            model.set_adapter(folder)
            found[name] = evaluate(
                model, suite, memory, tasks=args.tasks, split="test", types=["easy"],
                retrieval=SHOWN, settings=RunSettings(batch=12), out=args.run / name,
            )  # fmt: skip
            print(name, found[name], flush=True)
    tuned = found["tuned"]
    result = {
        "frozen": round(100 * found["frozen"].success, 1),
        "tuned": round(100 * tuned.success, 1),
        "interval": [round(100 * end, 1) for end in tuned.interval],
        "refused": round(100 * tuned.rows[-1].invalid, 1),
        "n": tuned.n,
        "episodes": args.episodes,
        "steps": STEPS * args.chunks,
    }
    (args.run / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(result)


if __name__ == "__main__":
    main()
