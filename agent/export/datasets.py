"""A folder that ``datasets.load_dataset`` opens: an episode per line of JSON, and the card that
states its columns.

The columns are always the same, and the card gives their types: nothing is guessed from the first
lines. Those of the steps are lists of one length; ``observation`` is what was seen before each
action. JSON has no numbers that are not finite: these are null.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from ...memory.episode import Episode
from .report import Report
from .rows import EPISODE, STEP, Cell, episode_row, finite, step_rows
from .whole import new_folder

DATA = "episodes.jsonl"
_LISTS = {name: kind for name, kind in STEP.items() if name not in EPISODE and name != "step"}


def export_datasets(episodes: Iterable[Episode], path: Path) -> Report:
    """Write the data set into a new folder; it is there in full or not at all.

    Args:
        episodes: what is exported; read once, one at a time.
        path: of the folder, which must not exist.

    Raises:
        FileExistsError: there is something at the path.
        OSError: it could not be written.
    """
    report, won = Report(), 0
    with new_folder(path) as folder:
        with (folder / DATA).open("w", encoding="utf-8", newline="\n") as file:
            for episode in episodes:
                file.write(json.dumps(_row(episode, report), ensure_ascii=False) + "\n")
                report.episodes += 1
                report.steps += len(episode.steps)
                won += episode.success
        (folder / "README.md").write_text(_card(report, won), encoding="utf-8")
    return report


def _row(episode: Episode, report: Report) -> dict[str, Cell | list[Cell]]:
    row: dict[str, Cell | list[Cell]] = {
        name: finite(cell) for name, cell in episode_row(episode, report).items()
    }
    steps = step_rows(episode, report)
    for name in _LISTS:
        row[name] = [finite(step[name]) for step in steps]
    return row


def _card(report: Report, won: int) -> str:
    columns = [f"  - name: {name}\n    dtype: {kind}" for name, kind in EPISODE.items()]
    columns += [f"  - name: {name}\n    list: {kind}" for name, kind in _LISTS.items()]
    features = "\n".join(columns)
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {DATA}
dataset_info:
  features:
{features}
---

# Episodes

{report.episodes} episodes of an agent in text environments, {won} of them successes, with
{report.steps} steps; written by `relive export`.

One row is an episode. `observation`, `action`, `reward`, `invalid`, `reasoning`, `said` and
`retrieved` are lists with one item per step: what the agent saw before it acted, what it did, what
that brought, whether the environment refused it, what was thought and said, and the ids of the past
episodes that were shown. `split` is the split of the task in its suite; train on `train` alone.
"""
