"""Numbers of a run, read back from where they were logged with the libraries' own readers."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from relive import extras
from relive.agent.cli import build_parser, main
from relive.agent.evaluation.tracking import Target, Tracker, telling, tracked
from relive.agent.events import (
    EpisodeEnded,
    Event,
    JobEnded,
    Phase,
    ResultsKnown,
    RoundEnded,
    TasksPlanned,
    TrainingStep,
    ignore,
)
from relive.memory import Episode, Memory
from relive.memory.compose import compose

TOY = ["--suite", "toy", "--policy", "random", "--tasks", "6"]


class Kept:
    """Keeps what it is given, until its disk is full."""

    def __init__(self, room: int = 1000) -> None:
        self.logged: list[tuple[str, int, dict[str, float]]] = []
        self.ended: list[bool] = []
        self._room = room

    def log(self, group: str, number: int, values: Mapping[str, float]) -> None:
        if len(self.logged) == self._room:
            raise OSError("no space left")
        self.logged.append((group, number, dict(values)))

    def close(self, failed: bool) -> None:
        self.ended.append(failed)


def played(success: bool) -> Episode:
    return compose(goal="wash a mug", steps=[("a sink", "wash mug")], success=success)


def test_events_become_numbers() -> None:
    kept = Kept()
    tracker = Tracker(kept, "kept")
    for event in (
        Phase("playing"),
        EpisodeEnded(played(False)),
        TasksPlanned(16),  # another chunk of the same phase
        EpisodeEnded(played(True)),
        TrainingStep(1, 2, 0.5),
        TrainingStep(2, 2, 0.25),
        Phase("validating"),
        EpisodeEnded(played(True)),
        TrainingStep(1, 2, 0.125),
        RoundEnded(3, "well", {"success": 0.5}),
        JobEnded("study", "train seed 0", 2, 8, 30.0),
        ResultsKnown(1, {"lora/matching/easy": 0.75}),
    ):
        tracker.on_event(event)
    episodes = [(n, values) for group, n, values in kept.logged if group == "episode"]
    assert [n for n, _ in episodes] == [1, 2, 3]
    assert [values["success_so_far"] for _, values in episodes] == [0.0, 0.5, 1.0]
    assert episodes[0][1]["steps"] == 1.0
    assert "cost" not in episodes[0][1]  # which nobody counted
    training = [(n, values["loss"]) for group, n, values in kept.logged if group == "training"]
    assert training == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert ("round", 3, {"success": 0.5}) in kept.logged
    assert ("result", 1, {"lora/matching/easy": 0.75}) in kept.logged
    assert ("job", 2, {"seconds": 30.0, "finished": 0.25}) in kept.logged
    tracker.close()
    assert kept.ended == [False]


def test_what_cannot_be_logged_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    kept, seen = Kept(room=1), list[Event]()
    tracker = Tracker(kept, "--log-to tensorboard:x\x1b")
    tell = telling(tracker.on_event, seen.append)
    for step in (1, 2, 3):
        tell(TrainingStep(step, 3, 0.5))
    tracker.close()
    assert (len(seen), len(kept.logged), kept.ended) == (3, 1, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--log-to tensorboard:x\\x1b: no space left; nothing more is logged")


def test_a_round_tells_its_numbers() -> None:
    from relive.training.learn import Round

    gate = {"difference": 0.1, "n": 20.0}
    bare = Round(1, 16, 0.5, 40, "", False, "", None).results
    assert bare == {"episodes": 16, "success": 0.5, "memory_size": 40, "adopted": 0.0}
    full = Round(2, 16, 0.5, 40, "v2", True, "v2", 0.75, gate).results
    assert (full["validation"], full["gate_difference"], full["gate_n"]) == (0.75, 0.1, 20.0)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_an_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logs = tmp_path / "logs"
    assert (
        main(["eval", *TOY, "--out", str(tmp_path / "r"), "--log-to", f"tensorboard:{logs}"]) == 0
    )
    (run,) = logs.iterdir()
    assert run.name.startswith("eval-r-")
    told = scalars(run)
    with Memory(tmp_path / "r" / "episodes", "r") as memory:
        stored = list(memory.iterate())
    assert told["episode/steps"] == [(i + 1, len(e.steps)) for i, e in enumerate(stored)]
    won = [sum(e.success for e in stored[: i + 1]) / (i + 1) for i in range(len(stored))]
    assert [value for _, value in told["episode/success_so_far"]] == pytest.approx(won)
    assert all(value >= 0 for _, value in told["episode/seconds"])


def test_two_places_at_once_and_what_is_not_a_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    targets = [Target.of(f"tensorboard:{tmp_path / name}") for name in ("a", "b")]
    with tracked(targets, "learn", tmp_path, {"k": 2}, ignore) as on_event:
        on_event(TrainingStep(1, 1, float("nan")))
    for name in ("a", "b"):
        (run,) = (tmp_path / name).iterdir()
        ((step, loss),) = scalars(run)["training/loss"]
        assert step == 1
        assert loss != loss


def test_only_the_first_of_several_processes_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    target = Target("tensorboard", str(tmp_path / "logs"))
    seen = list[Event]()
    with tracked([target], "learn", tmp_path, {}, seen.append) as on_event:
        on_event(TrainingStep(1, 1, 0.5))
    assert len(seen) == 1
    assert not (tmp_path / "logs").exists()


def relive(folder: Path, where: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own: these libraries read their variables once."""
    command = [sys.executable, "-m", "relive.agent.cli", "eval", *TOY, "--out", "r"]
    return subprocess.run(
        [*command, "--log-to", where], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )  # fmt: skip


def test_trackio_keeps_a_run_in_its_store(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    done = relive(tmp_path, "trackio:mugs", TRACKIO_DIR=str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test split")  # nothing of trackio's own
    code = (
        "from trackio.sqlite_storage import SQLiteStorage as store\n"
        "(name,) = store.get_runs('mugs')\n"
        "print(name)\n"
        "for line in store.get_logs('mugs', name): print(line['episode/number'], "
        "line['episode/steps'])"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    read = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    name, *lines = read.splitlines()
    assert name.startswith("eval-r-")
    with Memory(tmp_path / "r" / "episodes", "r") as memory:
        lengths = [float(len(e.steps)) for e in memory.iterate()]
    assert [tuple(map(float, line.split())) for line in lines] == [
        (i + 1, length) for i, length in enumerate(lengths)
    ]


def test_wandb_keeps_a_run_for_later(tmp_path: Path) -> None:
    """In its documented offline mode; the file is its own, and holds the names as they are."""
    pytest.importorskip("wandb")
    done = relive(tmp_path, "wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test split")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    held = file.read_bytes()
    for name in (b"episode/success_so_far", b"episode/seconds", b"eval-r-"):
        assert name in held
    assert b"Your task is to" not in held  # what the terminal shows stays there


def test_wandb_without_a_server_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    hidden = {"WANDB_API_KEY": "", "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    done = relive(tmp_path, "wandb", WANDB_MODE="online", **hidden)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("relive eval: --log-to wandb:relive: ")
    assert "WANDB_MODE=offline" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", ["run", "eval", "learn", "train", "study", "stream"])
def test_every_command_that_takes_long_can_log(command: str) -> None:
    folder = "--memory" if command == "run" else "--out"
    where = ["--memory", "m"] if command == "train" else []
    args = build_parser().parse_args(
        [command, folder, "x", *where, "--log-to", "tensorboard:a", "--log-to", "tensorboard:b"]
    )
    assert [str(target) for target in args.log_to] == ["tensorboard:a", "tensorboard:b"]


@pytest.mark.parametrize("wrong", ["tensorboard", "tensorboard:", "wandb:", "mlflow", ""])
def test_a_place_that_is_none_is_named(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", *TOY, "--out", "x", "--log-to", wrong])
    assert f"argument --log-to: {wrong!r} is none of" in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda package: False)
    with pytest.raises(SystemExit):
        main(["eval", *TOY, "--out", "x", "--log-to", "trackio"])
    assert "pip install 'relive[trackio]'" in capsys.readouterr().err
