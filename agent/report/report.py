"""`relive report`: from the folders of runs to one page."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...extras import needs
from ...memory import Memory
from .episodes import Collected
from .page import write_report
from .runs import Run, Store, open_run
from .shown import Prompts, Unknown
from .summary import Tally, of_rounds


@dataclass(frozen=True, slots=True)
class Report:
    """What was written."""

    file: Path
    episodes: int
    size: int
    """Bytes."""


def report(
    paths: Sequence[Path],
    out: Path,
    *,
    memory: Path | None = None,
    title: str = "",
    prompts: bool = True,
    tell: Callable[[int, str], object] = lambda count, condition: None,
) -> Report:
    """Writes one page about runs of any command.

    Args:
        paths: folders of runs, or of memories.
        out: the page; written over if it is there.
        memory: the memory that they read, if it is not where it was.
        title: of the page; by default the names of the runs.
        prompts: whether to say what each episode was shown and why, which takes a search each.
        tell: told how many episodes are read, and of which condition.

    Raises:
        ValueError: a folder is no run, or holds no episodes.
        OSError: it cannot be read, or the page not be written.
        MissingExtraError: Jinja2 is not installed.
    """
    needs("report")
    if not paths:
        raise ValueError("report on which run? Give the folder of one, or several")
    if out.is_dir():
        raise ValueError(
            f"{out} is a folder: give the name of a file, for example {out / 'report.html'}"
        )
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("a run is named twice, and would count twice: name each once")
    out.parent.mkdir(parents=True, exist_ok=True)
    runs = [open_run(path, memory) for path in paths]
    names = _names(runs)
    collected, tally = Collected(), Tally()
    for name, run in zip(names, runs, strict=True):
        for store in run.stores:
            condition = _label(name, run, store, len(runs))
            _collect(collected, tally, name, condition, store, prompts, tell)
    tables = {"rows": tally.rows(), "tests": tally.tests()}
    said = [_said(name, run) for name, run in zip(names, runs, strict=True)]
    size = write_report(out, title or ", ".join(names), said, collected, **tables)
    return Report(out, len(collected.bodies), size)


def _collect(
    collected: Collected,
    tally: Tally,
    run: str,
    condition: str,
    store: Store,
    prompts: bool,
    tell: Callable[[int, str], object],
) -> None:
    why = Unknown.NO_MEMORY if prompts else Unknown.NOT_ASKED
    with Memory(store.read, "r") if prompts and store.read else nullcontext(why) as read:
        maker = Prompts(read)
        for episode in store.episodes():
            name = condition
            if store.whole:  # a memory, in which several may have acted
                who = f"{episode.actor.policy} {episode.actor.adapter}".strip()
                name = f"{condition}: {who}"
            collected.add(run, name, episode, maker)
            tally.add(name, episode)
            tell(len(collected.bodies), name)


def _names(runs: Sequence[Run]) -> list[str]:
    """What the runs are called: the ends of their paths, as long as it takes to tell them apart."""
    parts = [run.path.resolve().parts for run in runs]
    length = 1
    while len({whole[-length:] for whole in parts}) < len(parts):
        length += 1
    return ["/".join(whole[-length:]) for whole in parts]


def _label(name: str, run: Run, store: Store, count: int) -> str:
    """A condition's name; with its run's where several runs could have the same."""
    if store.condition == run.name:
        return name  # a measurement's only condition, or a memory
    return f"{name}: {store.condition}" if count > 1 else store.condition


def _said(name: str, run: Run) -> dict[str, Any]:
    """What the page says about a run."""
    record = run.record
    metrics = run.files.get("metrics", {})
    return {
        "name": name,
        "kind": run.kind,
        "unfinished": run.unfinished,
        "settings": record.get("settings", {}),
        "versions": record.get("versions", {}),
        "command": record.get("command", []),
        "started": record.get("started"),
        "seconds": run.files.get("seconds", {}),
        "audit": metrics.get("audit"),
        "notes": metrics.get("notes", []),
        "clock": metrics.get("clock"),
        "rounds": of_rounds(run.files.get("rounds", [])),
        "adapters": [dict(one) for one in run.adapters],
    }
