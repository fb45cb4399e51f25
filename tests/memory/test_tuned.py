"""Embedders that were tuned: their identity, their files, and memories that keep them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relive.memory import Episode, HashedEmbedder, Memory
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.search.embed import Embedder, Vectors
from relive.memory.search.tuned import DESCRIPTION, MATRIX, TunedEmbedder, load_embedder

Make = Callable[..., Episode]
BASE = HashedEmbedder(64)
TEXTS = ["put a hot cup in cabinet", "put two cups in fridge", "", "look at the pen"]


def tuned(seed: int = 0, base: Embedder = BASE, width: int = 64) -> TunedEmbedder:
    matrix = np.random.default_rng(seed).normal(size=(base.dimension, width))
    return TunedEmbedder(base, matrix)


def test_vectors_are_mapped_and_of_unit_length() -> None:
    made = tuned(width=16)
    rows = made.encode(TEXTS)
    assert rows.shape == (4, 16)
    assert rows.dtype == np.float32
    expected = BASE.encode(TEXTS).astype(np.float64) @ made.matrix.astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    # The same text always gives the same vector, to the last bit, whatever it is encoded with.
    assert all((made.encode([text])[0] == row).all() for text, row in zip(TEXTS, rows, strict=True))
    identity = TunedEmbedder(BASE, np.eye(64))
    np.testing.assert_allclose(identity.encode(TEXTS), BASE.encode(TEXTS), atol=1e-6)
    nothing = TunedEmbedder(BASE, np.zeros((64, 3)))
    assert (nothing.encode(TEXTS) == [1, 0, 0]).all()


def test_the_identity_names_the_matrix_and_the_base() -> None:
    one = tuned()
    assert one.identity == tuned().identity
    moved = one.matrix.copy()
    moved[3, 5] = np.nextafter(moved[3, 5], np.float32(9))
    others = [tuned(1), TunedEmbedder(BASE, moved), tuned(base=HashedEmbedder(32))]
    assert len({one.identity, *(other.identity for other in others)}) == 4
    assert one.identity.endswith(BASE.identity)


def test_matrices_that_are_none() -> None:
    for matrix, kind, said in (
        (np.zeros((63, 4)), ValueError, r"shape \(63, 4\).*\(64, n\)"),
        (np.zeros((64, 0)), ValueError, "shape"),
        (np.full((64, 4), np.nan), ValueError, "not finite"),
        (np.zeros((64, 4), dtype=np.int64), TypeError, "floats"),
    ):
        with pytest.raises(kind, match=said):
            TunedEmbedder(BASE, matrix)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    made = tuned()
    made.save(tmp_path / "one")
    read = load_embedder(tmp_path / "one")
    assert read.identity == made.identity
    assert (read.encode(TEXTS) == made.encode(TEXTS)).all()
    assert load_embedder("hashed").identity == "hashed-1-384"
    assert load_embedder("hashed-1-64").dimension == 64
    # One over another: any embedder may be the base, and has to be given where no file holds it.
    twice = tuned(base=made)
    twice.save(tmp_path / "two")
    with pytest.raises(ValueError, match=r"maps the vectors of tuned-1-.*base=\.\.\."):
        load_embedder(tmp_path / "two")
    assert load_embedder(tmp_path / "two", made).identity == twice.identity
    with pytest.raises(ValueError, match=r"not of hashed-1-384 \(384\)"):
        load_embedder(tmp_path / "one", HashedEmbedder())


def cut(folder: Path) -> None:
    data = (folder / MATRIX).read_bytes()
    (folder / MATRIX).write_bytes(data[: len(data) // 2])


def flip(folder: Path) -> None:
    data = bytearray((folder / MATRIX).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / MATRIX).write_bytes(data)


def other_matrix(folder: Path) -> None:
    np.savez(folder / MATRIX, matrix=tuned(7).matrix)


def other_name(folder: Path) -> None:
    np.savez(folder / MATRIX, weights=tuned().matrix)


def objects(folder: Path) -> None:
    np.savez(folder / MATRIX, matrix=np.array([{}], dtype=object))


def no_matrix(folder: Path) -> None:
    (folder / MATRIX).unlink()


def rubbish(folder: Path) -> None:
    (folder / DESCRIPTION).write_text("{")


def a_list(folder: Path) -> None:
    (folder / DESCRIPTION).write_text("[]")


@pytest.mark.parametrize(
    "damage", [cut, flip, other_matrix, other_name, objects, no_matrix, rubbish, a_list]
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Which file, and what to do; never vectors of something else."""
    tuned().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=r"(matrix\.npz|embedder\.json) is damaged .*train-retr"):
        load_embedder(tmp_path)


def test_other_formats_and_folders_without_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no tuned embedder in"):
        load_embedder(tmp_path)
    tuned().save(tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps({**described, "format": 2}))
    with pytest.raises(ValueError, match="format 2; this program reads 1"):
        load_embedder(tmp_path)


def test_a_memory_keeps_its_tuned_embedder(folder: Path, episode: Make, no_sync: None) -> None:
    """Refused unless asked for; once it is the memory's, nobody has to name it."""
    with Memory(folder) as memory:
        memory.add_many([episode(number) for number in range(3)])
    made = tuned(base=HashedEmbedder())
    for mode in ("r", "w"):
        with pytest.raises(ValueError, match="not with tuned-1-"):
            Memory(folder, mode, embedder=made)
    with pytest.raises(ValueError, match="not with tuned-1-"):
        rebuild(folder, embedder=made)
    assert not (folder / "embedders").exists()
    done = rebuild(folder, embedder=made, reembed=True)
    assert (done.embedded, done.damage) == (3, ())
    for mode in ("r", "w"):
        with Memory(folder, mode) as memory:
            assert memory.embedder.identity == made.identity
            assert memory.stats().embedded == 0
            (hit,) = memory.search("put a hot thing2 in cabinet", k=1)
            assert hit.episode_id == "episode-2"
            assert hit.score == pytest.approx(1, abs=1e-5)
    rebuild(folder, reembed=True)  # its own stays its own
    with Memory(folder, "r") as memory:
        assert memory.embedder.identity == made.identity
    with pytest.raises(ValueError, match="not with hashed-1-384"):
        Memory(folder, embedder=HashedEmbedder())
    # Another map is another embedder.
    other = tuned(5, base=HashedEmbedder())
    with pytest.raises(ValueError, match=r"embedded with tuned-1-.*not with tuned-1-"):
        Memory(folder, embedder=other)
    Memory(folder, "w", embedder=other, reembed=True).close()
    with Memory(folder) as memory:
        assert memory.embedder.identity == other.identity
    rebuild(folder, embedder=HashedEmbedder(), reembed=True)
    with Memory(folder) as memory:
        assert memory.embedder.identity == "hashed-1-384"
        assert memory.verify() == ()


def test_a_damaged_one_keeps_the_memory_shut(folder: Path, episode: Make, no_sync: None) -> None:
    """Vectors of another map would look as good as right ones."""
    made = tuned(base=HashedEmbedder())
    with Memory(folder, embedder=made) as memory:
        memory.add(episode(1))
    (kept,) = (folder / "embedders").iterdir()
    flip(kept)
    with pytest.raises(ValueError, match=r"matrix\.npz is damaged"):
        Memory(folder)
    with Memory(folder, embedder=made) as memory:
        assert len(memory) == 1


def test_a_base_that_no_file_holds_has_to_be_named(
    folder: Path, episode: Make, no_sync: None
) -> None:
    class Lengths:
        identity, dimension = "lengths-1", 4

        def encode(self, texts: list[str]) -> Vectors:
            rows = np.array([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    made = TunedEmbedder(Lengths(), np.eye(4))
    with Memory(folder, embedder=made) as memory:
        memory.add(episode(1))
    with pytest.raises(ValueError, match="maps the vectors of lengths-1, which no file holds"):
        Memory(folder)
    with Memory(folder, embedder=made) as memory:
        assert len(memory) == 1
