"""Where ALFWorld's game files are, and how its folders are named.

The data are laid out as ``json_2.1.1/<split>/<task>/<trial>/``, with ``game.tw-pddl`` and
``traj_data.json`` in each trial's folder. A task's folder is named after its type, objects and
scene: ``pick_heat_then_place_in_recep-Potato-None-SinkBasin-14``.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "valid_seen", "valid_unseen")
GAME, TRAJECTORY = "game.tw-pddl", "traj_data.json"
VARIABLE = "ALFWORLD_DATA"

_NOT_PLAYED = ("movable", "Sliced")
"""The official loader leaves out folders with these words in their names."""
_VERSIONED = "json_*"
_USUAL = "json_2.1.1"
"""All official downloads unpack into this folder, whatever the version of their games."""
_SCENE = re.compile(r"-(\d+)$")


class MissingDataError(FileNotFoundError):
    """There are no game files; the message has the command that gets them."""


@dataclass(frozen=True, slots=True)
class Found:
    """A game file, before it is read."""

    path: str
    """Relative to the data folder, with ``/``."""
    split: str
    state: tuple[int, ...]
    """Sizes in bytes and times of the last change of the game and of its trajectory (0, 0 where
    there is none): whoever has read files of the same state need not read them again."""

    @property
    def has_trajectory(self) -> bool:
        """Whether ``traj_data.json`` lies beside it."""
        return self.state[2:] != (0, 0)

    @property
    def task_folder(self) -> str:
        """Name of the task's folder, or of the trial's where that is all there is."""
        parts = self.path.split("/")[:-1]
        return parts[-2] if len(parts) > 1 and parts[-2] not in SPLITS else parts[-1]

    @property
    def room(self) -> str:
        """``FloorPlan14``; empty where the folder's name does not end with a scene."""
        scene = _SCENE.search(self.task_folder)
        return f"FloorPlan{scene[1]}" if scene else ""


def data_folder() -> Path:
    """``$ALFWORLD_DATA``, or the folder that the library takes without it."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "alfworld"


def splits_folder(folder: Path) -> Path:
    """The folder with the splits' folders in it: ``json_2.1.1`` below the data folder, or the data
    folder itself.

    Raises:
        MissingDataError: there is none.
    """
    others = sorted(folder.glob(_VERSIONED), reverse=True) if folder.is_dir() else []
    for candidate in (folder / _USUAL, folder, *others):
        if any((candidate / split).is_dir() for split in SPLITS):
            return candidate
    raise missing(folder)


def missing(folder: Path) -> MissingDataError:
    """What to say where there are no games."""
    where = f"in {folder}"
    if folder == data_folder():
        named = os.environ.get(VARIABLE)
        where = f"${VARIABLE} is {named}" if named else f"${VARIABLE} is not set, {where}"
    # One line: the command line shows errors as one.
    return MissingDataError(
        f"suite 'alfworld' needs ALFWorld's game files, and there are none ({where}; expected are "
        f"{_USUAL}/{{{','.join(SPLITS)}}}/<task>/<trial>/{GAME}). To download them: "
        f"export {VARIABLE}=$HOME/alfworld && alfworld-download; where you have them already, set "
        f"{VARIABLE} to their folder"
    )


def games_in(folder: Path, split: str) -> Iterator[Found]:
    """The game files of a split that can be played, in the order of their paths."""
    top = splits_folder(folder) / split
    for root, folders, files in os.walk(top):
        folders.sort()
        inside = Path(root).relative_to(top).as_posix()
        if GAME not in files or any(word in inside for word in _NOT_PLAYED):
            continue
        path = Path(root, GAME)
        state = (
            *_state(path),
            *(_state(Path(root, TRAJECTORY)) if TRAJECTORY in files else (0, 0)),
        )
        yield Found(path.relative_to(folder).as_posix(), split, state)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
