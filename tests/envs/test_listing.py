"""Lists spread over types that have more or less to offer, and splits by any name."""

from collections.abc import Sequence

import pytest

from relive.envs import TextEnv, get_suite
from relive.envs.base import Suite
from relive.envs.listing import size_of, spread
from relive.task import Task, identity_of

POOLS = {"many": range(10), "few": "ab", "none": ()}


def test_types_take_turns_until_they_are_used_up() -> None:
    assert spread(POOLS, 6) == [
        ("many", 0), ("few", "a"), ("many", 1), ("few", "b"), ("many", 2), ("many", 3),
    ]  # fmt: skip
    assert spread(POOLS, 3, start=1) == [("many", 1), ("few", "b"), ("many", 2)]
    assert size_of(POOLS) == 12
    assert size_of(POOLS, 2) == 8
    whole = spread(POOLS, 12)
    assert all(spread(POOLS, count) == whole[:count] for count in range(13))


def test_more_than_there_is_names_what_there_is() -> None:
    with pytest.raises(ValueError, match="here has 12 tasks of many, few, none, and 13 were asked"):
        spread(POOLS, 13, where="here")
    with pytest.raises(ValueError, match="behind the first 9 of each type"):
        spread(POOLS, 2, start=9)
    with pytest.raises(ValueError, match="must not be negative"):
        spread(POOLS, -1)


class Files(Suite):
    """Two splits with names of their own, one of them small."""

    name, version, types = "files", "files-1", ("a", "b")
    splits, validation_split, test_split = ("train", "seen", "unseen"), "seen", "unseen"

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        pools = {kind: range(5 if split == "train" else 1) for kind in self.checked(split, types)}
        return [
            Task("files", identity_of(split, kind, str(n)), kind, split, "", n, "files-1", "")
            for kind, n in spread(pools, count, start)
        ]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        return len(self.checked(split, types)) * max(0, (5 if split == "train" else 1) - start)

    def make(self) -> TextEnv:
        raise NotImplementedError


def test_splits_have_the_suites_names_and_the_usual_ones() -> None:
    suite = Files()
    assert [suite.split_of(name) for name in ("train", "valid", "test", "seen")] == [
        "train", "seen", "unseen", "seen",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no split 'unsene': use one of train, seen, unseen"):
        suite.split_of("unsene")
    with pytest.raises(ValueError, match="calls its split 'unseen', not 'test'"):
        suite.tasks("test", 1)
    with pytest.raises(ValueError, match="no task type 'c'"):
        suite.tasks("train", 1, ["c"])
    assert len(suite.up_to("unseen", 100)) == suite.count("unseen") == 2
    with pytest.raises(ValueError, match="as many tasks as are asked for"):
        get_suite("toy").count("test")
