"""The paper's central experiment as one resumable command: does learning to use experience beat
memorising?

Per seed: a memory of expert demonstrations of all task types in train rooms; adapters trained on
its easy types only, one per training, from the same episodes in the same order; the agent's own
memory, filled from nothing; then every cell on tasks of its own in unseen rooms. Jobs run in
processes of one thread each; what is done is found again after a kill. Source of the design: Ferraz
et al., arXiv:2603.18272; definitions in `relive.training.experiments.study.arms`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ....agent.evaluation.records import Record, read
from ....agent.events import OnEvent, Phase, ignore
from ....agent.llm.manifest import FILE as MANIFEST
from ....agent.llm.weights import find_model, hash_weights
from ....agent.rundir import RunDirectory, versions
from ....agent.settings import as_stored
from ....envs import get_suite
from ....memory.storage.lock import WriterLock
from ..jobs import Job, commit, run_jobs
from .arms import EASY, FULL, SEALED, Cell, cells
from .context import life_of
from .copy_baseline import copiers
from .settings import StudySettings
from .tasks import Tiers
from .work import fill_memory, folder_settings, live_own, play_cell, records_file, train_arm


class Study:
    """A resumable study in a run directory.

    Args:
        path: the run directory.
        settings: what to do.
        on_event: told about progress.

    Raises:
        ValueError: the directory holds a study with other settings.
    """

    def __init__(self, path: Path, settings: StudySettings, on_event: OnEvent = ignore) -> None:
        self.path, self.settings, self.on_event = path, settings, on_event
        self.directory = RunDirectory(path, folder_settings(settings))

    def _same_control(self) -> None:
        """Refuses another control base than the one that this study began with."""
        if self.settings.control:
            weights = hash_weights(find_model(self.settings.control))
            before = self.directory.read("control.json") or weights
            if before != weights:
                raise ValueError(
                    f"{self.path} holds results of the control base {before[:12]}; "
                    f"{self.settings.control} has weights "
                    f"{weights[:12]}: use another --out"
                )
            self.directory.write("control.json", before)

    def cells(self, sealed: bool = False) -> list[Cell]:
        """The cells that this study is to hold."""
        s = self.settings
        compared = [c for method in s.methods for c in method.conditions]
        wanted = list(dict.fromkeys([*s.conditions, *compared]))
        scripted = copiers(get_suite(s.suite).templates)
        found = cells(s.seeds, bool(s.control), sealed, bool(s.lora.rehearsal), scripted)
        chosen = [c for c in found if not wanted or any(fnmatch(c.condition, w) for w in wanted)]
        if not sealed:  # what is named and none of the usual ones
            usual = {c.condition for c in found}
            named = [w for w in wanted if not set(w) & set("*?[") and w not in usual]
            for cell in map(Cell.of, named):  # as many episodes as fit take long: one seed
                seeds = 1 if cell.k == FULL else s.seeds
                chosen += [replace(cell, seed=seed) for seed in range(seeds)]
        return [replace(cell, seed=s.first_seed + cell.seed) for cell in chosen]

    def run(self, sealed: bool = False) -> list[Record]:
        """Does what is not done yet and returns the records of all finished cells.

        Args:
            sealed: also measure the sealed tier. To be done once, at the end; what is measured of
                it already is returned in any case.

        Raises:
            BlockingIOError: another process works on this study.
            ValueError: the control base is not the one that the study began with.
        """
        with WriterLock(self.path / "lock"):
            self._same_control()
            return self._run(sealed)

    def _run(self, sealed: bool) -> list[Record]:
        wanted = self.cells() + (self.cells(sealed=True) if sealed else [])
        s, path = self.settings, self.path
        for seed in sorted({c.seed for c in wanted}):
            self.on_event(Phase(f"demonstrations of seed {seed}"))
            fill_memory(path, s, seed)
        easy = Tiers(s, get_suite(s.suite)).types[EASY]
        jobs: dict[str, Job] = {}  # what a cell needs stands right before it
        after: dict[str, list[str]] = {}
        for c in sorted(wanted, key=self._place):
            named = c.adapters(easy)
            for one in named:
                told = (path, s, one.train, c.base, c.seed, None, None, one.kind)
                if not (path / "adapters" / one.name / MANIFEST).exists():
                    jobs.setdefault(one.name, (one.name, train_arm, told))
            if records_file(path, c).exists():
                continue
            after[c.name] = [one.name for one in named]
            if c.source == "own":
                life = life_of(c)
                jobs.setdefault(life, (life, live_own, (path, s, c)))
                after[life] = after[c.name]
                after[c.name] = [life]
            jobs[c.name] = (c.name, play_cell, (path, s, c))
        self.jobs("study", list(jobs.values()), after)
        if not sealed and SEALED in get_suite(s.suite).groups:
            wanted += [c for c in self.cells(sealed=True) if records_file(path, c).exists()]
        return [r for c in wanted for r in self._records(c)]

    def _records(self, cell: Cell) -> list[Record]:
        """Records of a cell that is done. What a task took is its share, by actions, of what the
        cell took: while one of a batch waits for the others, the clock of all of them runs."""
        found = read(records_file(self.path, cell))
        took = (self.directory.read("seconds.json") or {}).get(cell.name)
        actions = sum(len(r["actions"]) for r in found)
        if took is None or not actions:
            return found
        return [r | {"seconds": round(took * len(r["actions"]) / actions, 3)} for r in found]

    def _place(self, cell: Cell) -> tuple[int, int]:
        """When it is a cell's turn: of each seed first what the settings name first, and where they
        name nothing, as listed."""
        if not (named := self.settings.conditions):
            return 0, 0
        fits = (place for place, name in enumerate(named) if fnmatch(cell.condition, name))
        return cell.seed, next(fits, len(named))

    def summary(self) -> dict[str, Any]:
        """What a published result says of how it was made."""
        control = (
            {"control": hash_weights(Path(self.settings.control))} if self.settings.control else {}
        )
        seconds = self.directory.read("seconds.json") or {}
        return {
            "commit": commit(),
            "model": self.settings.model_name,
            "suite": self.settings.suite,
            "settings": as_stored(replace(self.settings, model=self.settings.model_name)),
            "weights_sha256": folder_settings(self.settings)["weights"]["base"],
            "bases": {**folder_settings(self.settings)["weights"], **control},
            "versions": versions(),
            "job_seconds": round(sum(seconds.values())),
        }

    def jobs(
        self,
        what: str,
        jobs: Sequence[Job],
        after: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Runs jobs in the study's processes, see `relive.training.experiments.jobs.run_jobs`."""
        run_jobs(self.directory, what, jobs, self.settings.jobs, self.on_event, after)
