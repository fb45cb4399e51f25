"""Row 7d3: a folder from elsewhere, in which something is a link to what is not the memory's."""

import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from relive.memory import Memory
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.storage.segments import MARK
from tests.memory.conftest import make_episode
from tests.memory.faults import EMBEDDER, build, make, open_memory, segment_of
from tests.memory.hostile.contents import folder_bytes

FILES = {
    "lock": "lock",
    "description": "memory.json",
    "segment": "log/*.log",
    "catalog": "catalog/catalog.rows",
    "column": "vectors/*.vec",
    "manifest": "index/*.json",
    "graph": "index/*.hnsw",
}
LEFTOVERS = ["memory.json.tmp", "log/0000000000000065.log.tmp", "log/0000000000000000.0001.log.tmp",
             "catalog/catalog.rows.tmp", "{column}.tmp", "{manifest}.tmp",
             "{graph}.tmp", "index/{stem}-0000000000000061.hnsw.tmp"]  # fmt: skip


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of somebody else's."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory that has every kind of file, and a torn record at the end of its log. Tests copy
    it."""
    folder = tmp_path_factory.mktemp("template") / "experience"
    build(folder, range(60), publish=True)
    with segment_of(folder).open("ab") as file:
        file.write(MARK + b"torn")
    return folder


@pytest.fixture
def made(folder: Path, template: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(template, folder))


def state_of(folder: Path) -> dict[str, object]:
    """All that is in a folder, and when it was changed."""
    times = {str(path): path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    return {**times, **folder_bytes(folder)}


def work(folder: Path) -> None:
    """Everything that writes, as far as it is not refused."""
    refused = (OSError, ValueError, KeyError)
    with suppress(*refused), open_memory(folder, "w") as memory:
        steps: list[Callable[[], object]] = [
            lambda: memory.add(make(100)),
            lambda: memory.rate("episode-1", "worth", 1.0),
            lambda: memory.delete("episode-2"),
            memory.publish_index,
            memory.compact,
            lambda: memory.add_many([make(number) for number in range(101, 170)]),
            memory.publish_index,
            memory.verify,
        ]
        for step in steps:
            with suppress(*refused):
                step()
    with (
        suppress(*refused),
        Memory(folder, "w", embedder=EMBEDDER, fields=("goal", "first")),
    ):
        pass
    with suppress(*refused):
        rebuild(folder, embedder=EMBEDDER, reembed=True)


def judge(folder: Path) -> None:
    """What is there is right, or reading is refused with an error that says why."""
    try:
        memory = open_memory(folder)
    except (OSError, ValueError):
        return
    with memory:
        for episode in memory.iterate():
            assert episode.steps == make(int(episode.id.split("-")[1])).steps


@pytest.mark.parametrize(
    ("what", "content"),
    [
        *itertools.product(FILES, ["own", "foreign"]),
        *itertools.product(["lock", "segment"], ["empty", "none"]),
    ],
)
def test_files_that_are_links_are_not_written_through(
    made: Path, victim: Path, what: str, content: str
) -> None:
    """Whatever the file elsewhere holds: the memory's own bytes, something else, nothing; or it
    does not exist."""
    (path,) = made.glob(FILES[what])
    outside = victim / "file"
    if content == "own":
        shutil.copy(path, outside)
    elif content != "none":
        outside.write_bytes(b"somebody else's" if content == "foreign" else b"")
    path.unlink()
    path.symlink_to(outside)
    before = state_of(victim)
    work(made)
    assert state_of(victim) == before
    judge(made)


@pytest.mark.parametrize("what", LEFTOVERS)
def test_leftovers_that_are_links_are_not_written_through(
    made: Path, victim: Path, what: str
) -> None:
    """The names that files have while they are written can be guessed."""
    names = {
        name: str(next(made.glob(FILES[name])).relative_to(made))
        for name in ("column", "manifest", "graph")
    }
    path = made / what.format(stem=Path(names["manifest"]).stem, **names)
    outside = victim / "file"
    outside.write_bytes(b"somebody else's")
    path.symlink_to(outside)
    before = state_of(victim)
    work(made)
    assert state_of(victim) == before
    judge(made)


@pytest.mark.parametrize("what", ["log", "catalog", "vectors", "index"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
def test_folders_that_are_links_are_not_written_through(
    made: Path, victim: Path, what: str, full: bool
) -> None:
    """Nothing is made, changed or deleted in a folder elsewhere."""
    if full:
        shutil.copytree(made / what, victim / what)
        (victim / what / "precious.tmp").write_bytes(b"somebody else's")
    else:
        (victim / what).mkdir()
    shutil.rmtree(made / what)
    (made / what).symlink_to(victim / what)
    before = state_of(victim)
    work(made)
    assert state_of(victim) == before
    judge(made)


def test_the_lock_is_a_link_as_it_was_found(folder: Path, victim: Path) -> None:
    """The other file's contents were replaced."""
    build(folder, range(3))
    (victim / "diary").write_text("dear diary")
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(victim / "diary")
    with suppress(OSError, ValueError):
        open_memory(folder, "w").close()
    assert (victim / "diary").read_text() == "dear diary"
    with open_memory(folder) as memory:
        assert len(memory) == 3


def test_a_new_memory_does_not_follow_a_lock_that_is_there(folder: Path, victim: Path) -> None:
    """A folder that somebody prepared for it."""
    folder.mkdir()
    (folder / "lock").symlink_to(victim / "made")
    with suppress(OSError, ValueError):
        open_memory(folder, "create").close()
    assert not folder_bytes(victim)


def test_the_folder_itself_may_be_a_link(folder: Path, victim: Path) -> None:
    """That is the user's own doing."""
    build(folder, range(3))
    (victim / "link").symlink_to(folder)
    with open_memory(victim / "link", "w") as memory:
        memory.add(make_episode(10))
        memory.delete("episode-1")
        memory.compact()
    with open_memory(folder) as memory:
        assert len(memory) == 3
