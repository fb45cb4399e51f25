"""`relive memory …`: every command, what it prints, its exit status, and its mistakes in one
line."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.cli import main
from relive.memory import (
    Actor,
    Episode,
    HashedEmbedder,
    Memory,
    Outcome,
    Retrieved,
    Step,
    StopReason,
    Task,
)

ROOT = Path(__file__).resolve().parents[2]


def made(
    number: int, goal: str = "", *, kind: str = "heat", success: bool = True, shown: str = ""
) -> Episode:
    task = Task(
        "toy",
        f"game-{number}",
        kind,
        "train",
        "",
        number,
        "1",
        goal or f"put a hot thing{number} in cabinet",
    )
    steps = (Step("You see a shelf.", "go", retrieved=(Retrieved(shown, 0.5),) if shown else ()),)
    outcome = Outcome(
        success, float(success), StopReason.SOLVED if success else StopReason.STEP_LIMIT
    )
    steps *= 2 if number == 5 else 1
    return Episode(
        f"run-{number:03d}", task, steps, "Done.", outcome, Actor("expert"), started=1000.0 * number
    )


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A memory of eight episodes, two of which were shown another."""
    folder = tmp_path / "m"
    with Memory(folder) as opened:
        opened.add_many(
            [made(n, kind="heat" if n < 5 else "cool", success=n != 2) for n in range(6)]
        )
        opened.add_many([made(n, shown="run-001", success=n == 6) for n in (6, 7)])
    return folder


CHAT = (
    '{"messages": [{"role": "user", "content": "a goal"}, '
    '{"role": "assistant", "content": "act"}], "success": true}\n'
)


class Ran:
    """What a command did."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *argv: object) -> None:
        capfd.readouterr()
        self.status = main(["memory", *map(str, argv)])
        self.out, self.error = capfd.readouterr()

    @property
    def complaint(self) -> str:
        """The one line that a mistake brings."""
        assert self.status == 2
        (line,) = self.error.splitlines()
        assert line.startswith("relive memory: ")
        return line


def damage(memory: Path, text: bytes) -> None:
    (segment,) = (memory / "log").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(text)] ^= 1
    segment.write_bytes(data)


def test_stats(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Counts, deletions, fields, credits and what helped."""
    Ran(capfd, "delete", "run-000", "--memory", memory)
    ran = Ran(capfd, "stats", "--memory", memory)
    assert ran.status == 0
    assert "7 episodes, 5 successes" in ran.out
    assert "1 deleted, whose bytes compact takes away" in ran.out
    assert "found by goal" in ran.out
    assert "shown to later runs 2 times" in ran.out
    with Memory(memory, "w", fields=["window"]) as opened:
        opened.record_outcome(made(50, shown="run-003"))
        opened.record_outcome(made(51, kind="heat", success=False))
    out = Ran(capfd, "stats", "--memory", memory).out
    assert "found by goal, window" in out
    assert "3 times; most useful:" in out
    assert "  run-003" in out


def test_search_says_what_the_score_is_made_of(
    memory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Similarity and its key, usefulness, length, redundancy; and the query's flags arrive."""
    ran = Ran(capfd, "search", "put a hot pan in cabinet", "--memory", memory, "--k", 3)
    assert ran.status == 0
    assert (
        ran.out.count(
            "(by goal), usefulness +0.000, rating +0.000, length −0.000, redundancy 0.000"
        )
        == 3
    )
    assert "run-002" not in Ran(capfd, "search", "heat a pan", "--memory", memory, "--k", 9).out
    assert (
        "failure"
        in Ran(capfd, "search", "heat a pan", "--memory", memory, "--k", 9, "--all-outcomes").out
    )
    out = Ran(
        capfd,
        "search",
        "put a hot pan in cabinet",
        "--memory",
        memory,
        "--diversity",
        0.5,
        "--usefulness",
        -1,
    ).out
    assert "redundancy 0.000" in out.splitlines()[1]  # nothing came before the first
    assert "redundancy 0.000" not in out.splitlines()[4]
    with Memory(memory, "r") as opened:
        value = opened.usefulness("run-001").value
    assert value != 0
    assert f"usefulness {-value:+.3f}" in out
    out = Ran(
        capfd,
        "search",
        "put a hot pan in cabinet",
        "--memory",
        memory,
        "--k",
        9,
        "--length-penalty",
        0.1,
    ).out
    assert "length −0.100" in out  # run-005 has two steps
    only = ("--only", "type=cool", "--only", "type=clean", "--only", "policy=expert")
    out = Ran(capfd, "search", "put a hot pan in cabinet", "--memory", memory, "--k", 9, *only).out
    assert [line[7:14] for line in out.splitlines()[::3]] == ["run-005"]


def test_a_search_that_finds_nothing_says_what_it_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    search = "search", "heat a pan", "--memory", tmp_path
    Memory(tmp_path).close()
    assert Ran(capfd, *search).out == f"nothing found: {tmp_path} holds no episode\n"
    with Memory(tmp_path, "w") as memory:
        memory.add_many([made(n, success=False) for n in (1, 2)])
    only = "--only", "type=none"
    left = "nothing found; 2 failures left out (--all-outcomes shows them)\n"
    assert Ran(capfd, *search).out == left
    assert Ran(capfd, *search, *only).out.startswith("nothing found; 2 episodes left out, which")
    assert "failure, " in Ran(capfd, *search, "--all-outcomes").out
    with Memory(tmp_path, "w") as memory:
        for entry in memory.entries():
            memory.rate(entry.episode_id, "unsafe", 1)
    assert "none of which may be shown" in Ran(capfd, *search, "--all-outcomes").out


def test_search_mistakes(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is wrong, and what can be written instead."""
    search = "search", "a goal", "--memory", memory
    assert "write, for example, --only type=heat" in Ran(capfd, *search, "--only", "heat").complaint
    assert "use one of suite, type" in Ran(capfd, *search, "--only", "colour=red").complaint
    assert "at least 0 and less than 1" in Ran(capfd, *search, "--diversity", 1).complaint
    assert (
        "length_penalty is -1.0; it must not be negative"
        in Ran(capfd, *search, "--length-penalty", -1).complaint
    )
    assert "0 hits or more" in Ran(capfd, *search, "--k", -1).complaint
    assert "use some of goal, first, window" in Ran(capfd, *search, "--fields", "gaol").complaint
    missing = Ran(capfd, *search, "--fields", "goal,window").complaint
    assert missing.endswith("no field window: relive run --fields goal,window adds it")


def test_rate_annotate_show(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the beginning of an id; what was said is shown with the episode."""
    assert (
        Ran(capfd, "rate", "run-001", "human", "-0.5", "--memory", memory).out
        == "run-001: human -0.5\n"
    )
    assert (
        Ran(capfd, "annotate", "run-001", "took [a] detour", "--memory", memory).out
        == "run-001: 1 note\n"
    )
    out = Ran(capfd, "show", "run-001", "--memory", memory).out
    assert "rated human -0.5\nnote: took [a] detour\n" in out
    assert (
        "nan is no rating"
        in Ran(capfd, "rate", "run-001", "human", "nan", "--memory", memory).complaint
    )
    unrate = "unrate", "run-001", "human", "--memory", memory
    assert Ran(capfd, *unrate).out == "run-001: human removed\n"
    assert "has no rating 'human': it has none" in Ran(capfd, *unrate).complaint
    for command in (
        ("rate", "run-00", "human", 1),
        ("annotate", "run-00", "x"),
        ("delete", "run-00"),
        ("show", "run-00"),
    ):
        line = Ran(capfd, *command, "--memory", memory).complaint
        assert "8 episodes in" in line
        assert "give more of the id" in line


def test_ratings_steer_a_search(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    search = "search", "put a hot thing3 in cabinet", "--memory", memory, "--k", 2
    assert "run-003" in Ran(capfd, *search).out.splitlines()[0]
    Ran(capfd, "rate", "run-003", "human", "-1", "--memory", memory)
    out = Ran(capfd, *search, "--k", 9, "--ratings", 0.9).out
    assert "run-003" not in out.splitlines()[0]
    assert out.count("rating -0.900") == 1
    Ran(capfd, "rate", "run-003", "unsafe", "1", "--memory", memory)
    assert "run-003" not in Ran(capfd, *search, "--k", 9).out


def test_restore(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the beginning of an id, or the list of what can be; clear where nothing can."""
    restore = "restore", "--memory", memory
    Ran(capfd, "delete", "run-001", "run-004", "--memory", memory)
    out = Ran(capfd, *restore).out
    assert out.startswith(f"2 deleted episodes in {memory} can be restored\nrun-001  expert: put")
    assert "2 deleted episodes" in Ran(capfd, *restore, "run").complaint
    assert "restore without an id lists them" in Ran(capfd, *restore, "run").complaint
    assert "no deleted episode" in Ran(capfd, *restore, "run-003").complaint
    assert Ran(capfd, *restore, "run-001", "--reason", "it was right").out == "run-001 restored\n"
    assert "8 deleted" not in Ran(capfd, "stats", "--memory", memory).out
    with Memory(memory, "r") as opened:
        assert ("run-001" in opened, len(opened)) == (True, 7)
    Ran(capfd, "compact", "--memory", memory)
    assert "compacted away cannot be restored" in Ran(capfd, *restore, "run-004").complaint
    assert Ran(capfd, *restore).out == f"0 deleted episodes in {memory} can be restored\n"


def test_an_episode_with_half_a_character_is_shown(
    memory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The terminal cannot print it; that is no error."""
    with Memory(memory, "w") as opened:
        opened.add(replace(made(9), final_observation="half \ud83d of it"))
    done = subprocess.run(
        [sys.executable, *"-m relive.agent.cli memory show run-009 --memory".split(), str(memory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "half \\ud83d of it" in done.stdout


def test_delete_and_compact(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Gone from searches at once, from the disk with compaction; a typing error deletes nothing."""
    assert (
        "no episode in" in Ran(capfd, "delete", "run-000", "nonsense", "--memory", memory).complaint
    )
    ran = Ran(
        capfd,
        "delete",
        "run-000",
        "run-004",
        "run-000",
        "--reason",
        "wrong game",
        "--memory",
        memory,
    )
    assert ran.out == "run-000 deleted\nrun-004 deleted\n"
    before = sum(file.stat().st_size for file in (memory / "log").iterdir())
    ran = Ran(capfd, "compact", "--memory", memory)
    assert ran.out.startswith("2 episodes and 2 records about them taken away; the log had 0.0 MB")
    assert sum(file.stat().st_size for file in (memory / "log").iterdir()) < before
    assert "0 episodes and 0 records" in Ran(capfd, "compact", "--memory", memory).out
    with Memory(memory, "r") as opened:
        assert len(opened) == 6
    assert Ran(capfd, "verify", "--memory", memory).status == 0


def test_evict(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """To a capacity, or what is old; never the last successes of a type."""
    assert "needs a capacity" in Ran(capfd, "evict", "--memory", memory).complaint
    assert (
        "unknown eviction policy"
        in Ran(capfd, "evict", "--capacity", 1, "--by", "colour", "--memory", memory).complaint
    )
    assert (
        "write 2026-01-31"
        in Ran(capfd, "evict", "--before", "yesterday", "--memory", memory).complaint
    )
    assert (
        "cannot be negative" in Ran(capfd, "evict", "--capacity", -1, "--memory", memory).complaint
    )
    assert (
        "0 episodes deleted, 8 left"
        in Ran(capfd, "evict", "--before", "1970-01-01", "--memory", memory).out
    )
    ran = Ran(capfd, "evict", "--before", "1500", "--memory", memory)
    assert ran.out.splitlines()[:2] == ["run-000 deleted", "run-001 deleted"]
    ran = Ran(capfd, "evict", "--capacity", 1, "--keep-per-type", 1, "--memory", memory)
    assert ran.out.splitlines()[-3:] == [
        "4 episodes deleted, 2 left",
        "relive memory compact takes their bytes away",
        "more than --capacity 1 are left: --keep-per-type 1 spares the last successes of each type",
    ]


def test_verify(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Says what is damaged, changes nothing, and its exit status says so, too."""
    assert Ran(capfd, "verify", "--memory", memory).out.splitlines() == [
        f"{memory}: 8 episodes can be read, position 8; nothing damaged"
    ]
    damage(memory, b"hot thing1")
    files = {path: path.read_bytes() for path in memory.rglob("*") if path.is_file()}
    for _ in range(2):
        ran = Ran(capfd, "verify", "--memory", memory)
        assert ran.status == 1
        assert "7 episodes can be read, position 8; 1 damaged" in ran.out
        assert "  damaged: log/0000000000000000.log, byte " in ran.out
    assert files == {path: path.read_bytes() for path in memory.rglob("*") if path.is_file()}


def test_rebuild(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Catalog and index are made again from the log, vectors where asked for; what it does not own
    stays."""
    for folder in ("catalog", "vectors", "index"):
        (memory / folder / "leftover.tmp").write_text("x")
    (rows,) = (memory / "catalog").glob("*.rows")
    rows.write_bytes(rows.read_bytes()[:300] + b"rubbish")
    (column,) = (memory / "vectors").glob("*.vec")
    ran = Ran(capfd, "rebuild", "--memory", memory)
    assert (ran.status, ran.error) == (0, "")
    assert (
        "catalog of 8 episodes made from the log, 0 texts embedded, no rows in the index" in ran.out
    )
    assert list(memory.rglob("leftover.tmp")) == []
    assert Ran(capfd, "verify", "--memory", memory).status == 0
    other = memory / "vectors" / "another-embedder.vec"
    other.write_text("kept")
    column.write_bytes(b"rubbish")
    ran = Ran(capfd, "rebuild", "--reembed", "--memory", memory)
    assert "8 texts embedded" in ran.out
    assert other.read_text() == "kept"
    with Memory(memory, "r") as opened:
        assert (opened.stats().damage, opened.stats().index_entries) == ((), 0)
        assert [episode.id for episode in opened.iterate()] == [f"run-{n:03d}" for n in range(8)]


def test_rebuild_says_what_the_log_lost(memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No cache mends that."""
    damage(memory, b"hot thing1")
    ran = Ran(capfd, "rebuild", "--memory", memory)
    assert ran.status == 1
    assert "catalog of 7 episodes" in ran.out
    assert "so few are all compared" in ran.out
    assert "records 1 to 1 are lost" in ran.out


def test_rebuild_throws_nothing_away_that_it_cannot_make(
    memory: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another embedder, a writer at work, no memory at all."""
    with Memory(memory, "w"):
        told = Ran(capfd, "rebuild", "--memory", memory).complaint
        assert "is being written by" in told
        assert told.endswith("; wait for it to end, or end it")
    assert "no memory in" in Ran(capfd, "rebuild", "--memory", tmp_path / "none").complaint
    assert not (tmp_path / "none").exists()
    later = HashedEmbedder(64)
    monkeypatch.setattr(HashedEmbedder, "identity", "hashed-2-64")
    Memory(tmp_path / "other", embedder=later).close()
    monkeypatch.undo()
    (tmp_path / "other" / "index" / "x.json").write_text("{}")
    assert "hashed-2-64" in Ran(capfd, "rebuild", "--memory", tmp_path / "other").complaint
    assert (tmp_path / "other" / "index" / "x.json").exists()


def test_folders_and_files_are_named_as_text(
    memory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder may have any name, and a terminal is told none of it as a command."""
    folder = memory.rename(tmp_path / "\x1b[2J\u202e")
    shown = f"{tmp_path}/\\x1b[2J\\u202e"
    out = Ran(capfd, "verify", "--memory", folder).out
    assert out == f"{shown}: 8 episodes can be read, position 8; nothing damaged\n"
    assert Ran(capfd, "rebuild", "--memory", folder).out.startswith(f"{shown}: catalog of 8")
    file = tmp_path / "\x9bx.jsonl"
    ran = Ran(capfd, "export", file, "--memory", folder)
    assert ran.error == f"8 episodes exported to {tmp_path}/\\x9bx.jsonl\n"
    out = Ran(capfd, "import", file, "--memory", folder).out
    assert out == (
        f"0 episodes added to {shown}; 8 were there already\n"
        f"{tmp_path}/\\x9bx.jsonl was read as episodes, as its first line says\n"
    )
    with Memory(folder, "w"):
        assert shown in Ran(capfd, "compact", "--memory", folder).complaint


def test_export_and_import(memory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Out, in, out: the same bytes; again: nothing new; never over a file that is there."""
    Ran(capfd, "rate", "run-001", "human", 1, "--memory", memory)
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    ran = Ran(capfd, "export", first, "--memory", memory)
    assert (ran.status, ran.out, ran.error) == (0, "", f"8 episodes exported to {first}\n")
    copy = tmp_path / "copy"
    assert Ran(capfd, "import", first, "--memory", copy).out == (
        f"8 episodes added to {copy}; 0 were there already\n{first} was read as episodes, as its "
        "first line says\n"
    )
    assert "0 episodes added" in Ran(capfd, "import", first, "--memory", copy).out
    Ran(capfd, "export", second, "--memory", copy)
    assert first.read_bytes() == second.read_bytes()
    assert (
        "give another name, or delete it first"
        in Ran(capfd, "export", second, "--memory", copy).complaint
    )
    Ran(capfd, "delete", "run-001", "--memory", copy)
    assert (
        "7 were there already; 1 had been deleted there"
        in Ran(capfd, "import", first, "--memory", copy).out
    )


def test_export_and_import_through_pipes(memory: Path, tmp_path: Path) -> None:
    """Only lines on standard output; what is said goes elsewhere."""
    export, load = (
        [sys.executable, "-m", "relive.agent.cli", "memory", command, "-", "--memory", str(folder)]
        for command, folder in (("export", memory), ("import", tmp_path / "copy"))
    )
    written = subprocess.run(
        export, cwd=ROOT, capture_output=True, check=True, env={**os.environ, "LANG": "C"}
    )
    assert len([json.loads(line) for line in written.stdout.splitlines()]) == 9
    assert written.stderr == b"8 episodes exported\n"
    read = subprocess.run(load, cwd=ROOT, capture_output=True, check=True, input=written.stdout)
    assert read.stdout.startswith(b"8 episodes added")


def test_an_export_of_a_damaged_memory_says_what_is_missing(
    memory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It holds the others; the exit status says that it is not all."""
    damage(memory, b"hot thing1")
    ran = Ran(capfd, "export", tmp_path / "x.jsonl", "--memory", memory)
    assert ran.status == 1
    assert "7 episodes exported" in ran.error
    assert "not exported, damaged: log/0000000000000000.log, byte" in ran.error


def test_import_reports_bad_lines_and_keeps_the_others(
    memory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """File, line, what is wrong, what to do; exit status 1."""
    file, copy = tmp_path / "x.jsonl", tmp_path / "copy"
    Ran(capfd, "export", file, "--memory", memory)
    lines = file.read_text().splitlines()
    lines[3] = lines[3].replace('"steps":[', '"steps":[7,')
    lines[-1] = lines[-1][:-9]
    file.write_text("\n".join(lines))
    ran = Ran(capfd, "import", file, "--memory", copy)
    assert ran.status == 1
    assert ran.out.startswith("6 episodes added")
    assert (
        ran.error.splitlines()[0]
        == f"{file}, line 4: not an episode: steps[0] should be an object and is 7"
    )
    assert ran.error.splitlines()[1].startswith(f"{file}, line 9: no JSON, or cut off: ")
    assert ran.error.splitlines()[2].startswith(
        "2 lines not imported: repair what is wrong and import the file again"
    )


def test_import_of_conversations(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The format is recognised and said, or named; labels are those that are given."""
    turns = [{"role": "user", "content": "a goal"}, {"role": "assistant", "content": "act"}]
    file, copy = tmp_path / "x.jsonl", tmp_path / "copy"
    file.write_text(json.dumps({"messages": turns, "success": True}) + "\n{}\n")
    labelled = ("--suite", "desk", "--split", "valid", "--memory", copy)
    ran = Ran(capfd, "import", file, *labelled)
    assert ran.status == 1
    assert ran.out.splitlines() == [
        f"1 episode added to {copy}; 0 were there already",
        f"{file} was read as messages, as its first line says",
        "  1 episode read: 1 success, 0 failures",
        "  1 of suite desk, split valid",
    ]
    assert ran.error.startswith(f"{file}, line 2: messages should be a list and is null\n")
    ran = Ran(capfd, "import", file, "--format", "messages", *labelled)
    assert ran.out.splitlines()[:2] == [
        f"0 episodes added to {copy}; 1 was there already",
        f"{file} was read as messages",
    ]
    assert (
        "unknown format 'csv'" in Ran(capfd, "import", file, "--format", "csv", *labelled).complaint
    )


def test_import_mistakes(memory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No file, another file, a writer at work."""
    (tmp_path / "x.txt").write_text("hello\n")
    assert (
        "No such file"
        in Ran(capfd, "import", tmp_path / "none", "--memory", tmp_path / "n").complaint
    )
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"format": "relive-episodes", "v": 99}\n')
    for refused in (tmp_path / "x.txt", wrong, tmp_path):
        ran = Ran(capfd, "import", refused, "--memory", tmp_path / "n")
        assert str(refused) in ran.complaint
    assert f"{tmp_path} is a folder: name the files in it" in ran.complaint
    assert not (tmp_path / "n").exists()
    good = tmp_path / "x.jsonl"
    good.write_text(CHAT)
    with Memory(memory, "w"):
        ran = Ran(capfd, "import", good, "--memory", memory)
        assert "is being written by" in ran.complaint


def test_import_of_several_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report on each and a total; one that nobody can read leaves no memory and half an
    import."""
    one, two, copy = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "copy"
    one.write_text(CHAT)
    two.write_text(CHAT.replace("act", "wait") + CHAT + "{}\n")
    (tmp_path / "x.txt").write_text("hello\n")
    ran = Ran(capfd, "import", one, tmp_path / "x.txt", "--memory", copy)
    assert "cannot tell what" in ran.complaint
    assert not copy.exists()
    ran = Ran(capfd, "import", one, two, "--memory", copy)
    assert [line for line in ran.out.splitlines() if not line.startswith(" ")] == [
        f"1 episode added to {copy}; 0 were there already",
        f"{one} was read as messages, as its first line says",
        f"1 episode added to {copy}; 1 was there already",
        f"{two} was read as messages, as its first line says",
        "2 files: 2 episodes added in all; 1 was there already; 1 line not imported",
    ]
    assert ran.status == 1
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CHAT.encode())))
    ran = Ran(capfd, "import", one, "-", "--memory", copy)
    assert "2 files: 0 episodes added in all; 2 were there already; 0 lines not" in ran.out
    assert "name it once" in Ran(capfd, "import", "-", "-", "--memory", copy).complaint


@pytest.mark.parametrize(
    "argv",
    [
        ["stats"],
        ["search", "a goal"],
        ["show", "x"],
        ["rate", "x", "human", "1"],
        ["annotate", "x", "y"],
        ["delete", "x"],
        ["evict", "--capacity", "1"],
        ["compact"],
        ["verify"],
        ["rebuild"],
        ["export", "unwritten.jsonl"],
    ],
    ids=lambda argv: argv[0],
)
def test_no_memory_is_one_line_and_makes_none(
    argv: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """For every command but import, which makes one."""
    told = Ran(capfd, *argv, "--memory", tmp_path / "none").complaint
    assert "there is no memory in" in told
    assert told.endswith((": nothing is there; relive run makes one", ": check the path"))
    assert list(tmp_path.iterdir()) == []
    assert not Path("unwritten.jsonl").exists()


def test_every_command_has_help(capfd: pytest.CaptureFixture[str]) -> None:
    """Also those with the fewest options."""
    with pytest.raises(SystemExit, match="0"):
        main(["memory", "--help"])
    out = capfd.readouterr().out
    for command in (
        "stats search show rate annotate delete evict compact verify rebuild export import".split()
    ):
        assert f"    {command} " in out
        with pytest.raises(SystemExit, match="0"):
            main(["memory", command, "--help"])
