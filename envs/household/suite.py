"""The suite `household`: ALFWorld's six task types in 120 real rooms, and composed ones for who
asks for them."""

from collections.abc import Iterable, Mapping, Sequence

from ...task import Task
from ..base import ActionTemplate, Suite, Variation
from .env import HouseholdEnv
from .expert import HouseholdExpert
from .rooms import GROUPS, TASK_TYPES
from .tasks import MAX_STEPS, SUITE, VERSION, listing
from .variations import KINDS, proposed


class HouseholdSuite(Suite):
    """Tasks, environments and the expert of the household. See `relive.envs.base.Suite`."""

    name: str = SUITE
    version: str = VERSION
    types: tuple[str, ...] = TASK_TYPES
    """The types of default lists; those of the group ``composed`` are listed only by name."""
    groups: Mapping[str, tuple[str, ...]] = GROUPS
    # The bundled model was pretrained on these forms, in this order, under these instructions:
    # changing a byte of them changes its prompt (tests/training/test_corpus.py compares).
    templates: tuple[ActionTemplate, ...] = (
        ActionTemplate("go to {receptacle}", "move"),
        ActionTemplate("open {receptacle}", "look"),
        ActionTemplate("close {receptacle}", "look"),
        ActionTemplate("examine {object}", "look"),
        ActionTemplate("look", "look"),
        ActionTemplate("inventory", "look"),
        ActionTemplate("take {object} from {receptacle}", "act"),
        ActionTemplate("move {object} to {receptacle}", "act"),
        ActionTemplate("slice {object} with {object}", "act"),
        ActionTemplate("use {object}", "act"),
        ActionTemplate("clean {object} with {receptacle}", "act"),
        ActionTemplate("heat {object} with {receptacle}", "act"),
        ActionTemplate("cool {object} with {receptacle}", "act"),
    )
    instructions: str = (
        "Interact with a household to solve a task. Answer with one action at a time."
    )
    max_steps: int = MAX_STEPS
    expert_kind = "reads text"
    preload: tuple[str, ...] = ("textworld.envs.pddl.logic", "fast_downward")
    """Modules worth importing before a worker is forked (a second each)."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks, taking the types in turn; only games that the expert solves within
        `max_steps`.

        Raises:
            ValueError: unknown split or type, or a negative number.
        """
        chosen = self.checked(split, types)
        if count < 0 or start < 0:
            raise ValueError(
                f"household.tasks: count and start must not be negative, got {count} and {start}"
            )
        per_type = {t: listing(split, t).first(start + -(-count // len(chosen))) for t in chosen}
        return [per_type[chosen[i % len(chosen)]][start + i // len(chosen)] for i in range(count)]

    def left_out(self, split: str, tried: int = 200, types: Sequence[str] = ()) -> dict[str, float]:
        """Per type, the share of the first `tried` games that task lists leave out because the
        expert fails on them."""
        return {t: listing(split, t).share_left_out(tried) for t in self.checked(split, types)}

    variation_kinds: tuple[str, ...] = tuple(KINDS)

    def variations(self, task: Task, actions: Sequence[str], kind: str) -> Iterable[Variation]:
        """See `relive.envs.household.variations`."""
        return KINDS[kind](task, actions)

    def proposed(self, goal: str, actions: Sequence[str], seed: int = 0) -> Variation | None:
        """See `relive.envs.household.variations.proposed`."""
        return proposed(goal, actions, seed)

    def make(self) -> HouseholdEnv:
        """A fresh environment."""
        return HouseholdEnv()

    def expert(self, task: Task) -> HouseholdExpert:
        """A fresh expert for one episode; it needs nothing but the text."""
        return HouseholdExpert()
