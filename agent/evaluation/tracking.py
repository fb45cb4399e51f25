"""What happens during a run, as numbers in TensorBoard, Weights & Biases or trackio.

A :class:`Tracker` is told about events as :class:`relive.agent.evaluation.report.LiveProgress` is,
and beside it. The libraries are imported when one is asked for. Every command is a run of its own
there, also one that goes on with what another began.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from ...extras import needs
from ..events import (
    EpisodeEnded,
    Event,
    JobEnded,
    OnEvent,
    Phase,
    ResultsKnown,
    RoundEnded,
    TrainingStep,
)
from .terminal import complain

Kind = Literal["tensorboard", "wandb", "trackio"]

PROJECT = "relive"
"""Project of Weights & Biases or trackio where none is named."""
AXES = ("episode", "training", "round", "job", "result")
"""Groups of numbers. Each has an axis of its own, from 1: episodes of this command, its training
steps, the round, the job, the stage after which results were measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where numbers go."""

    kind: Kind
    place: str
    """Folder of TensorBoard's logs, or a project."""

    @classmethod
    def of(cls, text: str) -> "Target":
        """What ``tensorboard:DIR``, ``wandb``, ``wandb:PROJECT`` and so on stand for.

        Raises:
            ValueError: it is none of these.
            MissingExtraError: the library is not installed.
        """
        name, colon, place = text.partition(":")
        if name not in get_args(Kind) or (colon and not place) or text == "tensorboard":
            raise ValueError(
                f"{text!r} is none of tensorboard:DIR, wandb, wandb:PROJECT, trackio and "
                "trackio:PROJECT"
            )
        kind = cast(Kind, name)
        needs(kind)
        return cls(kind, place or PROJECT)

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"


class Backend(Protocol):
    """A library that keeps numbers."""

    def log(self, group: str, number: int, values: Mapping[str, float]) -> None:
        """Keep the values of a group (see :data:`AXES`) at a number of its axis."""
        ...

    def close(self, failed: bool) -> None:
        """Write what is left; the run is over, or broken off."""
        ...


class _TensorBoard:
    """Event files in a folder of the run's own, below that of the target."""

    def __init__(self, place: str, name: str, config: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(Path(place) / name), flush_secs=10)
        text = json.dumps(config, indent=2, default=str)
        self._writer.add_text("settings", f"```\n{text}\n```")

    def log(self, group: str, number: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, number)

    def close(self, failed: bool) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run of Weights & Biases; with ``WANDB_MODE=offline`` a folder ``wandb``, for ``wandb
    sync``."""

    def __init__(self, place: str, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        # Nothing of the terminal is recorded: observations are shown there.
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(project=place, name=name, config=dict(config), settings=settings)
        for group in AXES:
            self._run.define_metric(f"{group}/number", hidden=True)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/number")

    def log(self, group: str, number: int, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        self._run.log({f"{group}/number": number, **named})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Trackio:
    """A run in trackio's own store, below ``$TRACKIO_DIR``, or wherever its variables say."""

    def __init__(self, place: str, name: str, config: Mapping[str, Any]) -> None:
        with redirect_stdout(sys.stderr):  # it prints what it does, and results are printed there
            import trackio

            self._finish: Callable[[], object] = trackio.finish
            self._run = trackio.init(project=place, name=name, config=dict(config), embed=False)

    def log(self, group: str, number: int, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        with redirect_stdout(sys.stderr):
            self._run.log({f"{group}/number": number, **named})

    def close(self, failed: bool) -> None:
        with redirect_stdout(sys.stderr):
            self._finish()


_BACKENDS: dict[Kind, Callable[[str, str, Mapping[str, Any]], Backend]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "trackio": _Trackio,
}


class Tracker:
    """Turns events into numbers, and hands them on.

    What goes wrong while it does is said once, and ends the logging: no run is lost for its curves.

    Args:
        backend: keeps the numbers.
        name: of it, for messages.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend: Backend | None = backend
        self._name = name
        self._episodes = self._trained = self._won = self._since = 0

    def on_event(self, event: Event) -> None:
        """Logs what happened."""
        match event:
            case Phase():
                self._won = self._since = 0
            case EpisodeEnded(episode):
                self._episodes += 1
                self._since += 1
                self._won += episode.success
                used = {"total": "seconds", "prompt": "prompt_tokens"}
                used |= {"completion": "completion_tokens", "cost": "cost"}
                known = {**episode.usage, "total": episode.timings.get("total", 0.0)}
                values = {
                    "success": float(episode.success),
                    "success_so_far": self._won / self._since,
                    "score": episode.outcome.score,
                    "steps": float(len(episode.steps)),
                    **{label: known[part] for part, label in used.items() if part in known},
                }
                self._log("episode", self._episodes, values)
            case TrainingStep(_, _, loss):
                self._trained += 1
                self._log("training", self._trained, {"loss": loss})
            case RoundEnded(number, _, results):
                self._log("round", number, results)
            case JobEnded():
                share = event.number / event.of
                self._log("job", event.number, {"seconds": event.seconds, "finished": share})
            case ResultsKnown(number, values):
                self._log("result", number, values)

    def close(self, failed: bool = False) -> None:
        """Writes what is left."""
        if self._backend is not None:
            backend = self._backend
            self._guarded(lambda: backend.close(failed))
            self._backend = None

    def _log(self, group: str, number: int, values: Mapping[str, float]) -> None:
        if self._backend is not None:
            backend = self._backend
            self._guarded(lambda: backend.log(group, number, values))

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._backend = None
            complain(f"{self._name}: {error}; nothing more is logged there, and the run goes on")


def telling(*listeners: OnEvent) -> OnEvent:
    """One listener that tells several, in their order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


@contextmanager
def tracked(
    targets: Sequence[Target], command: str, folder: Path, config: Mapping[str, Any], live: OnEvent
) -> Iterator[OnEvent]:
    """A listener that tells `live` and logs to all targets, as long as the block runs.

    Args:
        targets: where numbers go; none for `live` alone.
        command: what is run, for the run's name.
        folder: what it is run on; its name becomes a part of the run's.
        config: the settings, which are logged with the run.
        live: is told everything first.

    Raises:
        RuntimeError: a target cannot be used; nothing was run.
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one speaks
        targets = ()
    name = f"{command}-{folder.resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}"
    trackers: list[Tracker] = []
    failed = True
    try:
        for target in targets:
            trackers.append(Tracker(_opened(target, name, config), f"--log-to {target}"))
        yield telling(live, *(tracker.on_event for tracker in trackers))
        failed = False
    finally:
        with ExitStack() as stack:  # all of them, also after Ctrl-C in the first one
            for tracker in trackers:
                stack.callback(tracker.close, failed)


def _opened(target: Target, name: str, config: Mapping[str, Any]) -> Backend:
    try:
        return _BACKENDS[target.kind](target.place, name, config)
    except Exception as error:
        hint = " (WANDB_MODE=offline needs no server)" if target.kind == "wandb" else ""
        raise RuntimeError(f"--log-to {target}: {error}{hint}") from error
