"""What opening a memory does to a folder, and what it leaves alone when it fails."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from relive import extras
from relive.memory import HashedEmbedder, IndexSettings, Memory
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.search.embed import Vectors
from tests.memory.conftest import Make, found, goal

pytestmark = pytest.mark.usefixtures("no_sync")


class Failing(HashedEmbedder):
    """Out of order after a while."""

    def __init__(self, texts: int) -> None:
        super().__init__(64)
        self.left = texts

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.left -= len(texts)
        if self.left < 0:
            raise RuntimeError("the device is gone")
        return super().encode(texts)


@pytest.mark.parametrize("texts", [0, 1024])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_an_embedder_that_fails_changes_nothing(
    folder: Path, episode: Make, texts: int, rebuilt: bool
) -> None:
    """What was begun goes on where it stopped."""
    with Memory(folder) as memory:
        memory.add_many([episode(number, goal(number), steps=1) for number in range(1030)])
    before = (folder / "memory.json").read_bytes()
    with pytest.raises(RuntimeError, match="the device is gone"):
        if rebuilt:
            rebuild(folder, embedder=Failing(texts), reembed=True)
        else:
            Memory(folder, embedder=Failing(texts), reembed=True)
    assert (folder / "memory.json").read_bytes() == before
    with Memory(folder) as memory:
        assert memory.embedder.identity == "hashed-1-384"
        assert found(memory, goal(7), k=1) == ["episode-7"]
        assert memory.stats().embedded == 0
    with Memory(folder, embedder=HashedEmbedder(64), reembed=True) as memory:
        assert memory.stats().embedded == 1030 - texts
    with Memory(folder, embedder=HashedEmbedder(64)) as memory:
        assert found(memory, goal(7), k=1) == ["episode-7"]


def test_an_index_whose_package_is_missing_changes_nothing(
    folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a memory that is there nor one that is made."""
    monkeypatch.setitem(extras.PACKAGES, "lancedb", ("no_package_of_this_name",))
    for _ in range(2):
        with pytest.raises(ImportError, match=r"pip install 'relive\[lancedb\]'"):
            Memory(folder, index=IndexSettings(engine="lancedb"))
        with Memory(folder) as memory:
            memory.add(episode(len(memory)))
    with pytest.raises(ImportError, match=r"pip install 'relive\[lancedb\]'"):
        rebuild(folder, index=IndexSettings(engine="lancedb"))
    with Memory(folder, "r") as memory:
        assert (len(memory), memory.stats().damage) == (2, ())
