"""Rounds of learning play no task twice, however uneven the types are."""

from collections.abc import Sequence

from relive.envs import TextEnv, get_suite
from relive.envs.base import Suite
from relive.envs.listing import size_of, spread
from relive.task import Task, identity_of
from relive.training.select import training_tasks


class Uneven(Suite):
    name, version, types = "uneven", "uneven-1", ("few", "many")

    def pools(self, types: Sequence[str]) -> dict[str, range]:
        return {kind: range(3 if kind == "few" else 40) for kind in types or self.types}

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        return [
            Task("uneven", identity_of(kind, str(n)), kind, split, "", n, "uneven-1", "")
            for kind, n in spread(self.pools(types), count, start)
        ]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        return size_of(self.pools(types), start)

    def make(self) -> TextEnv:
        raise NotImplementedError


def test_no_task_twice_until_there_are_no_more() -> None:
    suite = Uneven()
    shown = {task.identity for task in suite.up_to("train", 10)}
    rounds = [training_tasks(suite, suite.types, 10, 12, number) for number in range(1, 5)]
    assert [len(some) for some in rounds] == [12, 12, 9, 0]
    played = [task.identity for some in rounds for task in some]
    assert len(set(played)) == len(played) == 33
    assert not shown & set(played)


def test_endless_suites_keep_their_lists() -> None:
    toy = get_suite("toy")
    assert training_tasks(toy, toy.types, 4, 6, 2) == toy.tasks("train", 6, toy.types, start=5)
