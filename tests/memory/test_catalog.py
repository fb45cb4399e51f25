"""The catalog: what is known of every record without reading it, and never anything that is not
so."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relive.memory import Episode, Retrieved
from relive.memory.episode import StopReason
from relive.memory.storage import annotations, codec
from relive.memory.storage.catalog import (
    DUPLICATE_ID,
    GAP,
    LONG,
    NEVER,
    NO_TARGET,
    ROW,
    SUCCESS,
    UNREADABLE,
    Catalog,
    Filter,
)
from relive.memory.storage.codec import digest
from relive.memory.storage.durable import Corruption
from relive.memory.storage.ingest import CREDIT, gap_row, rows_of
from relive.memory.storage.rows import HEADER_BYTES, Rows
from relive.memory.storage.segments import Kind, Record, RecordLocation

ID = bytes(16)
Make = Callable[..., Episode]


def record(
    sequence: int, kind: int, payload: bytes, segment: int = 0, generation: int = 0
) -> Record:
    """A record somewhere in a log."""
    return Record(
        RecordLocation(sequence, segment, 100 * sequence, len(payload), 7 + sequence, generation),
        kind,
        payload,
    )


def said(episode: Episode, sequence: int) -> Record:
    """The record of an episode."""
    return record(sequence, Kind.EPISODE, codec.encode_episode(episode))


def catalog(folder: Path, *, writable: bool = True) -> Catalog:
    """The catalog in ``folder``, loaded."""
    opened = Catalog(folder / "catalog.rows", memory=ID, writable=writable)
    opened.load()
    return opened


def sequence_in(opened: Catalog) -> Callable[[str], int | None]:
    """Sequence number of an id in a catalog."""

    def find(name: str) -> int | None:
        found = opened.ordinals_with(digest(name))
        return int(opened.sequences[found[0]]) if found else None

    return find


def taken(opened: Catalog, *records: Record) -> list[Corruption]:
    """Records taken into a catalog."""
    rows, damage = rows_of(records, sequence_in(opened))
    opened.append(rows)
    return damage


def test_a_row_is_what_it_was(episode: Make) -> None:
    """The layout is on disk; a change of it needs a new format number."""
    assert ROW.itemsize == 192
    offsets = {
        "sequence": 8,
        "kind": 38,
        "id": 40,
        "split": 96,
        "value": 120,
        "steps": 136,
        "text": 144,
    }
    assert {name: ROW.fields[name][1] for name in offsets} == offsets  # type: ignore[index]
    made = episode(3, success=False)
    place = RecordLocation(9, 4, 1000, 321, 77, 2)
    ((row,), _) = rows_of([Record(place, Kind.EPISODE, codec.encode_episode(made))], lambda _: None)
    data = bytes(row.tobytes())
    assert data[8:40] == struct.pack("<QQIIIHBB", 9, 4, 1000, 321, 77, 2, 1, 0)[:32]
    assert data[40:48] == struct.pack("<Q", digest("episode-3"))
    assert data[144:] == b"episode-3".ljust(48, b"\0")
    assert (row["task"], row["type"], row["policy"]) == (
        digest("game-3"),
        digest("heat"),
        digest("expert"),
    )
    assert (row["target"], row["steps"], row["value"], row["actions"]) == (
        NO_TARGET,
        3,
        0.0,
        codec.actions_digest(made),
    )


def test_episodes_come_back(tmp_path: Path, episode: Make) -> None:
    """By ordinal, id, place and column; in this process and the next, and what is appended after
    that."""
    first = catalog(tmp_path)
    taken(
        first,
        *[
            said(episode(number, split="test" if number % 3 else "train"), 2 * number)
            for number in range(5)
        ],
    )
    again = catalog(tmp_path)
    # The last record may have had more rows than were written, so it is taken in again.
    assert len(again) == 4
    taken(again, said(episode(4), 8), said(episode(5), 10))
    for opened, count in ((first, 5), (again, 6)):
        assert (len(opened), opened.alive) == (count, count)
        assert opened.sequences.tolist() == [2 * number for number in range(count)]
        for number in range(count):
            name = f"episode-{number}"
            assert opened.ordinals_with(digest(name)) == [number]
            assert opened.ids_of(np.array([number])) == [name]
            assert opened.ordinal_at(2 * number) == number
            assert opened.ordinal_at(2 * number + 1) is None
            assert opened.place(number).offset == 200 * number
            assert opened.column("type")[number] == digest("heat")
        assert opened.ordinals_with(digest("nobody")) == []
        assert opened.ordinal_at(NO_TARGET) is None
        assert [opened.count_before(position) for position in (0, 1, 2, 3, 99)] == [
            0,
            1,
            1,
            2,
            count,
        ]
    assert not first.file.damage + again.file.damage


def test_where_the_log_goes_on(tmp_path: Path, episode: Make) -> None:
    """Loading says behind which record the log is to be read, and forgets the last one's rows, all
    of them."""
    empty = Catalog(tmp_path / "catalog.rows", memory=ID, writable=True)
    assert empty.load() is None
    shown = annotations.Credit(("episode-0", "episode-1", "?"), "t", "heat", "p", True, 0.0)
    taken(
        empty,
        said(episode(0), 0),
        said(episode(1), 1),
        record(2, CREDIT, annotations.encode_credit(shown)),
    )
    assert len(empty.file) == 5
    path = tmp_path / "catalog.rows"
    whole = path.read_bytes()
    for rows in (5, 4, 3):
        path.write_bytes(whole[: HEADER_BYTES + rows * ROW.itemsize])
        opened = Catalog(path, memory=ID, writable=False)
        last = opened.load()
        assert last is not None
        assert (last.sequence, len(opened.file), opened.others(CREDIT)) == (1, 2, [])
    path.write_bytes(whole[: HEADER_BYTES + ROW.itemsize])
    assert Catalog(path, memory=ID, writable=False).load() is None
    # What is remembered of damage is written behind records that are complete.
    path.write_bytes(whole)
    opened = Catalog(path, memory=ID, writable=True)
    opened.load()
    taken(opened, record(2, CREDIT, annotations.encode_credit(shown)))
    opened.append(gap_row(Corruption("log/0000000000000000.log", 5, 6, "damaged, skipped")))
    last = opened.load()
    assert last is not None
    assert (last.sequence, len(opened.others(CREDIT))) == (2, 3)
    assert opened.gaps() == [Corruption("log/0000000000000000.log", 5, 6, "damaged, skipped")]


def test_a_damaged_row_costs_what_follows(tmp_path: Path, episode: Make) -> None:
    """It is made again from the log; nothing damaged is used."""
    taken(catalog(tmp_path), *[said(episode(number), number) for number in range(9)])
    path = tmp_path / "catalog.rows"
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 5 * ROW.itemsize + 60] ^= 1
    path.write_bytes(data)
    opened = Catalog(path, memory=ID, writable=True)
    last = opened.load()
    assert last is not None
    assert (last.sequence, len(opened)) == (3, 4)
    assert "rows from 5 on do not agree" in str(opened.file.damage[0])
    taken(opened, *[said(episode(number), number) for number in range(4, 9)])
    data[HEADER_BYTES + 5 * ROW.itemsize + 60] ^= 1
    assert path.read_bytes() == data


def test_generations_and_segments(tmp_path: Path, episode: Make) -> None:
    """A catalog fits a log whose segments are those that it was made from."""
    opened = catalog(tmp_path)
    assert opened.fits({})
    for number, (segment, generation) in enumerate([(0, 1), (0, 1), (2, 0), (3, 4)]):
        taken(
            opened,
            record(
                number, Kind.EPISODE, codec.encode_episode(episode(number)), segment, generation
            ),
        )
    opened.append(gap_row(Corruption("log/0000000000000099.log", 0, 1, "x")))
    assert opened.fits({0: 1, 2: 0, 3: 4, 5: 0})
    for generations in ({0: 2, 2: 0, 3: 4}, {0: 1, 2: 0, 3: 5}, {0: 1, 3: 4}, {}):
        assert not opened.fits(generations)
        # A compaction made a later one; or else they are of another log.
        assert opened.is_behind(generations) == (generations.get(3) == 5 or generations.get(0) == 2)


def test_deletions_count_from_their_position(tmp_path: Path, episode: Make) -> None:
    """Before it the episode is there; a second deletion changes nothing, one of nobody neither."""
    opened = catalog(tmp_path)
    delete = annotations.encode_deletion(annotations.Deletion("episode-1", "", 0.0))
    taken(
        opened,
        *[said(episode(number), number) for number in range(3)],
        record(3, Kind.DELETE, delete),
    )
    taken(opened, record(4, Kind.DELETE, delete), said(episode(5), 5))
    taken(
        opened,
        record(
            6, Kind.DELETE, annotations.encode_deletion(annotations.Deletion("nobody", "", 0.0))
        ),
    )
    for _ in range(2):
        assert (len(opened), opened.alive) == (4, 3)
        assert opened.delete_positions().tolist() == [NEVER, 3, NEVER, NEVER]
        everyone = np.arange(4)
        assert [opened.deleted(everyone, position).tolist()[1] for position in (2, 3, 4, 99)] == [
            False,
            False,
            True,
            True,
        ]
        assert not opened.deleted(np.array([0, 2, 3]), 99).any()
        assert opened.ordinals_with(digest("episode-1")) == [1]
        opened.append(opened.rows([]))
        opened = catalog(tmp_path)


def test_what_is_said_about_episodes(tmp_path: Path, episode: Make) -> None:
    """Ratings, notes and credits name the sequence number of their episode, also of one that came
    in the same batch."""
    opened = catalog(tmp_path)
    rating = annotations.encode_rating(annotations.Rating("episode-0", "human", 0.5, 2.0))
    long = annotations.encode_rating(annotations.Rating("episode-0", "x" * 49, 0.25, 2.0))
    note = annotations.encode_note(annotations.Note("nobody", "odd", 3.0))
    taken(opened, said(episode(0), 4), record(5, Kind.RATING, rating), record(6, Kind.RATING, long))
    taken(
        opened,
        record(7, Kind.NOTE, note),
        record(
            8, CREDIT, annotations.encode_credit(annotations.Credit((), "t", "h", "p", True, 1))
        ),
    )
    assert opened.others(Kind.RATING) == [(1, 4), (2, 4)]
    assert opened.others(Kind.NOTE) == [(3, NO_TARGET)]
    assert opened.others(CREDIT) == [(4, NO_TARGET)]
    rows = opened.rows([1, 2, 4])
    assert rows["text"].tolist() == [b"human", b"", b""]
    assert rows["flags"].tolist() == [0, LONG, SUCCESS]
    assert rows["value"].tolist()[:2] == [0.5, 0.25]


def test_a_run_has_a_row_for_each_it_was_shown(tmp_path: Path, episode: Make) -> None:
    """With the run's own task, type, policy and end."""
    opened = catalog(tmp_path)
    run = episode(2, success=False, task_type="cool")
    hits = (Retrieved("episode-1", 0.5), Retrieved("gone", 0.5), Retrieved("episode-0", 0.1))
    run = replace(
        run,
        steps=(replace(run.steps[0], retrieved=hits[:2]), replace(run.steps[1], retrieved=hits)),
    )
    taken(opened, said(episode(0), 0), said(episode(1), 1), said(run, 2), said(run, 3))
    assert [target for _, target in opened.others(CREDIT)] == [1, NO_TARGET, 0]
    rows = opened.rows([number for number, _ in opened.others(CREDIT)])
    assert rows["sequence"].tolist() == [2, 2, 2]
    assert set(rows["task"].tolist()) == {digest("game-2")}
    assert set(rows["type"].tolist()) == {digest("cool")}
    assert not (rows["flags"] & SUCCESS).any()


def test_what_cannot_be_taken_in_is_named(tmp_path: Path, episode: Make) -> None:
    """A second episode of an id, and a payload of another version: a row that says so, and no
    episode."""
    opened = catalog(tmp_path)
    damage = taken(
        opened,
        said(episode(0), 0),
        said(episode(0), 1),
        record(2, Kind.EPISODE, b"\x80"),
        said(episode(3), 3),
    )
    damage += taken(opened, said(episode(3), 4))
    assert [
        "a second episode 'episode-0'" in str(damage[0]),
        "'v' is missing" in str(damage[1]),
    ] == [True, True]
    assert "a second episode 'episode-3'" in str(damage[2])
    assert opened.sequences.tolist() == [0, 3]
    rows = opened.rows(range(5))
    assert rows["kind"].tolist() == [1, 1, UNREADABLE, 1, 1]
    assert [bool(flags & DUPLICATE_ID) for flags in rows["flags"]] == [
        False,
        True,
        False,
        False,
        True,
    ]
    (gap,) = opened.gaps()
    assert gap.detail.startswith("record 2: ")


def test_ids_that_do_not_fit(tmp_path: Path, episode: Make) -> None:
    """They are left to the log; what fits is kept exactly, odd characters included."""
    opened = catalog(tmp_path)
    names = ["x" * 48, "x" * 49, "ä" * 24, "ä" * 25, "half \ud800", "ends in \0"]
    taken(
        opened,
        *[said(replace(episode(number), id=name), number) for number, name in enumerate(names)],
    )
    assert opened.ids_of(np.arange(6)) == [names[0], None, names[2], None, names[4], None]
    assert all(opened.ordinals_with(digest(name)) == [number] for number, name in enumerate(names))


@pytest.mark.parametrize("few", [True, False])
def test_hashes_that_are_nearly_equal_are_told_apart(tmp_path: Path, few: bool) -> None:
    """All 64 bits count; more numbers than a double can hold."""
    start = 2**63 - 50 if few else 2**61
    hashes = np.array([start + number for number in range(100 if few else 5000)], dtype=np.uint64)
    rows: Rows = np.zeros(len(hashes), dtype=ROW)
    rows["kind"], rows["sequence"], rows["id"] = Kind.EPISODE, np.arange(len(hashes)), hashes[::-1]
    opened = catalog(tmp_path, writable=False)
    opened.append(rows[:-10])
    ask = range(0, len(hashes), 1 if few else 97)
    assert [
        opened.ordinals_with(int(hashes[::-1][number]))
        for number in ask
        if number < len(hashes) - 10
    ] == [[number] for number in ask if number < len(hashes) - 10]
    opened.append(rows[-10:])
    assert [opened.ordinals_with(int(hashes[::-1][number])) for number in ask] == [
        [number] for number in ask
    ]
    assert opened.ordinals_with(start - 1) == opened.ordinals_with(start + len(hashes)) == []


def test_filters(tmp_path: Path, episode: Make) -> None:
    """Columns against the episodes themselves, on old and on new ones."""
    opened = catalog(tmp_path)
    made = [
        episode(
            n,
            success=n % 2 == 0,
            task_type=["heat", "cool", "put"][n % 3],
            split="valid" if n % 5 == 4 else "train",
        )
        for n in range(40)
    ]
    filters = {
        Filter.of(False, {}): lambda e: True,
        Filter.of(True, {}): lambda e: e.success,
        Filter.of(False, {"type": ["cool", "put"]}): lambda e: e.task.type != "heat",
        Filter.of(True, {"type": {"cool"}, "suite": ["household"]}): lambda e: (
            e.success and e.task.type == "cool"
        ),
        Filter.of(False, {"policy": ["nobody"]}): lambda e: False,
        Filter.of(False, {"type": []}): lambda e: False,
        Filter.of(True, {}).within(frozenset({"train"})): lambda e: (
            e.success and e.task.split == "train"
        ),
        Filter.of(False, {}, [StopReason.STEP_LIMIT]): lambda e: e.success,
    }
    for stop in (25, 40):
        taken(opened, *[said(made[n], n) for n in range(len(opened), stop)])
        for wanted, check in filters.items():
            mask, count = opened.matching(wanted, stop)
            expected = [check(one) for one in made[:stop]]
            assert mask.tolist() == expected
            assert count == sum(expected)
            assert opened.matching(wanted, 10)[0].tolist() == expected[:10]
            some = np.array([3, 0, 24])
            assert opened.wanted(wanted, some).tolist() == [check(made[n]) for n in some.tolist()]


def test_filters_that_are_refused() -> None:
    """A field that there is not, and a text where texts should be."""
    with pytest.raises(ValueError, match="cannot be filtered by 'room'; use one of suite, type"):
        Filter.of(False, {"room": ["a"]})
    with pytest.raises(ValueError, match="must be a collection of texts, not the text 'heat'"):
        Filter.of(False, {"type": "heat"})
    assert Filter.of(True, {"type": ["a", "b"], "split": ["c"]}) == Filter.of(
        True, {"split": {"c"}, "type": {"b", "a"}}
    )


def test_forgetting(tmp_path: Path, episode: Make) -> None:
    """Then it is as if it had never been; what is taken in next replaces the file."""
    opened = catalog(tmp_path)
    taken(opened, *[said(episode(number), number) for number in range(5)])
    opened.forget()
    assert (len(opened), opened.alive, opened.ordinals_with(digest("episode-1"))) == (0, 0, [])
    taken(opened, said(episode(9), 0), said(episode(8), 1))
    again = catalog(tmp_path)
    assert again.ids_of(np.arange(len(again))) == ["episode-9"]
    assert (opened.rows([0, 1])["kind"] != GAP).all()
