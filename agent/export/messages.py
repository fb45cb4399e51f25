"""Episodes as conversations for fine-tuning: JSON lines ``{"messages": [...]}``, as trl's
SFTTrainer, OpenAI's fine-tuning and most others take them.

The turns are those that the agent's own prompt has, without a memory block. An answer that the
environment refused has ``"weight": 0``, by which OpenAI leaves it out of the loss; others pass it
over.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ...envs import Suite
from ...envs.base import INSTRUCTIONS
from ...memory.episode import Episode
from ...memory.holdout import TRAIN
from ...memory.plain import counted
from ..conversation import Conversation, Turn, messages
from ..evaluation.stored import in_its_format, stored_spec
from ..prompt import PromptSpec, begin
from ..runner import spec_of
from .report import Report
from .whole import new_file

_GENERIC = PromptSpec(INSTRUCTIONS, ())


class Prompts:
    """The prompt under which each episode was played, as far as its suite can be had.

    Args:
        suite: whose prompt all episodes get; None: each that of its own suite.
        report: told which suites could not be had.
    """

    def __init__(self, suite: Suite | None, report: Report) -> None:
        self._given, self._report = suite, report
        self._specs: dict[str, PromptSpec | None] = {}

    def conversation(self, episode: Episode) -> Conversation:
        """The episode as the agent saw it with an empty memory, up to its last action."""
        spec = self._spec(episode.task.suite)
        opening = episode.steps[0].observation
        if spec is None:
            # Nobody knows what states the goal there, and without it no action makes sense.
            spec, goal = _GENERIC, episode.task.goal
            if goal and goal.casefold() not in opening.casefold():
                opening = f"Your task is to: {goal}.\n\n{opening}"
        turns = list(begin(in_its_format(spec, episode), opening))
        for number, step in enumerate(episode.steps):
            if number:
                turns.append(Turn("user", step.observation))
            turns.append(Turn("assistant", step.said or step.action))
        return tuple(turns)

    def _spec(self, suite: str) -> PromptSpec | None:
        if self._given is not None:
            return spec_of(self._given)
        if suite not in self._specs:
            self._specs[suite] = self._load(suite)
        return self._specs[suite]

    def _load(self, suite: str) -> PromptSpec | None:
        spec, why = stored_spec(suite)
        if spec is not None:
            return spec
        named = f"suite {suite!r} ({why})" if suite else "no suite"
        self._report.notes.append(
            f"episodes of {named} get general instructions and their goal; --suite NAME gives "
            "those of another"
        )
        return None


def export_messages(episodes: Iterable[Episode], path: Path, suite: Suite | None = None) -> Report:
    """Write one JSON line per episode; the file is there in full or not at all.

    Args:
        episodes: what is exported; read once, one at a time.
        path: of the file, which must not exist.
        suite: whose instructions all episodes get; None: each those of its own.

    Raises:
        FileExistsError: there is something at the path.
        OSError: it could not be written.
    """
    with new_file(path) as file:
        return write_messages(episodes, file.write, suite)


def write_messages(
    episodes: Iterable[Episode], write: Callable[[bytes], object], suite: Suite | None = None
) -> Report:
    """The same to whatever takes bytes, standard output for example: line by line."""
    report, held_out = Report(), Counter[str]()
    prompts = Prompts(suite, report)
    for episode in episodes:
        if not episode.steps:
            report.empty += 1
            continue
        told = prompts.conversation(episode)
        # Texts are made fit here, where they are counted.
        fit = tuple(replace(turn, text=report.text(turn.text)) for turn in told)
        write(_line(messages(fit), [step.invalid for step in episode.steps]))
        report.episodes += 1
        report.steps += len(episode.steps)
        if episode.task.split != TRAIN:
            held_out[episode.task.split] += 1
    for split, count in held_out.items():
        report.notes.append(
            f"{counted(count, 'episode')} of split {split!r}: a model that is trained on this is "
            "not measured by that split any more (--split train leaves it out)"
        )
    return report


def _line(turns: list[dict[str, str]], refused: list[bool]) -> bytes:
    told: list[dict[str, str | int]] = []
    answers = iter(refused)
    for turn in turns:
        message: dict[str, str | int] = {"role": turn["role"], "content": turn["content"]}
        if turn["role"] == "assistant" and next(answers):
            message["weight"] = 0
        told.append(message)
    return json.dumps({"messages": told}, ensure_ascii=False).encode() + b"\n"
