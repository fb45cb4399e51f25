"""The command that tunes a memory's embedder: `relive train-retriever`."""

import argparse
from pathlib import Path

from ..evaluation.terminal import say
from .options import add_log_to, add_settings, suite_named


def add_retriever_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    """Add `train-retriever` to the commands of `relive`."""
    parser = commands.add_parser(
        "train-retriever",
        help="tune a memory's embedder: what helps the policy ranks higher",
    )
    parser.add_argument("--memory", type=Path, required=True, help="folder of the memory")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the new embedder; must not exist"
    )
    add_settings(parser, "...training.retriever.tune:TuningSettings")
    add_log_to(parser)
    parser.set_defaults(act=_train_retriever)


def _train_retriever(args: argparse.Namespace) -> None:
    from ...memory import Memory
    from ...training.retriever.tune import TuningSettings, tune_retriever
    from ..evaluation.live import LiveProgress
    from ..evaluation.tracking import tracked
    from ..load_policy import load_model
    from ..settings import as_stored, load

    settings = load(TuningSettings, args.config, args.set)
    suite, model = suite_named(settings.suite), load_model(settings.policy)
    told = as_stored(settings)
    with (
        LiveProgress() as live,
        tracked(args.log_to, "train-retriever", args.out, told, live.on_event) as on_event,
        Memory(args.memory, "r") as memory,
    ):
        report = tune_retriever(
            model, memory, suite, settings.retrieval, settings.retriever, args.out, on_event
        )
    say(
        f"{args.out}: {report.queries} queries learnt from, {report.held_out} held out; loss "
        f"{report.loss_before:.3f} → {report.loss_after:.3f}, regret of the closest "
        f"{report.regret_before:.4f} → {report.regret_after:.4f} nats per token, most helpful one "
        f"first {report.agreement_before:.0%} → {report.agreement_after:.0%}"
    )
    if not report.best_epoch:
        say("no epoch was better than the embedder as it is, which was kept")
    say(f"use it: relive memory rebuild --memory {args.memory} --embedder {args.out}")
