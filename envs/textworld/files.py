"""Games from files: whatever TextWorld or Jericho plays, as a suite (``--suite textworld:PATH``).

A path is a file, or a folder of them. Folders in it that are called ``train``, ``valid`` and
``test`` are the splits; without these, every game is in ``train``, which is then played whatever
split is asked for. The type of a game is the folder that it lies in, below that; ``game`` where
there is none.

A game is won when it says so. Its score is points divided by possible points where it tells both,
and 0 until it is won where it does not. The expert follows the walk-through of the ``.json`` that
TextWorld writes beside its games, or the one that Jericho knows; there is none unless every file
has one.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...extras import needs
from ...task import Task
from ..base import MAX_STEPS, SPLITS, ActionTemplate, Suite
from ..listing import size_of, spread
from .engine import GLULX, SUFFIXES, UnplayableError, check_playable
from .env import TextWorldEnv
from .suite import INSTRUCTIONS, TEMPLATES
from .walkthrough import WalkthroughExpert, walkthrough_of

_TYPE = "game"


class FileSuite(Suite):
    """The games of a file or folder. See `relive.envs.base.Suite`.

    Args:
        path: of it.

    Raises:
        MissingExtraError: TextWorld (and with it Jericho) is not installed.
        FileNotFoundError: there is nothing there.
        UnplayableError: there is no game in it, or one that cannot be played.
        ValueError: a game is in two splits, or there are splits and none is ``train``.
    """

    instructions: str = INSTRUCTIONS
    goal_form = "instruction"
    max_steps: int = MAX_STEPS
    preload: tuple[str, ...] = ("jericho",)

    def __init__(self, path: str | Path) -> None:
        needs("textworld")
        root = Path(path).expanduser().resolve()
        self.name = f"textworld:{root.name}"
        self.version = f"textworld-files-1 (jericho {version('jericho')})"
        by_split = _splits(root)
        self.splits: tuple[str, ...] = tuple(by_split)
        if self.splits == ("train",):
            self.validation_split = self.test_split = "train"
        self._tasks: dict[str, list[Task]] = {}
        for split, (folder, files) in by_split.items():
            tasks = [self._task(split, folder, file) for file in files]
            # Two copies of a game are one.
            self._tasks[split] = list({task.identity: task for task in tasks}.values())
        _check_apart(self._tasks)
        every = [task for tasks in self._tasks.values() for task in tasks]
        self.types: tuple[str, ...] = tuple(sorted({task.type for task in every}))
        self._steps = _walkthroughs(every)
        self.expert_kind = "scripted" if self._steps else ""
        described = all(Path(t.payload).with_suffix(".json").exists() for t in every)
        self.templates: tuple[ActionTemplate, ...] = TEMPLATES if described else TEMPLATES[:16]

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` games by the names of their files, taking the types in turn.

        Raises:
            ValueError: unknown split or type, a negative number, or more than there are.
        """
        where = f"split {split!r} of suite {self.name!r}"
        return [task for _, task in spread(self._pools(split, types), count, start, where=where)]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        """How many games there are."""
        return size_of(self._pools(split, types), start)

    def limit(self, task: Task) -> int:
        """`max_steps`, or twice the length of a walk-through where that is more."""
        return max(self.max_steps, 2 * self._steps.get(task.identity, 0))

    def make(self) -> TextWorldEnv:
        """A fresh environment."""
        return TextWorldEnv(_locate, self._draw)

    def expert(self, task: Task) -> WalkthroughExpert:
        """One that follows the game's walk-through.

        Raises:
            NotImplementedError: not every game has one.
        """
        if not self.expert_kind:
            raise NotImplementedError(
                f"suite {self.name!r} has no expert: not every game has a walk-through, in the "
                ".json of TextWorld beside it or known to Jericho"
            )
        return WalkthroughExpert(lambda: _locate(task))

    def _pools(self, split: str, types: Sequence[str]) -> Mapping[str, Sequence[Task]]:
        return {
            kind: [task for task in self._tasks[split] if task.type == kind]
            for kind in self.checked(split, types)
        }

    def _task(self, split: str, folder: Path, file: Path) -> Task:
        inside = file.relative_to(folder).parts[:-1] if file != folder else ()
        kind = inside[0] if inside else _TYPE
        return Task(self.name, _hash(file), kind, split, "", 0, self.version, "", str(file))

    def _draw(self, rng: np.random.Generator) -> Task:
        return self._tasks["train"][int(rng.integers(len(self._tasks["train"])))]


def suite_of(path: str) -> FileSuite:
    """The suite of ``textworld:PATH``: see `FileSuite`."""
    return FileSuite(path)


def _splits(root: Path) -> dict[str, tuple[Path, list[Path]]]:
    """Folder and files of each split."""
    if not root.exists():
        raise FileNotFoundError(
            f"there is nothing at {root}: give a file of a game (.z1 to .z8), or a folder of them"
        )
    if root.is_file():
        check_playable(root)
        return {"train": (root, [root])}
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if folders and "train" not in folders:
        raise ValueError(
            f"{root} has {' and '.join(folders)}, and no folder train: games in it are the ones "
            "that may be learnt from"
        )
    beside = [
        file for file in sorted(root.rglob("*")) if file.suffix.lower() in SUFFIXES and folders
        and file.is_file() and file.relative_to(root).parts[0] not in folders
    ]  # fmt: skip
    if beside:
        warnings.warn(
            f"{len(beside)} games in {root} are left out, {beside[0].relative_to(root)} for "
            f"example: they are in none of its folders {', '.join(folders)}",
            stacklevel=2,
        )
    found = {
        split: (folder, _games(folder)) for split, folder in (folders or {"train": root}).items()
    }
    for folder, files in found.values():
        if not files:
            raise UnplayableError(f"{folder} holds no file of a game (.z1 to .z8)")
    return found


def _games(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    glulx = [file for file in files if file.suffix.lower() in GLULX]
    if glulx:
        warnings.warn(
            f"{len(glulx)} games in {folder} are left out, {glulx[0].name} for example: Glulx is "
            "played neither by TextWorld (since 1.7.0) nor by Jericho",
            stacklevel=2,
        )
    games = [file for file in files if file.suffix.lower() in SUFFIXES]
    for file in games:
        check_playable(file)
    return games


def _check_apart(tasks: Mapping[str, Iterable[Task]]) -> None:
    seen: dict[str, Task] = {}
    for task in (task for some in tasks.values() for task in some):
        other = seen.setdefault(task.identity, task)
        if other.split != task.split:
            raise ValueError(
                f"the same game is in {other.split} and in {task.split}: remove {other.payload} or "
                f"{task.payload}"
            )


def _walkthroughs(tasks: Sequence[Task]) -> dict[str, int]:
    """Lengths of the walk-throughs by identity; empty unless every game has one."""
    lengths: dict[str, int] = {}
    for task in tasks:
        lengths[task.identity] = len(walkthrough_of(Path(task.payload)))
        if not lengths[task.identity]:
            return {}
    return lengths


def _locate(task: Task) -> Path:
    path = Path(task.payload)
    check_playable(path)
    if _hash(path) != task.identity:
        raise ValueError(f"{path} is no longer the game of task {task.identity}: list them anew")
    return path


def _hash(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
