"""Finding by one key: a graph and the rows after it, against comparing everything."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.memory.search.embed import Vectors
from relive.memory.search.field_index import DECIMALS, WIDEST, FieldIndex
from relive.memory.search.index import IndexSettings
from relive.memory.search.vectors import WINDOW_BITS, VectorColumn
from relive.memory.storage.rows import Numbers

DIMENSION = 16
SMALL = IndexSettings(exact_limit=10)


def clustered(count: int, seed: int = 0) -> Vectors:
    """Unit vectors in clusters of about fifty, as goals of the same kind are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, count // 50), DIMENSION))
    points = centres[generator.integers(0, len(centres), count)] + 0.4 * generator.standard_normal(
        (count, DIMENSION)
    )
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


class Made:
    """A space in a folder, with episodes at every third log position and so many texts each."""

    def __init__(
        self,
        folder: Path,
        vectors: Vectors,
        per_episode: int = 1,
        *,
        writable: bool = True,
        settings: IndexSettings = SMALL,
        columns: Any = None,
    ) -> None:
        for name in ("vectors", "index"):
            (folder / name).mkdir(exist_ok=True)
        self.vectors = vectors
        self.space = FieldIndex(
            folder,
            field="goal" if per_episode == 1 else "window",
            identity="test",
            dimension=DIMENSION,
            memory=bytes(16),
            embed=lambda numbers: vectors[numbers],
            writable=writable,
            settings=settings,
            columns=columns,
        )
        count = len(vectors) // per_episode
        self.sequences = 3 * np.arange(count)
        self.labels = (np.repeat(self.sequences, per_episode) << WINDOW_BITS) + np.tile(
            np.arange(per_episode), count
        )
        self.space.column.open(self.labels, np.zeros(len(self.labels), dtype=np.uint32))

    def add(self, vectors: Vectors) -> None:
        """More episodes, of one text each."""
        start = len(self.sequences)
        new = 3 * np.arange(start, start + len(vectors))
        self.vectors, self.sequences = (
            np.concatenate([self.vectors, vectors]),
            np.concatenate([self.sequences, new]),
        )
        self.labels = np.concatenate([self.labels, new << WINDOW_BITS])
        self.space.column.append(new << WINDOW_BITS, np.zeros(len(new), dtype=np.uint32), vectors)

    def oracle(
        self, query: Vectors, count: int, sequences: Numbers
    ) -> tuple[list[int], list[float]]:
        """What is found, in the plainest words: the best row of each episode, the best episodes and
        all that are equal."""
        best: dict[int, float] = {}
        ordinals = {int(sequence): ordinal for ordinal, sequence in enumerate(sequences)}
        every = np.round(self.vectors @ query, DECIMALS).tolist()
        for label, score in zip(self.labels.tolist(), every, strict=True):
            ordinal = ordinals.get(label >> WINDOW_BITS)
            if ordinal is not None:
                best[ordinal] = max(best.get(ordinal, -9.0), score)
        if len(best) > count:
            least = sorted(best.values())[-count]
            best = {ordinal: score for ordinal, score in best.items() if score >= least}
        return sorted(best), [best[ordinal] for ordinal in sorted(best)]


@pytest.mark.parametrize("per_episode", [1, 4])
def test_exact_search_against_the_oracle(tmp_path: Path, per_episode: int) -> None:
    """At every position and for every number of hits; among some, too."""
    made = Made(tmp_path, np.repeat(clustered(60), 2, axis=0), per_episode)
    total = len(made.sequences)
    assert not made.space.grow(1000)
    for query in clustered(3, seed=1):
        for stop in (0, 1, total // 2, total):
            for count in (1, 5, total, 2 * total):
                ordinals, scores, exact = made.space.candidates(
                    query, count, made.sequences[:stop]
                )[:3]
                expected = made.oracle(query, count, made.sequences[:stop])
                assert exact
                assert ordinals.tolist() == expected[0]
                assert scores == pytest.approx(expected[1], abs=2e-5)
        for among in ([], [0], [total - 1], list(range(0, total, 3)), list(range(total))):
            expected = made.oracle(query, total, made.sequences)[1]
            for count in (7, total):
                ordinals, scores, exact = made.space.candidates(
                    query, count, made.sequences, np.array(among, dtype=np.int64)
                )[:3]
                least = sorted((expected[i] for i in among), reverse=True)[:count][-1:]
                right = [i for i in among if [expected[i]] >= least]
                assert ordinals.tolist() == right
                assert scores == pytest.approx([expected[i] for i in right], abs=2e-5)
                assert exact


def test_everything_equal_to_the_last_one_is_a_candidate(tmp_path: Path) -> None:
    """Which of them is shown is not for the index to say."""
    made = Made(tmp_path, np.repeat(clustered(4), 10, axis=0))
    ordinals, scores, _ = made.space.candidates(made.vectors[0], 3, made.sequences)[:3]
    assert ordinals.tolist() == list(range(10))
    assert len(set(scores.tolist())) == 1


@pytest.mark.parametrize("per_episode", [1, 3])
def test_a_graph_and_the_rows_after_it(tmp_path: Path, per_episode: int) -> None:
    """Nearly always what comparing everything finds, with the very same scores; what came after the
    graph never missing."""
    made = Made(tmp_path, clustered(1200), per_episode)
    assert made.space.grow(800, small=True)
    assert made.space.covered == 800
    made.space.measure(nullcontext())
    queries = [*clustered(20, seed=1), *made.vectors[-10:]]
    wanted = right = 0
    for query in queries:
        ordinals, scores, exact = made.space.candidates(query, 10, made.sequences)[:3]
        assert not exact
        expected = dict(zip(*made.oracle(query, 10, made.sequences), strict=True))
        everything = dict(zip(*made.oracle(query, 9999, made.sequences), strict=True))
        wanted, right = wanted + len(expected), right + len(set(ordinals.tolist()) & set(expected))
        if per_episode == 1:
            found = dict(zip(ordinals.tolist(), scores.tolist(), strict=True))
            assert found == pytest.approx(
                {ordinal: everything[ordinal] for ordinal in found}, abs=2e-5
            )
        late = [ordinal for ordinal in expected if ordinal * per_episode >= 800]
        assert set(late) <= set(ordinals.tolist())
    assert right >= 0.95 * wanted


def test_seen_from_the_past_or_for_many_it_is_exact(tmp_path: Path) -> None:
    """An answer about the past must not depend on when a graph was made; a graph is no good at
    finding thousands."""
    total = WIDEST + 250
    made = Made(tmp_path, clustered(total))
    assert not made.space.grow(9999, small=True)
    made.space.measure(nullcontext())
    query = clustered(1, seed=1)[0]
    assert not made.space.candidates(query, 10, made.sequences)[2]
    for count, stop in ((10, total - 1), (WIDEST, total), (total, total)):
        ordinals, _, exact = made.space.candidates(query, count, made.sequences[:stop])[:3]
        assert exact
        assert ordinals.tolist() == made.oracle(query, count, made.sequences[:stop])[0]


def test_growing(tmp_path: Path) -> None:
    """Never for small memories unless asked for, then a few rows at a time; a reader never."""
    made = Made(tmp_path, clustered(100), settings=IndexSettings(exact_limit=100, publish_rows=50))
    assert not made.space.grow(10)
    assert made.space.graph is None
    made.add(clustered(20, seed=2))
    assert made.space.grow(30)
    assert (made.space.covered, made.space.publishing_is_due) == (30, False)
    assert made.space.grow(30)
    assert (made.space.covered, made.space.publishing_is_due) == (60, True)
    assert not made.space.grow(60)
    made.space.publish(360)
    assert (made.space.published, made.space.publishing_is_due) == (120, False)
    made.add(clustered(50, seed=3))
    assert not made.space.grow(99)
    assert not made.space.publishing_is_due
    made.add(clustered(1, seed=4))
    made.space.grow(1)
    assert made.space.publishing_is_due
    reader = Made(tmp_path, made.vectors, writable=False)
    reader.space.load_graph()
    assert not reader.space.grow(99)
    assert (reader.space.covered, reader.space.published) == (120, 120)
    (tmp_path / "empty").mkdir()
    empty = Made(tmp_path / "empty", clustered(50)[:0])
    assert not empty.space.grow(5, small=True)
    assert empty.space.candidates(made.vectors[0], 3, empty.sequences)[0].tolist() == []


def test_a_reader_takes_newer_graphs_only(tmp_path: Path) -> None:
    """And a writer none, once it has its own."""
    made = Made(tmp_path, clustered(200))
    made.space.grow(100, small=True)
    made.space.publish(300)
    reader = Made(tmp_path, made.vectors, writable=False)
    reader.space.load_graph()
    first = reader.space.graph
    assert reader.space.covered == 100
    reader.space.load_graph()
    assert reader.space.graph is first
    made.space.grow(50, small=True)
    made.space.publish(450)
    reader.space.load_graph()
    assert reader.space.covered == 150
    again = Made(tmp_path, made.vectors)
    again.space.load_graph()
    assert (again.space.covered, again.space.published) == (150, 150)
    made.space.grow(50, small=True)
    made.space.publish(600)
    again.space.load_graph()
    assert again.space.covered == 150
    again.space.drop_graph()
    assert (again.space.covered, again.space.published, again.space.graph) == (0, 0, None)


def test_dropping_rows(tmp_path: Path) -> None:
    """The graph still knows them: they are passed over, and it is built anew once too many are
    gone."""
    made = Made(tmp_path, clustered(400))
    made.space.grow(300, small=True)
    made.space.publish(900)
    kept = np.ones(400, dtype=np.bool_)
    kept[[0, 5, 299, 300]] = False
    kept[50:100] = False
    made.space.drop(kept, 1200)
    sequences = made.sequences[kept]
    made.vectors, made.labels = made.vectors[kept], made.labels[kept]
    assert (made.space.covered, made.space.published) == (247, 247)
    assert not made.space.stale
    loaded = Made.__new__(Made)
    loaded.__dict__.update(made.__dict__)
    loaded.space = FieldIndex(
        tmp_path,
        field="goal",
        identity="test",
        dimension=DIMENSION,
        memory=bytes(16),
        embed=lambda n: n,
        writable=True,
        settings=SMALL,
    )
    loaded.space.column.open(made.labels, np.zeros(len(made.labels), dtype=np.uint32))
    loaded.space.load_graph()
    assert (loaded.space.covered, loaded.space.column.embedded, loaded.space.snapshots.damage) == (
        247,
        0,
        [],
    )
    wanted = right = 0
    for space in (made.space, loaded.space):
        for query in clustered(30, seed=1):
            ordinals, scores, exact = space.candidates(query, 10, sequences)[:3]
            assert not exact
            expected = made.oracle(query, 10, sequences)[0]
            wanted, right = wanted + 10, right + len(set(ordinals.tolist()) & set(expected))
            assert scores == pytest.approx(made.vectors[ordinals] @ query, abs=2e-5)
    assert right >= 0.9 * wanted
    made.space.drop(np.arange(len(made.labels)) >= 40, 1300)
    assert made.space.stale
    assert made.space.candidates(made.vectors[41], 1, sequences[40:])[0].tolist() == [1]


def test_everything_in_the_graph_is_gone(tmp_path: Path) -> None:
    """What came after it is found all the same."""
    made = Made(tmp_path, clustered(300))
    made.space.grow(200, small=True)
    made.space.drop(np.arange(300) >= 200, 900)
    assert made.space.covered == 0
    ordinals, _, _ = made.space.candidates(made.vectors[250], 1, made.sequences[200:])[:3]
    assert ordinals.tolist() == [50]
    made.space.drop(np.zeros(100, dtype=np.bool_), 901)
    assert made.space.candidates(made.vectors[250], 1, made.sequences[:0])[0].tolist() == []


@pytest.mark.parametrize(
    "numbers",
    [range(500, 540), range(0, 120, 3), [3, 4, 5, 300, 301]],
    ids=["dense", "spaced", "gap"],
)
def test_labels_are_found_whatever_was_recorded_between(numbers: list[int]) -> None:
    """Also after compaction, when a graph still proposes what came before, between and after all
    that is left."""
    there = np.array(list(numbers)) << WINDOW_BITS
    asked = np.sort(np.concatenate([there[::2], np.array([0, 1, 2, 7, 299, 900]) << WINDOW_BITS]))
    expected = [there.tolist().index(label) for label in asked.tolist() if label in there]
    assert labelled(there, asked).tolist() == expected
    assert labelled(there, there[1::2]).tolist() == list(range(1, len(there), 2))


def test_the_first_text_stands_for_an_episode(tmp_path: Path) -> None:
    """Where hits are compared with each other."""
    made = Made(tmp_path, clustered(120), 3)
    found = made.space.vectors_of(made.sequences[[7, 0, 39]])
    assert np.array_equal(found, made.vectors[[21, 0, 117]])


def test_recall_on_five_thousand(tmp_path: Path) -> None:
    """At least 0.95 of the ten closest, with a tail that is not in the graph."""
    made = Made(tmp_path, clustered(5_000))
    made.space.grow(4_500, small=True)
    made.space.measure(nullcontext())
    found = 0
    for query in clustered(100, seed=1):
        ordinals, scores, exact = made.space.candidates(query, 10, made.sequences)[:3]
        assert not exact
        best = ordinals[np.argsort(-scores, kind="stable")[:10]]
        found += len(
            set(best.tolist())
            & set(np.argsort(-(made.vectors @ query), kind="stable")[:10].tolist())
        )
    assert found >= 950


def labelled(labels: Numbers, asked: Numbers) -> Numbers:
    """Rows that have one of these labels, in a column that holds others."""
    column = VectorColumn(
        Path("unused"),
        identity="test",
        dimension=2,
        memory=bytes(16),
        embed=lambda rows: np.zeros((len(rows), 2)),
        writable=False,
    )
    column.open(labels, np.zeros(len(labels), dtype=np.uint32))
    return column.places(asked, len(labels))
