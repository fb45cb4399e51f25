"""A memory that is open without the embedder that it was made with: what needs no new vectors goes
on, also where vectors are missing."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from relive.memory import HashedEmbedder, IndexSettings, Memory
from relive.memory.imports import import_file
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.search.vectors import column_name
from relive.memory.storage.rows import HEADER_BYTES
from relive.memory.transfer import export_file, import_lines
from tests.memory.conftest import Make, found, goal

pytestmark = pytest.mark.usefixtures("no_sync")

MISSING = "embedded with mine-1, which is not here"


class Own(HashedEmbedder):
    """One that only the program that made it has."""

    identity = "mine-1"

    def __init__(self) -> None:
        super().__init__(16)


ROW = 24 + 4 * 16


@pytest.fixture
def column(folder: Path, episode: Make) -> Path:
    """The vectors of a memory of six episodes."""
    with Memory(folder, embedder=Own()) as memory:
        memory.add_many([episode(number, goal(number)) for number in range(6)])
    return folder / "vectors" / f"{column_name('mine-1')}.vec"


def damage(column: Path, number: int) -> None:
    """Change a byte of a row."""
    data = bytearray(column.read_bytes())
    data[HEADER_BYTES + number * ROW + 40] ^= 0xFF
    column.write_bytes(data)


def in_order(memory: Memory) -> list[str]:
    """Ids of all episodes."""
    return [episode.id for episode in memory.iterate()]


def test_a_reader_is_faster_than_the_writer(folder: Path, column: Path, episode: Make) -> None:
    """Rows that the writer has not written yet are missing for now; they are taken once there."""
    whole = column.read_bytes()
    column.write_bytes(whole[: -ROW - 5])
    with Memory(folder, "r") as late, Memory(folder, embedder=Own()) as writer:
        assert (len(late), in_order(late)) == (6, [f"episode-{number}" for number in range(6)])
        with pytest.raises(ValueError, match=MISSING):
            late.vectors()
        whole = column.read_bytes()
        writer.add(episode(6, goal(6)))
        then = column.read_bytes()
        column.write_bytes(whole)
        assert (late.refresh(), len(late)) == (7, 7)
        column.write_bytes(then)
        assert (late.refresh(), len(late)) == (7, 7)
        writer.add(episode(7, goal(7)))
        assert (late.refresh(), len(late)) == (8, 8)
        assert (late.vectors()[1] == writer.vectors()[1]).all()
        with pytest.raises(ValueError, match=MISSING):
            late.search(goal(1))
        assert late.stats().damage == ()


def test_a_reader_of_an_empty_memory_follows(folder: Path, episode: Make) -> None:
    """Before there was any vector there was no file of them, either."""
    with Memory(folder, embedder=Own()) as writer, Memory(folder, "r") as reader:
        writer.add_many([episode(number) for number in range(3)])
        reader.refresh()
        assert (reader.vectors()[1] == writer.vectors()[1]).all()


@pytest.mark.parametrize("lost", ["all of them", "the last", "one", "bytes of one"])
def test_vectors_are_lost(
    folder: Path, column: Path, lost: str, tmp_path: Path, episode: Make
) -> None:
    """The memory is read, exported, annotated and compacted; with its embedder all is there."""
    rows = column.read_bytes()
    if lost == "all of them":
        shutil.rmtree(folder / "vectors")
    elif lost == "the last":
        column.write_bytes(rows[:-ROW])
    elif lost == "one":
        column.write_bytes(rows[: HEADER_BYTES + 2 * ROW] + rows[HEADER_BYTES + 3 * ROW :])
    else:
        damage(column, 2)
    with Memory(folder, "r") as memory:
        assert (len(memory), len(in_order(memory))) == (6, 6)
        memory.verify()
        assert any("embedder is there" in str(one) for one in memory.stats().damage)
    with Memory(folder, "w") as memory:
        memory.annotate("episode-1", "seen")
        memory.delete("episode-4")
        assert memory.compact().episodes == 1
        memory.verify()
        memory.publish_index()
        assert export_file(memory, tmp_path / "all.jsonl") == 5
        for act in (lambda: memory.search("a mug"), lambda: memory.add(episode(9)), memory.vectors):
            with pytest.raises(ValueError, match=MISSING):
                act()
    rebuild(folder)
    with Memory(folder, "r") as memory:
        assert in_order(memory) == [f"episode-{number}" for number in (0, 1, 2, 3, 5)]
    for mode in ("r", "w", "r"):
        with Memory(folder, mode, embedder=Own()) as memory:
            assert found(memory, goal(2), k=1) == ["episode-2"]
            assert len(found(memory, goal(2))) == 5
            memory.verify()
    with Memory(folder, "r") as memory:
        assert memory.verify() == ()
        assert memory.vectors()[1].shape == (5, 16)


@pytest.mark.usefixtures("small_samples")
def test_an_index_grows_up_to_the_first_vector_that_is_missing(
    folder: Path, column: Path, episode: Make
) -> None:
    """And no further: what it covers has no holes."""
    damage(column, 3)
    with Memory(folder, "w", index=IndexSettings(exact_limit=1)) as memory:
        assert memory.publish_index() == 3
    with Memory(folder, "r", index=IndexSettings(exact_limit=1)) as memory:
        assert memory.stats().index_entries == 3
        memory.verify()
    with Memory(folder, embedder=Own(), index=IndexSettings(exact_limit=1)) as memory:
        assert memory.publish_index() == 6
        assert found(memory, goal(3), k=1) == ["episode-3"]


def test_a_field_that_nobody_can_embed(folder: Path, column: Path) -> None:
    """It is refused before anything is written."""
    before = (folder / "memory.json").read_bytes()
    for mode in ("r", "w"):
        with pytest.raises(ValueError, match=r"no field first, and cannot .* embedder mine-1"):
            Memory(folder, mode, fields=["goal", "first"])
    assert (folder / "memory.json").read_bytes() == before
    with Memory(folder, "w", fields=["goal"]) as memory:
        assert len(memory) == 6


@pytest.mark.parametrize("lines", [True, False])
def test_an_import_says_so_at_once(
    folder: Path, column: Path, tmp_path: Path, lines: bool, episode: Make
) -> None:
    """And blames no line of the file."""
    with Memory(tmp_path / "other") as memory:
        memory.add(episode(9))
        export_file(memory, tmp_path / "all.jsonl")
    act: Callable[..., object] = import_lines if lines else import_file
    with (
        Memory(folder, "w") as memory,
        pytest.raises(ValueError, match=MISSING),
    ):
        act(memory, io.BytesIO((tmp_path / "all.jsonl").read_bytes()), "all.jsonl")
