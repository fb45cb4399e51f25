"""The third door, which puts rooms together that do not know each other: one learning cycle."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .agent.events import OnEvent, ignore
from .agent.llm.local import LocalModel
from .agent.load_policy import PolicySettings
from .envs.adapt import as_suite
from .memory import Memory
from .training.examples import Example
from .training.learn import Learner, LearnSettings, Round
from .training.pretraining.rehearsal import rehearsal


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What a learning run came to."""

    adapter: Path | None
    """Folder of the adapter in force; None: the bare model was never beaten."""
    gate: dict[str, float]
    """Paired difference of the last candidate, its 95 % interval and both success rates
    (``difference``, ``low``, ``high``, ``n``, ``candidate``, ``incumbent``); empty where nothing
    was trained."""
    rounds: tuple[Round, ...]
    """What each round came to."""


def learn(
    model: LocalModel,
    suite: Any,
    memory: Memory | None = None,
    *,
    out: Path | str,
    rounds: int = 1,
    settings: LearnSettings | None = None,
    on_event: OnEvent = ignore,
    **more: Any,
) -> LearnResult:
    """Plays, remembers, fine-tunes on its successes with retrieval in the training context, and
    keeps a new adapter only if it is no worse.

    Args:
        model: who learns, without an adapter; it is as it was afterwards. To act with what was
            learnt: ``model.set_adapter(result.adapter)``.
        suite: whose tasks are played; whatever :meth:`relive.Agent.run` takes as environment.
            Where it has an expert, the memory starts with some of its demonstrations.
        memory: open for writing; by default one in `out`.
        out: the run directory; given again, the run goes on.
        rounds: how many, those of an earlier call included.
        settings: everything else.
        on_event: told about progress.
        more: single settings, for example ``successes=20``.

    Raises:
        TypeError: the model is no `LocalModel`, or a setting is unknown.
        ValueError: the folder holds a run with other settings, or the suite cannot give what is
            asked.
    """
    if not isinstance(model, LocalModel):
        raise TypeError(
            f"learn fine-tunes a relive.LocalModel, not {model!r}: only a model of this process "
            "has weights to train"
        )
    known = as_suite(suite)
    asked = replace(settings or LearnSettings(), rounds=rounds, **more)
    asked = replace(
        asked,
        suite=known.name,
        policy=PolicySettings(model=model.model_name, dtype=model.dtype),
    )
    with Learner(Path(out), asked, known, model, memory, on_event, rehearsal_of(model)) as learner:
        done = learner.run()
    return LearnResult(
        learner.adapter_folder(learner.adapter), done[-1].gate if done else {}, tuple(done)
    )


def rehearsal_of(model: LocalModel) -> Callable[[int], Iterator[Example]] | None:
    """What a model rehearses while it is fine-tuned: the bundled one the worlds that it was
    pretrained on, any other nothing."""
    return rehearsal if model.model_name == "bundled" else None
