"""Embedders and queries that are not what they should be: one clear error, or the right answer."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.memory import Memory, Query
from tests.memory.conftest import make_episode
from tests.memory.hostile.ask import ask
from tests.memory.hostile.contents import folder_bytes
from tests.memory.hostile.embedders import MadeEmbedder
from tests.memory.hostile.oracle import NEAR, compare_all

DIMENSION = 8
Made = Callable[[np.ndarray[Any, Any]], Any]


class TurningEmbedder(MadeEmbedder):
    """One that is right until told otherwise."""

    def __init__(self, turn: Made | None = None) -> None:
        super().__init__("uniform", DIMENSION)
        self.turn = turn

    @property
    def identity(self) -> str:
        """The same whatever it makes."""
        return "turning-embedder"

    def encode(self, texts: Sequence[str]) -> Any:
        """What it makes of right vectors."""
        right = super().encode(texts)
        return right if self.turn is None else self.turn(right)


def _with(value: float) -> Made:
    def turn(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        rows[-1, 0] = value
        return rows

    return turn


NO_VECTORS: dict[str, Made] = {
    "None": lambda rows: None,
    "nothing": lambda rows: [],
    "text": lambda rows: "vectors",
    "a list of texts": lambda rows: ["vector"] * len(rows),
    "a ragged list": lambda rows: [
        [1.0] * (1 + i % 2 + (len(rows) == 1)) for i in range(len(rows))
    ],
    "a list of None": lambda rows: [None] * len(rows),
    "a generator": lambda rows: (row for row in rows),
    "objects in an array": lambda rows: np.full(rows.shape, None),
    "complex numbers": lambda rows: rows.astype(np.complex64) * 1j,
    "one row too many": lambda rows: np.concatenate([rows, rows[:1]]),
    "one row too few": lambda rows: rows[1:],
    "another dimension": lambda rows: rows[:, 1:],
    "a flat array": lambda rows: rows.ravel(),
    "three axes": lambda rows: rows[:, None],
    "zeros": np.zeros_like,
    "a row of zeros": lambda rows: np.concatenate([rows[1:], np.zeros_like(rows[:1])]),
    "NaN": _with(np.nan),
    "infinity": _with(np.inf),
    "minus infinity": _with(-np.inf),
}
OTHER_LENGTHS: dict[str, Made] = {
    "double precision": lambda rows: rows.astype(np.float64),
    "half precision": lambda rows: rows.astype(np.float16),
    "long": lambda rows: rows * np.arange(2, 2 + len(rows), dtype=np.float32)[:, None],
    "short": lambda rows: rows / np.arange(3, 3 + len(rows), dtype=np.float32)[:, None],
    "very long": lambda rows: rows * np.float32(1e30),
    "very short": lambda rows: rows * np.float32(1e-30),
    "longer than single precision holds": lambda rows: rows.astype(np.float64) * 1e200,
    "shorter than single precision holds": lambda rows: rows.astype(np.float64) * 1e-200,
    "integers": lambda rows: np.round(rows * 10_000).astype(np.int64),
    "a view that runs backwards": lambda rows: rows[::-1].copy()[::-1],
    "column after column": np.asfortranarray,
    "a list of lists": lambda rows: rows.tolist(),
}


def refuses(act: Callable[[], object]) -> None:
    """That something is refused with an error that names the embedder."""
    with pytest.raises((ValueError, TypeError), match="turning-embedder"):
        act()


@pytest.mark.parametrize("what", NO_VECTORS)
def test_what_are_no_vectors_is_refused(folder: Path, what: str) -> None:
    """Row 7: by adding and by searching, and nothing is changed, so that all goes on with a better
    embedder."""
    embedder = TurningEmbedder()
    with Memory(folder, embedder=embedder) as memory:
        memory.add_many([make_episode(number) for number in range(5)])
        before, position = folder_bytes(folder), memory.position
        embedder.turn = NO_VECTORS[what]
        refuses(lambda: memory.add(make_episode(5)))
        refuses(lambda: memory.add_many([make_episode(5), make_episode(6)]))
        refuses(lambda: ask(memory, Query("anything")))
        assert (memory.position, len(memory)) == (position, 5)
        assert folder_bytes(folder) == before
        embedder.turn = None
        memory.add(make_episode(5))
    with Memory(folder, "r", embedder=embedder) as memory:
        goals = {f"episode-{number}": make_episode(number).task.goal for number in range(6)}
        assert not compare_all(memory, goals, ["anything", "something"]).wrong


@pytest.mark.parametrize("what", ["None", "zeros", "NaN", "another dimension"])
def test_what_are_no_vectors_does_not_get_into_a_column(folder: Path, what: str) -> None:
    """A memory that lost its vectors embeds again, and says so if it cannot; afterwards it can with
    a better embedder."""
    with Memory(folder, embedder=TurningEmbedder()) as memory:
        memory.add_many([make_episode(number) for number in range(5)])
    shutil.rmtree(folder / "vectors")
    for mode in ("r", "w"):
        refuses(lambda mode=mode: Memory(folder, mode, embedder=TurningEmbedder(NO_VECTORS[what])))  # type: ignore[misc]
    with Memory(folder, "w", embedder=TurningEmbedder()) as memory:
        goals = {f"episode-{number}": make_episode(number).task.goal for number in range(5)}
        assert not compare_all(memory, goals, ["anything", "something"]).wrong


@pytest.mark.parametrize("what", OTHER_LENGTHS)
def test_vectors_of_any_length_are_normalised(folder: Path, what: str) -> None:
    """Row 7: scores are those of unit vectors, whatever the length of what an embedder makes; or it
    is refused."""
    embedder, right = TurningEmbedder(OTHER_LENGTHS[what]), MadeEmbedder("uniform", DIMENSION)
    refusal = ""
    with Memory(folder, embedder=embedder) as memory:
        try:
            memory.add_many([make_episode(number) for number in range(20)])
        except (ValueError, TypeError) as error:
            refusal = str(error)
    if refusal:
        assert "turning-embedder" in refusal
        assert what.startswith(("very", "longer", "shorter", "a list")), (
            f"{what} can be normalised: {refusal}"
        )
        return
    for mode in ("r", "w"):
        with Memory(folder, mode, embedder=embedder) as memory:
            for text in ("anything", "something", "nothing"):
                hits = ask(memory, Query(text, k=20))
                assert len(hits) == 20
                for hit in hits:
                    row = right.encode([memory.meta(hit.episode_id).task.goal])[0]
                    # Half precision and integers are not exact.
                    assert hit.score == pytest.approx(
                        float(row @ right.encode([text])[0]), abs=50 * NEAR
                    )
                assert [hit.score for hit in hits] == sorted(
                    (hit.score for hit in hits), reverse=True
                )


def test_what_an_embedder_raises_changes_nothing(folder: Path) -> None:
    """Its error is not hidden, and the memory goes on."""

    def fail(rows: np.ndarray[Any, Any]) -> None:
        raise RuntimeError("no model here")

    embedder = TurningEmbedder()
    with Memory(folder, embedder=embedder) as memory:
        memory.add(make_episode(0))
        before = folder_bytes(folder)
        embedder.turn = fail
        for act in (lambda: memory.add(make_episode(1)), lambda: ask(memory, Query("anything"))):
            with pytest.raises(RuntimeError, match="no model here"):
                act()
        assert folder_bytes(folder) == before
        embedder.turn = None
        memory.add(make_episode(1))
        assert len(ask(memory, Query("anything"))) == 2


def test_an_embedder_may_change_what_it_made(folder: Path) -> None:
    """One that fills the same array again and again; the memory keeps what it was given."""
    kept = np.zeros((64, DIMENSION), dtype=np.float32)

    def reuse(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        kept[: len(rows)] = rows
        return kept[: len(rows)]

    with Memory(folder, embedder=TurningEmbedder(reuse)) as memory:
        for number in range(6):
            memory.add(make_episode(number))
        right = MadeEmbedder("uniform", DIMENSION)
        for hit in ask(memory, Query("anything", k=6)):
            row = right.encode([memory.meta(hit.episode_id).task.goal])[0]
            assert hit.score == pytest.approx(float(row @ right.encode(["anything"])[0]), abs=NEAR)


_NAN, _INF = float("nan"), float("inf")
_QUERIES: list[tuple[str, Any]] = [
    *(("k", value) for value in (2.5, "2", None, _NAN, _INF, -1)),
    *(("usefulness", value) for value in (_NAN, _INF, -_INF)),
    *(("length_penalty", value) for value in (_NAN, _INF)),
    *(("diversity", value) for value in (_NAN, _INF)),
    *(("text", value) for value in (None, b"text")),
    ("min_score", _NAN),
]


@pytest.mark.parametrize(
    ("name", "value"), _QUERIES, ids=[f"{name} {value!r}" for name, value in _QUERIES]
)
def test_queries_that_make_no_sense_are_refused(store: Memory, name: str, value: Any) -> None:
    """Row 7: at the latest when it is asked, by the name of what is wrong."""
    store.add_many([make_episode(number) for number in range(5)])
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        ask(store, Query(**{"text": "anything", **{name: value}}))


@pytest.mark.parametrize("at", [2.5, _NAN, -1, 99, True, "1"], ids=repr)
def test_positions_that_make_no_sense_are_refused(store: Memory, at: Any) -> None:
    """Row 7: a log position is a whole number that was reached."""
    store.add_many([make_episode(number) for number in range(5)])
    with pytest.raises((ValueError, TypeError), match=r"position|\bat\b"):
        ask(store, Query("anything"), at=at)
    for read in (
        store.entries,
        lambda at: list(store.iterate(at)),
        lambda at: store.get("episode-1", at),
    ):
        with pytest.raises((ValueError, TypeError), match=r"position|\bat\b"):
            read(at)


@pytest.mark.parametrize("wrong", [2.0, _NAN, True, "1", None], ids=repr)
def test_what_is_no_number_is_refused_as_a_number(store: Memory, wrong: Any) -> None:
    """Row 7: by the name of the argument."""
    store.add_many([make_episode(number) for number in range(5)])
    acts: dict[str, Callable[[], object]] = {
        "since": lambda: store.entries(since=wrong),
        "count": lambda: store.draw(Query("anything"), wrong, 0),
        "keep_per_type": lambda: store.evict(capacity=1, keep_per_type=wrong),
        "seed": lambda: store.evict(capacity=1, seed=wrong),
        "capacity": lambda: store.evict(capacity=wrong, before=1e10),
        "before": lambda: store.evict(before=wrong, capacity=1),
    }
    for name, act in acts.items():
        if (name, wrong) == ("before", 2.0) or (wrong is None and name in ("capacity", "before")):
            continue
        with pytest.raises((TypeError, ValueError), match=rf"^{name} (must be|is nan)"):
            act()
    assert len(store) == 5


def test_numbers_that_are_too_small_are_refused(store: Memory) -> None:
    """Row 7: nobody draws less than nothing."""
    store.add_many([make_episode(number) for number in range(5)])
    for act in (
        lambda: store.draw(Query("anything"), -1, 0),
        lambda: store.evict(capacity=-1),
        lambda: store.evict(capacity=1, keep_per_type=-1),
    ):
        with pytest.raises(ValueError, match=r"^(count|capacity|keep_per_type) is -1"):
            act()
    assert [len(store.draw(Query("anything"), count, 0)) for count in (0, np.int8(3), 99)] == [
        0, 3, 5,
    ]  # fmt: skip
