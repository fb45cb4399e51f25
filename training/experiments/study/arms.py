"""The study's arms: how a policy is trained, under which memory it is measured, and on what.

A *cell* is one measurement: a training, a base model, what the memory holds, how it is asked, and a
seed. Cells of one seed share tasks, memory and adapters, so every comparison is paired. Definitions
follow Ferraz et al., arXiv:2603.18272; what goes past it (rehearsal, robust contexts, the control
base, the copier) is named apart.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ....envs import Suite
from ....memory.query import ORDERS
from ...examples import ContextRates


@dataclass(frozen=True, slots=True)
class Training:
    """What one training differs in. Episodes, their order and tokens, and optimiser steps are the
    same for all; rehearsal comes on top."""

    memory: bool
    """Whether examples have a memory block: the agent's own retrieval from the other training
    episodes."""
    robust: bool = False
    """Whether blocks are left out or beside the point at the study's stated rates."""
    rehearsal: bool = False
    """Whether synthetic worlds of pretraining are mixed in, at the study's stated share."""
    fade: bool = False
    """Whether memory fades over the training, from all examples to none."""
    variations: tuple[str, ...] = ()
    """What else is learnt from each episode (:mod:`relive.training.augment`); optimiser steps stay
    as they are."""
    paraphrases: bool = False
    """Whether the model says the goals in other words, which are learnt from as well."""
    proposals: bool = False
    """Whether the model makes up as many further episodes as there are, of which those that work
    are learnt from."""
    council: Literal["", "route", "vote"] = ""
    """Rule of a council (:mod:`relive.agent.ensemble.council`) with a specialist for each easy
    type, of the same total rank, data and optimiser steps; empty for one adapter."""
    routed: tuple[str, ...] = ()
    """Two trainings: whose adapter acts where something is shown, and whose where nothing is
    (:mod:`relive.agent.ensemble.explorer`); empty where one adapter always acts."""


TRAININGS: Mapping[str, Training] = {
    "lora": Training(memory=False),
    "lora-rehearsal": Training(memory=False, rehearsal=True),
    "rag-lora": Training(memory=True),
    "rag-lora-rehearsal": Training(memory=True, rehearsal=True),  # for learning curves only
    "rag-lora-robust": Training(memory=True, robust=True, rehearsal=True),
    "rag-lora-fade": Training(memory=True, rehearsal=True, fade=True),
    **{
        f"rag-lora-{kind}": Training(True, robust=True, rehearsal=True, variations=(kind,))
        for kind in ("wordings", "hindsight", "reversal")
    },
    **{
        f"lora-{kind}": Training(False, variations=(kind,))
        for kind in ("wordings", "hindsight", "reversal")
    },
    "rag-lora-paraphrases": Training(True, robust=True, rehearsal=True, paraphrases=True),
    "rag-lora-proposals": Training(True, robust=True, rehearsal=True, proposals=True),
    "council": Training(True, robust=True, rehearsal=True, council="route"),
    "council-vote": Training(True, robust=True, rehearsal=True, council="vote"),
    "routed": Training(True, routed=("rag-lora-robust", "lora")),
}
"""``none`` (the frozen base), ``copier`` and ``copier-search`` (scripted) need no training."""

SCRIPTED = ("copier", "copier-search")

TIERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "household": {
        "easy": ("pick_and_place_simple", "look_at_obj_in_light", "pick_clean_then_place_in_recep"),
        "binding": ("pick_heat_then_place_in_recep", "pick_cool_then_place_in_recep"),
        "structure": ("pick_two_obj_and_place",),
    }
}
"""Suite -> tier -> task types. *Binding*: a shape that was trained on, with an appliance that was
not. *Structure*: a shape that never was."""
EASY, HARD = "easy", ("binding", "structure")
"""The tier that is trained on, and those that never are where hard types are told apart; elsewhere
there is one that is called ``hard``."""
SEALED = "composed"
"""The suite's group that is measured once, at the end."""

VOTE = "vote"
"""As a cell's order: several orders, and the action that most answers name."""
FULL = 1000
"""As a cell's k: as many episodes as fit."""


class Adapter(NamedTuple):
    """One adapter that a cell is measured with."""

    name: str
    train: str
    """How it is trained."""
    kind: str
    """Type that it learns from; empty for all easy ones."""


def tiers_of(suite: Suite) -> Mapping[str, tuple[str, ...]]:
    """Tiers in which a suite's results are reported where nobody says: the suite's groups ``easy``
    and ``hard`` where none are defined.

    Raises:
        ValueError: there are no such groups.
    """
    if suite.name in TIERS:
        return TIERS[suite.name]
    if not {EASY, "hard"} <= set(suite.groups):
        raise ValueError(
            f"suite {suite.name!r} has no groups 'easy' and 'hard': say which types are trained on "
            "(easy = [...]) and which are only ever in the memory (hard = [...])"
        )
    return {tier: suite.groups[tier] for tier in (EASY, "hard")}


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement."""

    train: str
    memory: str = "matching"
    """``matching``, ``other`` or ``empty``; see `relive.training.experiments.conditions`."""
    k: int = 2
    query: str = "static"
    order: str = ""
    """Order in which past episodes are shown (:data:`relive.memory.query.ORDERS`), or ``vote`` of
    several orders; empty for the settings'."""
    tokens: int = 0
    """Tokens of the memory block at most; 0 for the settings'."""
    source: str = "expert"
    """Whose successes the memory holds: the ``expert``'s or the agent's ``own``."""
    base: str = "base"
    """``base``, or ``control`` for the control base. (Older results say ``bundled``.)"""
    sealed: bool = False
    """Whether it is measured on the sealed tier of composed goals, and on nothing else."""
    seed: int = 0

    @property
    def condition(self) -> str:
        """The cell without its seed, in one word: ``rag-lora-robust/matching``, with what is not
        the default appended."""
        parts = [self.train, self.memory]
        if self.memory != "empty" and self.k != 2:
            parts.append("full" if self.k == FULL else f"k{self.k}")
        parts += [self.query] if self.query != "static" else []
        parts += [self.order] if self.order else []
        parts += [f"tokens{self.tokens}"] if self.tokens else []
        parts += [self.source] if self.source != "expert" else []
        parts += [self.base] if self.base == "control" else []
        return "/".join(parts)

    @classmethod
    def of(cls, condition: str, seed: int = 0) -> "Cell":
        """The cell of a condition, which :attr:`condition` gives again.

        Raises:
            ValueError: it is none.
        """
        train, _, rest = condition.partition("/")
        memory, *more = rest.split("/")
        said: dict[str, Any] = {}
        for part in more:
            if numbered := re.fullmatch(r"(k|tokens)([1-9]\d*)", part):
                said[numbered[1]] = int(numbered[2])
            elif part == "full":
                said["k"] = FULL
            elif part in (*ORDERS, VOTE):
                said["order"] = part
            else:
                name = {"dynamic": "query", "own": "source", "control": "base"}.get(part, "")
                said[name] = part
        known = {"none", *SCRIPTED, *TRAININGS}
        alone = train not in SCRIPTED and not (
            train in TRAININGS and (TRAININGS[train].council or TRAININGS[train].routed)
        )
        votes = alone or said.get("order") != VOTE
        if train in known and memory in ("matching", "other", "empty") and "" not in said and votes:
            cell = cls(train, memory, seed=seed, **said)
            if cell.condition == condition:
                return cell
        raise ValueError(
            f"{condition!r} is no condition: it is TRAINING/MEMORY and what is not the default, in "
            "this order: k1 (any number) or full, dynamic, an order or vote, tokens400 (any "
            f"number), own, control. Trainings: {', '.join(sorted(known))}; memories: matching, "
            "other, empty"
        )

    @property
    def name(self) -> str:
        """A folder name of its own."""
        return f"{self.condition.replace('/', '+')}{'+sealed' if self.sealed else ''}+s{self.seed}"

    @property
    def adapter(self) -> str:
        """Name of the adapter it is measured with, or of its specialists' together; empty for
        none."""
        if self.train not in TRAININGS:
            return ""
        name = "council" if TRAININGS[self.train].council else self.train
        return f"{name}-{self.base}-s{self.seed}"

    def adapters(self, easy: Sequence[str]) -> list[Adapter]:
        """The adapters to train: one for all easy types, or as many as act together."""
        if not self.adapter:
            return []
        training, end = TRAININGS[self.train], f"{self.base}-s{self.seed}"
        if training.council:
            return [Adapter(f"council-{kind}-{end}", self.train, kind) for kind in easy]
        if training.routed:
            return [Adapter(f"{train}-{end}", train, "") for train in training.routed]
        return [Adapter(self.adapter, self.train, "")]


def cells(
    seeds: int,
    control: bool,
    sealed: bool = False,
    rehearsal: bool = True,
    scripted: tuple[str, ...] = SCRIPTED,
) -> list[Cell]:
    """All cells, the most telling first, seed by seed.

    Args:
        seeds: number of seeds.
        control: whether there is a control base.
        sealed: the cells of the sealed tier instead.
        rehearsal: whether there is something to rehearse.
        scripted: the copying baselines that can play the suite.
    """
    arms = ("rag-lora-robust", "none", "rag-lora", "lora")
    found: list[Cell] = []
    if sealed:
        found = [
            Cell(train, memory, sealed=True) for train in arms for memory in ("matching", "empty")
        ]
        found += [Cell(train, sealed=True) for train in scripted if train == "copier"]
        return [replace(cell, seed=seed) for seed in range(seeds) for cell in found]
    main = [Cell(train, memory) for train in arms for memory in ("matching", "empty", "other")]
    if rehearsal:
        main += [Cell("lora-rehearsal", memory) for memory in ("matching", "empty")]
    main += [Cell(train) for train in scripted]
    more = [Cell(train, k=k) for train in ("rag-lora-robust", "none") for k in (1, 4)]
    more.append(Cell("rag-lora-robust", source="own"))
    if control:
        more += [
            Cell(t, m, base="control") for t in ("none", "lora") for m in ("matching", "empty")
        ]
    found = [
        replace(cell, seed=seed)
        for group in (main, more)
        for seed in range(seeds)
        for cell in group
    ]
    # One seed: at every step the prompt changes and is read anew, or it is as long as can be.
    found += [Cell(train, query="dynamic") for train in ("rag-lora-robust", "none")]
    return [*found, *(Cell(train, k=FULL) for train in ("rag-lora-robust", "none"))]


def rates_of(training: Training, robust: ContextRates) -> ContextRates:
    """How often a training's memory blocks are left out or beside the point."""
    if training.fade:
        return ContextRates(0.0, 0.0, fade=1.0)
    return robust if training.robust else ContextRates(0.0, 0.0)
