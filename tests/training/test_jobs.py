"""Jobs of experiments: what needs another waits for it, and nothing else does."""

import time
from pathlib import Path

import pytest

from relive.agent.events import Event, JobEnded
from relive.agent.rundir import RunDirectory
from relive.training.experiments.jobs import Job, run_jobs


def leave(path: Path, seconds: float = 0.0, needs: str = "") -> None:
    """A job: it finds what it needs, takes its time and leaves something behind."""
    if needs and not (path.parent / needs).exists():
        raise FileNotFoundError(needs)
    time.sleep(seconds)
    path.touch()


def ended(
    tmp_path: Path, jobs: list[Job], processes: int, after: dict[str, list[str]]
) -> list[str]:
    told: list[Event] = []
    run_jobs(RunDirectory(tmp_path / "run", {}), "test", jobs, processes, told.append, after)
    found = [event for event in told if isinstance(event, JobEnded)]
    assert [event.number for event in found] == list(range(1, len(jobs) + 1))
    return [event.name for event in found]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_waits_for_what_it_needs_and_for_nothing_else(tmp_path: Path, processes: int) -> None:
    jobs: list[Job] = [
        ("slow", leave, (tmp_path / "slow", 3.0)),
        ("quick", leave, (tmp_path / "quick",)),
        ("of slow", leave, (tmp_path / "of slow", 0.0, "slow")),
        ("of quick", leave, (tmp_path / "of quick", 0.0, "quick")),
        ("of both", leave, (tmp_path / "of both", 0.0, "of slow")),
    ]
    after = {
        "of slow": ["slow"], "of quick": ["quick", "done long ago"],
        "of both": ["of slow", "of quick"],
    }  # fmt: skip
    names = ended(tmp_path, jobs, processes, after)
    assert sorted(names) == sorted(name for name, *_ in jobs)
    if processes == 2:  # the second worker does not wait for the first one
        assert names == ["quick", "of quick", "slow", "of slow", "of both"]


def test_what_fails_ends_the_experiment(tmp_path: Path) -> None:
    jobs: list[Job] = [
        ("quick", leave, (tmp_path / "quick",)),
        ("wrong", leave, (tmp_path / "wrong", 0.0, "nothing")),
        ("after it", leave, (tmp_path / "after it",)),
    ]
    with pytest.raises(FileNotFoundError, match="nothing"):
        ended(tmp_path, jobs, 2, {"wrong": ["quick"], "after it": ["wrong"]})
    assert (tmp_path / "quick").exists()
    assert not (tmp_path / "after it").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_what_was_stopped_took_its_time_as_well(tmp_path: Path, processes: int) -> None:
    jobs: list[Job] = [
        ("slow", leave, (tmp_path / "no folder" / "slow", 1.2)),
        ("other", leave, (tmp_path / "other", 0.0)),
    ]
    with pytest.raises(FileNotFoundError):
        ended(tmp_path, jobs, processes, {})
    (tmp_path / "no folder").mkdir()
    before = RunDirectory(tmp_path / "run", {}).read("seconds.json")["slow"]
    ended(tmp_path, jobs, processes, {})
    after = RunDirectory(tmp_path / "run", {}).read("seconds.json")["slow"]
    assert min(before, after - before) > 1.1  # it sleeps 1.2
