"""A Minari data set: texts as observations and actions, an episode at a time.

Minari finds a data set by its id below one root folder: the id is the name of the folder that is
written, and the root the folder around it. Texts of HDF5 hold neither half characters nor NUL.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...extras import needs
from ...memory.episode import Episode, StopReason
from .report import Report
from .rows import Cell, episode_row
from .whole import new_folder

if TYPE_CHECKING:
    from minari.data_collector.episode_buffer import EpisodeBuffer

_NUL = "\0"
_ABOUT = ("steps", "started", "seconds", "final_observation")
"""What of an episode's row Minari has a place for elsewhere, or nobody looks for."""


def export_minari(episodes: Iterable[Episode], path: Path) -> Report:
    """Write the data set; it is there in full or not at all.

    Args:
        episodes: what is exported; read twice, one at a time, and the same both times.
        path: of its folder, which must not exist; its name is the data set's id, ``name-v0`` for
            example.

    Raises:
        MissingExtraError: Minari is not installed.
        FileExistsError: there is something at the path.
        ValueError: the name is no id of Minari's, or there is no episode with a step.
        OSError: it could not be written.
    """
    needs("minari")
    import minari
    from gymnasium.spaces import Text
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage

    name = path.name
    try:
        parse_dataset_id(name)
    except (TypeError, ValueError):
        raise ValueError(
            f"Minari's data sets are called name-v0, with letters, digits, - and _: {name!r} in "
            "--out is no such name"
        ) from None
    seen, done = _Alphabet(), _Alphabet()
    for episode in episodes:
        if episode.steps:
            seen.add(_fit(Report(), *episode.observations))
            done.add(_fit(Report(), *(step.action for step in episode.steps)))
    if not seen.texts:
        raise ValueError("there is no episode with a step, and Minari has no empty data sets")
    report = Report()
    with new_folder(path) as folder:
        storage = MinariStorage.new(
            folder.absolute() / "data",  # Minari looks for a relative one in a wrong place
            *(Text(max(1, one.longest), min_length=0, charset=one.charset) for one in (seen, done)),
        )
        storage.update_metadata(
            {
                "dataset_id": name,
                "minari_version": minari.__version__,
                "description": "Episodes of an agent in text environments; relive export.",
            }
        )
        storage.update_episodes(_buffers(episodes, report))
    return report


class _Alphabet:
    """How long texts are, and what they are made of: Minari's spaces state both."""

    def __init__(self) -> None:
        self.texts, self.longest, self.characters = 0, 0, set[str]()

    def add(self, texts: list[str]) -> None:
        self.texts += len(texts)
        for text in texts:
            self.longest = max(self.longest, len(text))
            self.characters.update(text)

    @property
    def charset(self) -> str:
        return "".join(sorted(self.characters)) or " "


def _fit(report: Report, *texts: str) -> list[str]:
    return [report.text(text, _NUL) for text in texts]


def _buffers(episodes: Iterable[Episode], report: Report) -> "Iterator[EpisodeBuffer]":
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for episode in episodes:
        count = len(episode.steps)
        if not count:
            report.empty += 1
            continue
        ended = episode.outcome.reason in (StopReason.SOLVED, StopReason.FAILED)
        last = [False] * (count - 1)
        yield EpisodeBuffer(
            seed=episode.task.seed,
            options=_about(episode, report),
            observations=_fit(report, *episode.observations),
            actions=_fit(report, *(step.action for step in episode.steps)),
            rewards=[step.reward for step in episode.steps],
            terminations=[*last, ended],
            truncations=[*last, not ended],
            # One more than there are actions: the first is of the reset.
            infos={"invalid": [False, *(step.invalid for step in episode.steps)]},
        )
        report.episodes += 1
        report.steps += count


def _about(episode: Episode, report: Report) -> dict[str, Cell]:
    row = episode_row(episode, report)
    return {
        name: report.text(cell, _NUL) if isinstance(cell, str) else cell
        for name, cell in row.items()
        if cell is not None and name not in _ABOUT
    }
