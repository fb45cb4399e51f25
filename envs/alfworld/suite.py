"""The suite `alfworld`: the official games, found in ``$ALFWORLD_DATA``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...task import Task
from ..base import ActionTemplate, Suite
from ..household.engine import SUPPORTED_TEXTWORLD
from ..household.rooms import GROUPS, TASK_TYPES
from ..household.suite import HouseholdSuite
from ..listing import size_of, spread
from .data import SPLITS, MissingDataError, data_folder, games_in
from .dialect import DIALECTS, translate_steps
from .env import SUITE, AlfworldEnv
from .expert import AlfworldExpert
from .forms import PUT, dialect_named, templates_of
from .index import Game, Index, read_entry

_NAME = re.compile(r"\b(?!loc )[a-z]+ \d+\b")

VERSION = f"alfworld-1-textworld-{SUPPORTED_TEXTWORLD}"

_USUAL_PUT = "move {object} to {receptacle}"


class AlfworldSuite(Suite):
    """Tasks, environments and the expert of ALFWorld. See `relive.envs.base.Suite`.

    Files are looked at once per suite; a new suite sees what has changed since.

    Args:
        folder: the data folder, by default ``$ALFWORLD_DATA`` as it is when the suite is used.
    """

    name: str = SUITE
    version: str
    """Says which dialect the games speak: ``…-put`` or ``…-move``."""
    types: tuple[str, ...] = TASK_TYPES
    groups: Mapping[str, tuple[str, ...]] = {k: v for k, v in GROUPS.items() if k != "composed"}
    splits: tuple[str, ...] = SPLITS
    validation_split: str = "valid_seen"
    test_split: str = "valid_unseen"
    rooms_shared: tuple[str, ...] = ("valid_seen",)
    templates: tuple[ActionTemplate, ...]
    """As the games' own grammar has them; those of current games while there are none."""
    instructions: str = HouseholdSuite.instructions
    max_steps: int = 50
    expert_kind = "reads text"
    preload: tuple[str, ...] = HouseholdSuite.preload

    def __init__(self, folder: str | Path | None = None) -> None:
        self._given = Path(folder).expanduser() if folder is not None else None
        self._index: Index | None = None
        self._speak(_first_forms(self.folder))

    @property
    def folder(self) -> Path:
        """The data folder, ``json_2.1.1`` lying in it."""
        return self._given or data_folder()

    @property
    def index(self) -> Index:
        """What is known of the games. Thousands of them take seconds to read the first time.

        Raises:
            MissingDataError: there are none; the message has the command that gets them.
            ValueError: files are damaged, or games of two dialects are mixed.
        """
        if self._index is None or self._index.folder != self.folder:
            self._index = Index(self.folder)
            self._speak(self._index.forms)
        return self._index

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """Tasks of a split, the types in turn, each type in the order of its files' paths.

        Raises:
            MissingDataError: there are no games; the message has the command that gets them.
            ValueError: unknown split or type, a negative number, or more than there are.
        """
        pools = self._pools(split, types)
        out = ", ".join(f"{number} {why}" for why, number in self.index.left_out.items())
        where = f"split {split!r} of alfworld in {self.folder}" + (
            f" (left out: {out})" * bool(out)
        )
        return [self._task(game) for _, game in spread(pools, count, start, where=where)]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        """How many games there are; 134 in the official ``valid_unseen``. Raises like `tasks`."""
        return size_of(self._pools(split, types), start)

    def make(self) -> AlfworldEnv:
        """A fresh environment."""
        return AlfworldEnv(self.folder, self._draw)

    def expert(self, task: Task) -> AlfworldExpert:
        """A fresh expert for one episode; it needs nothing but the text, and the form of putting
        something somewhere that prompts list, too."""
        return AlfworldExpert(self._put.format(object="{thing}", receptacle="{place}"))

    def reworded(self, steps: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """An experience in the dialect of these games; see `relive.envs.alfworld.dialect`. As it
        is, where the games speak one that nobody knows."""
        for dialect in DIALECTS:
            if dialect == self.dialect:
                return translate_steps(steps, dialect)
        return list(steps)

    def names(self, observation: str) -> list[str]:
        """Names of things in an observation, sorted; all have a number. The numbered spots of old
        games are none."""
        return sorted({m[0] for m in _NAME.finditer(observation)})

    def _pools(self, split: str, types: Sequence[str]) -> dict[str, Sequence[Game]]:
        chosen = self.checked(split, types)
        return {kind: self.index.games(split, kind) for kind in chosen}

    def _task(self, game: Game) -> Task:
        return Task(
            suite=SUITE,
            identity=game.entry.identity,
            type=game.entry.type,
            split=game.file.split,
            room=game.file.room,
            seed=0,
            version=self.version,
            goal=game.entry.goal,
            payload=game.file.path,
        )

    def _draw(self, random: np.random.Generator) -> Task:
        games = [game for kind in self.types for game in self.index.games("train", kind)]
        if not games:
            raise ValueError(
                f"there are no games of split 'train' in {self.folder}, of which reset draws "
                "without a task: give it one, options={'task': task}"
            )
        return self._task(games[int(random.integers(len(games)))])

    def _speak(self, forms: Mapping[str, str]) -> None:
        # Without games: what current ones say, which is what the household says.
        self._put = forms.get(PUT, _USUAL_PUT)
        self.templates = templates_of(forms) if forms else HouseholdSuite.templates
        self.dialect = dialect_named(forms) if forms else "move"
        """``put`` or ``move``; see `relive.envs.alfworld.dialect`."""
        self.version = f"{VERSION}-{self.dialect}"


def _first_forms(folder: Path) -> Mapping[str, str]:
    """The forms of the first game that can be read; empty where there is none. The index, which
    takes longer, complains of what is wrong."""
    try:
        for split in SPLITS:
            for file in games_in(folder, split):
                return read_entry(folder, file).forms
    except (MissingDataError, ValueError, OSError):
        pass
    return {}
