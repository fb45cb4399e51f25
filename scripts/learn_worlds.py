"""Run, learn and evaluate on other worlds with a real model, by the command line alone.

    python scripts/learn_worlds.py RUN [SUITE …]

For each suite: the expert's episodes on train tasks become the memory; one round of ``relive
learn`` plays, fine-tunes SmolLM2-135M on these and on its own successes, with retrieval, and
decides on the adapter; ``relive eval`` then plays the same test tasks with the bare model and with
the adapter, and with random actions. Every step can be stopped and goes on. Writes
RUN/SUITE/result.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fetch_smollm2

SUITES: dict[str, dict[str, Any]] = {
    "textworld-express": {"types": "", "demonstrations": 160, "tasks": 24, "steps": 30},
    "textworld": {"types": "cooking", "demonstrations": 48, "tasks": 24, "steps": 30},
    "scienceworld": {"types": "", "demonstrations": 60, "tasks": 30, "steps": 30},
}
"""What is played; ``steps`` is the most that an episode of the model may take."""


def relive(*arguments: str) -> None:
    """A command; its output goes where ours goes."""
    print("$ relive", " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "relive", *arguments], check=True)


def settings(name: str, model: Path) -> list[str]:
    """What all commands are told."""
    plan = SUITES[name]
    types = [f"types=['{plan['types']}']"] if plan["types"] else []
    given = [
        f"suite='{name}'", *types, f"policy.model='{model}'", "retrieval.k=2",
        "retrieval.max_tokens=800", f"run.max_steps={plan['steps']}", "run.workers=8",
    ]  # fmt: skip
    return [part for one in given for part in ("--set", one)]


def main() -> None:
    """Plays, learns and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    parser.add_argument("--lora-steps", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=0, help="test tasks; 0 for the plan's")
    args = parser.parse_args()
    model = Path(fetch_smollm2.gguf_file())
    for name in args.suites:
        plan, folder = SUITES[name] | {"lora_steps": args.lora_steps}, args.run / name
        plan["tasks"] = args.tasks or plan["tasks"]
        memory = folder / "memory"
        types = ["--types", plan["types"]] if plan["types"] else []
        relive(
            "run", "--suite", name, "--policy", "expert", "--memory", str(memory), *types,
            "--tasks", str(plan["demonstrations"]), "--workers", "2", "--k", "0",
        )  # fmt: skip
        learn = [
            "rounds=1", "demonstrations=0", "most_episodes=8", "successes=8", "validation=8",
            "select.policies=['local', 'expert']", f"lora.steps={args.lora_steps}",
            "lora.batch_tokens=2048", "lora.max_tokens=2048", "lora.learning_rate=0.001",
            "lora.targets='all-linear'", "lora.dropout=0.0",
        ]  # fmt: skip
        relive(
            "learn", "--out", str(folder / "learn"), "--memory", str(memory),
            *settings(name, model), *(part for one in learn for part in ("--set", one)),
        )  # fmt: skip
        adapter = folder / "learn" / "adapters" / "v1"
        for condition, more in (
            ("random", ["--policy", "random"]),
            ("frozen", []),
            ("tuned", ["--adapter", str(adapter)]),
        ):
            relive(
                "eval", "--memory", str(memory), "--tasks", str(plan["tasks"]), "--batch", "8",
                "--out", str(folder / condition), *settings(name, model), *more,
            )  # fmt: skip
        rounds = json.loads((folder / "learn" / "rounds.json").read_text())
        manifest = json.loads((adapter / "manifest.json").read_text())
        result: dict[str, Any] = {"suite": name, **plan, "gate": rounds[-1]["gate"]}
        result["adopted"] = rounds[-1]["adopted"]
        result["manifest"] = {
            key: manifest[key]
            for key in ("examples", "cut", "too_long", "contexts", "loss_first", "loss_last")
        }
        for condition in ("random", "frozen", "tuned"):
            found = json.loads((folder / condition / "metrics.json").read_text())
            row = found["rows"][-1]
            result[condition] = {
                key: row[key]
                for key in ("n", "success", "low", "high", "score", "best", "steps", "invalid",
                            "shown", "right_type", "errors", "policy_errors")
            }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
