"""A LanceDB table as the index: what it proposes, when it is believed, and what becomes of it. That
it finds what comparing everything finds is asked together with the graph, in test_filters.py,
test_retrieve.py and test_compact.py; RELIVE_TEST_INDEX=lancedb runs the fault and kill tests with
it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.agent.cli.main import main
from relive.memory import Holdout, IndexSettings, Memory, Query
from relive.memory.episode import StopReason
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.maintenance.replica import Copy, changes
from relive.memory.storage.catalog import Filter

lance: Any = pytest.importorskip("relive.memory.search.lance")
pytest.importorskip("lancedb")
pytestmark = pytest.mark.usefixtures("no_sync", "small_samples")

COUNT = 240
INDEX = IndexSettings(engine="lancedb", exact_limit=20, publish_rows=20)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory with a table; to be copied."""
    from tests.memory.conftest import make_episode

    folder = tmp_path_factory.mktemp("lance") / "memory"
    with Memory(folder, index=INDEX) as memory:
        memory.add_many([make_episode(n, task_type=f"type{n % 4}") for n in range(COUNT)])
        memory.publish_index()
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


def asked(memory: Memory, number: int, **query: Any) -> tuple[list[str], list[bool]]:
    hits = memory.search(Query(f"put a hot thing{number} in cabinet", k=3, **query), Holdout())
    return [hit.episode_id for hit in hits], [hit.explanation.exact for hit in hits]


def table_of(folder: Path) -> Path:
    (home,) = (folder / "index").glob("*.lancedb")
    return home


def files_of(folder: Path) -> list[Path]:
    """The files of the table and what says what they are."""
    home = table_of(folder)
    return sorted(file for file in home.rglob("*") if file.is_file())


def test_it_proposes_and_says_that_not_all_were_compared(copy: Path) -> None:
    with Memory(copy, "r", index=replace(INDEX, engine="")) as reader:  # memory.json says which
        assert json.loads((copy / "memory.json").read_text())["index"] == "lancedb"
        assert (reader.stats().index_entries, reader.stats().damage) == (COUNT, ())
        found, exact = asked(reader, 7)
        assert (found[0], exact) == ("episode-7", [False] * 3)
        found, exact = asked(reader, 7, only={"type": ["type3"]}, successes_only=True)
        assert (found[0], exact[0]) == ("episode-7", True)  # so few that all of them were compared
        assert all(int(name.split("-")[1]) % 4 == 3 for name in found)


def test_only_what_is_wanted_is_proposed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait for the table are looked at under the same filter."""
    asked_for: list[Any] = []
    real = lance.LanceTable.search

    def search(self: Any, vector: Any, count: int, ef: int, wanted: Filter | None = None) -> Any:
        answer = real(self, vector, count, ef, wanted)
        asked_for.append((wanted, answer))
        return answer

    monkeypatch.setattr(lance.LanceTable, "search", search)
    with Memory(copy, "w", index=replace(INDEX, exact_limit=4)) as memory:
        from tests.memory.conftest import make_episode

        goal = "put a hot thing7 in cabinet"
        memory.add(make_episode(COUNT, goal, task_type="type0"))  # these two wait
        memory.add(make_episode(COUNT + 1, goal, task_type="type3"))
        assert memory.stats().index_entries == COUNT
        asked_for.clear()
        found, _ = asked(memory, 7, only={"type": ["type1", "type3"]})
        assert set(found[:2]) == {"episode-7", f"episode-{COUNT + 1}"}
        assert f"episode-{COUNT}" not in found
        ((wanted, answer),) = asked_for
        assert wanted.only == (("type", frozenset({"type1", "type3"})),)
        labels, _ = answer
        assert 50 < len(labels) < COUNT // 2
        assert {int(label >> 8) % 4 for label in labels} == {1, 3}


def test_filters_in_its_own_words() -> None:
    assert lance.where(Filter()) == ""
    both = Filter.of(True, {"split": ["train"]}, [StopReason.ENVIRONMENT_ERROR]).within(
        frozenset({"valid", "train"})
    )
    clause = lance.where(both)
    assert clause.startswith("success AND split IN (")
    assert clause.count("split IN (") == 2
    assert clause.endswith(f" AND reason != {list(StopReason).index(StopReason.ENVIRONMENT_ERROR)}")
    assert lance.where(Filter.of(False, {"type": []})) == "false"


@pytest.mark.parametrize("spoil", ["flip", "cut", "remove", "more"])
def test_damaged_files_are_found_out_and_made_again(copy: Path, spoil: str) -> None:
    """Whatever file it is; nothing damaged is ever given to lancedb."""
    there = files_of(copy)
    kinds = {file.suffix for file in there}
    assert {".lance", ".manifest", ".json"} <= kinds
    good = {file: file.read_bytes() for file in there}
    victims = [next(f for f in there if f.suffix == kind) for kind in (".lance", ".json")]
    for victim in victims if spoil != "more" else []:
        data = good[victim]
        if spoil == "remove":
            victim.unlink()
        else:
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
            victim.write_bytes(flipped if spoil == "flip" else data[:-1])
        with Memory(copy, "r") as reader:
            stats = reader.stats()
            assert stats.index_entries == 0
            assert spoil == "remove" or "damaged index" in str(stats.damage[0])
            assert asked(reader, 7)[0][0] == "episode-7"
        victim.write_bytes(data)
    if spoil == "more":  # what came after the version that was published is nobody's business
        (table_of(copy) / "rows.lance" / "data" / "later.lance").write_bytes(b"half")
    with Memory(copy, "r") as reader:
        assert (reader.stats().index_entries, reader.stats().damage) == (COUNT, ())
    victims[0].write_bytes(b"")
    with Memory(copy, "w", index=INDEX) as memory:
        assert memory.publish_index() == COUNT
    with Memory(copy, "r", index=INDEX) as reader:
        assert (reader.stats().index_entries, reader.stats().damage) == (COUNT, ())
        assert asked(reader, 7) == (["episode-7", *asked(reader, 7)[0][1:]], [False] * 3)


def test_what_a_writer_added_and_did_not_publish_is_added_again(copy: Path) -> None:
    from tests.memory.conftest import make_episode

    before = json.loads(next((copy / "index").glob("*.json")).read_text())
    with Memory(copy, "w", index=replace(INDEX, publish_rows=400)) as memory:
        memory.add_many([make_episode(number) for number in range(COUNT, 500)])
        assert memory.stats().index_entries == COUNT + 200  # as many as go in together
    after = json.loads(next((copy / "index").glob("*.json")).read_text())
    assert after == before  # nobody published it, as if the writer had been killed
    with Memory(copy, "w", index=INDEX) as memory:
        assert memory.stats().index_entries == COUNT
        memory.publish_index()
        graph: Any = memory._state.spaces["goal"].graph
        assert graph.table.count_rows() == graph.nodes == 500
        assert asked(memory, 450)[0][0] == "episode-450"


def test_files_that_vanish_under_a_reader_cost_nothing_but_time(copy: Path) -> None:
    with Memory(copy, "r", index=INDEX) as reader:
        assert asked(reader, 7)[1] == [False] * 3
        shutil.rmtree(table_of(copy) / "rows.lance" / "data")
        reader._state.spaces["goal"].graph.table.checkout_latest()  # type: ignore[union-attr]
        found, exact = asked(reader, 8)
        assert (found[0], exact) == ("episode-8", [True] * 3)
        assert "cannot be read" in str(reader.stats().damage[0])


def test_one_kind_is_exchanged_for_the_other(copy: Path) -> None:
    """By whoever writes; both are caches of the same log."""
    with Memory(copy, "w", index=replace(INDEX, engine="hnsw")) as memory:
        assert memory.publish_index() == COUNT
    assert "index" not in json.loads((copy / "memory.json").read_text())
    with Memory(copy, "r", index=replace(INDEX, engine="")) as reader:
        assert type(reader._state.spaces["goal"].graph).__name__ == "Graph"
    made = rebuild(copy, index=INDEX)
    assert (made.episodes, made.indexed, made.embedded) == (COUNT, COUNT, 0)
    assert not list((copy / "index").glob("*.hnsw"))
    with Memory(copy, "r", index=replace(INDEX, engine="")) as reader:
        assert type(reader._state.spaces["goal"].graph).__name__ == "LanceTable"
        assert reader.verify() == ()
    for kind in ("hnsw", "lancedb"):
        assert main(["memory", "rebuild", "--memory", str(copy), "--index", kind]) == 0
        described = json.loads((copy / "memory.json").read_text())
        assert described.get("index", "hnsw") == kind
    with pytest.raises(ValueError, match="unknown index engine 'faiss': use hnsw or lancedb"):
        IndexSettings(engine="faiss")


def test_nothing_is_written_through_a_link(copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    home = table_of(copy)
    home.rename(elsewhere)
    home.symlink_to(elsewhere)
    (copy / "index").joinpath(f"{home.name}.json").unlink()
    kept = sorted(file.name for file in elsewhere.rglob("*"))
    with Memory(copy, "w", index=INDEX) as memory, pytest.raises(OSError, match="symbolic link"):
        memory.publish_index()
    assert sorted(file.name for file in elsewhere.rglob("*")) == kept


def test_partitions_are_measured_like_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An IVF index is trained, rows join it, and it is trained again once it has doubled; at least
    0.95 of the ten closest are found, with rows that wait, and the scores are the column's."""
    from tests.memory.test_field_index import Made, clustered

    monkeypatch.setattr(lance, "TRAINED", 1000)

    def columns(sequences: Any) -> dict[str, Any]:
        same = np.zeros(len(sequences), dtype=np.uint64)
        told = dict.fromkeys(lance.HASHES, same)
        return {**told, "success": sequences % 2 == 0, "reason": same.astype(np.uint8)}

    made = Made(tmp_path, clustered(3000), settings=INDEX, columns=columns)
    space = made.space
    trained = []
    for rows in (1200, 1800, 2700):
        while space.grow(300, small=True) and space.covered < rows:
            pass
        space.publish(3 * space.covered)
        graph: Any = space.graph
        trained.append(graph.trained_on())
    assert trained[0] == trained[1] == 1200
    assert trained[2] >= 2 * 1200
    plan = graph.table.search(made.vectors[0], vector_column_name="vector").limit(3).explain_plan()
    assert "ANNIvfPartition" in plan
    made.add(clustered(5, seed=7))
    found = 0
    for query in clustered(40, seed=1):
        ordinals, scores, exact = space.candidates(query, 10, made.sequences)[:3]
        assert not exact
        best = ordinals[np.argsort(-scores, kind="stable")[:10]]
        right = np.argsort(-(made.vectors @ query), kind="stable")[:10]
        found += len(set(best.tolist()) & set(right.tolist()))
        assert scores == pytest.approx(made.vectors[ordinals] @ query, abs=2e-5)
    assert found >= 380


def test_without_the_package_it_says_what_to_install(published: Path) -> None:
    """And a reader of another memory never needs it."""
    code = f"""
import sys
sys.modules["lancedb"] = None
import relive
from relive.extras import MissingExtraError
try:
    relive.Memory({str(published)!r}, "r")
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "an index in LanceDB needs lancedb" in done.stdout
    assert "pip install 'relive[lancedb]'" in done.stdout


def test_a_copy_on_another_machine_has_the_table(copy: Path, tmp_path: Path) -> None:
    """With what is added to it; what the writer leaves out goes there, too."""
    from tests.memory.conftest import make_episode

    there = Copy(tmp_path / "there")
    there.update(lambda have: changes(copy, have))
    with Memory(there.path, "r", index=INDEX) as reader, Memory(copy, index=INDEX) as memory:
        for more in (0, 40, 80):
            memory.add_many([make_episode(COUNT + more + n) for n in range(40)])
            memory.publish_index()
            there.update(lambda have: changes(copy, have))
            reader.refresh()
            assert reader.stats().index_entries == len(memory) == COUNT + more + 40
            assert asked(reader, COUNT + more) == asked(memory, COUNT + more)
            assert asked(reader, 7)[1] == [False] * 3
        assert reader.stats().damage == ()
    assert [file.name for file in files_of(there.path)] == [file.name for file in files_of(copy)]
    there.close()
