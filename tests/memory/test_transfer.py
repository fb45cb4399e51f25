"""Out as lines of JSON and in again: nothing is lost, and what somebody else wrote is checked line
by line."""

import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from relive.memory import (
    Actor,
    Episode,
    Memory,
    Outcome,
    Retrieved,
    Step,
    StopReason,
    transfer,
)
from relive.memory.imports.files import import_file
from relive.memory.plain import plain, read_as
from relive.memory.storage import payload
from relive.memory.transfer import HEADER, Imported, export_file, export_lines, import_lines

Make = Callable[..., Episode]
HALF = "half a character \ud83d, a tab\t, a line\nand a\u2028separator, 🫖"


@pytest.fixture
def full(episode: Make) -> Episode:
    """An episode with something in every field."""
    return replace(
        episode(1, f"boil \udc80 in {HALF}"),
        steps=(
            Step(
                HALF,
                "go",
                0.1 + 0.2,
                True,
                (0, 2**63, 7),
                (Retrieved("other", 1 / 3), Retrieved("another", -0.0)),
            ),
            Step("", "", float("-inf")),
        ),
        outcome=Outcome(False, float("nan"), StopReason.POLICY_ERROR, "ValueError: no"),
        actor=Actor(
            "local",
            "m",
            "w",
            "v3",
            "p",
            {"a": 1, "b": 1.0, "c": True, "d": "NaN", "e": float("inf")},
        ),
        memory_position=17,
        started=1.7e9 + 1e-6,
        timings={"policy": 1e-300, "ü\ud800": 2.0},
    )


def out(memory: Memory) -> bytes:
    return b"".join(export_lines(memory))


def into(memory: Memory, *lines: bytes | str | object, name: str = "x.jsonl") -> Imported:
    """Import lines given as bytes, or as what JSON makes of them."""
    texts = [
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    ]
    return import_lines(memory, io.BytesIO(b"".join(texts)), name)


def line_of(episode: Episode) -> dict[str, object]:
    return {"v": 1, **plain(episode)}


def test_every_field_comes_back_and_a_second_export_is_the_same(
    store: Memory, full: Episode, tmp_path: Path
) -> None:
    """Half characters, numbers that are not finite, types of settings: all of it."""
    store.add(full)
    store.rate(full.id, "human", 0.25)
    store.rate(full.id, "human", 0.5)
    store.rate(full.id, "odd", float("nan"))
    store.annotate(full.id, HALF)
    store.annotate(full.id, HALF)
    first = out(store)
    assert first.decode("utf-8").count("\n") == 2
    with Memory(tmp_path / "copy") as copy:
        assert into(copy, first) == Imported(added=1)
        came = copy.get(full.id)
        assert repr(came) == repr(
            store.get(full.id)
        )  # not ==: a number that is none does not equal itself
        assert [type(value) for value in came.actor.settings.values()] == [
            int,
            float,
            bool,
            str,
            float,
        ]
        assert copy.notes(full.id) == (HALF, HALF)
        stats = copy.stats()
        assert (stats.ratings, stats.notes) == (2, 2)
        assert out(copy) == first


def test_random_episodes_survive(store: Memory, episode: Make, tmp_path: Path) -> None:
    """Whatever characters there are, apart from two halves in a row, which are one character in
    JSON."""
    chance = random.Random(0)

    def text() -> str:
        drawn = [
            chance.choice(
                ["a", '"', "\\", "\n", "\0", "\x7f", "é", "\ud800", "\udfff", "\u2028", "😀"]
            )
            for _ in range(9)
        ]
        return "".join(drawn).replace("\ud800\udfff", "-")

    for number in range(150):
        steps = tuple(Step(text(), text(), chance.random(), tokens=(number,)) for _ in range(3))
        store.add(
            replace(episode(number, text() + "x"), steps=steps, timings={text(): chance.random()})
        )
    with Memory(tmp_path / "copy") as copy:
        assert into(copy, out(store)).added == 150
        assert list(copy.iterate()) == list(store.iterate())
        assert out(copy) == out(store)


def test_a_file_is_there_in_full_or_not_at_all(
    store: Memory, episode: Make, tmp_path: Path
) -> None:
    """It is never written over, and a failure leaves nothing behind."""
    store.add_many([episode(number) for number in range(3)])
    told: list[int] = []
    assert export_file(store, tmp_path / "x.jsonl", told.append) == 3
    assert told == [1, 2, 3]
    with pytest.raises(FileExistsError, match="give another name"):
        export_file(store, tmp_path / "x.jsonl")

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_file(store, tmp_path / "y.jsonl", stop)
    assert [path.name for path in tmp_path.glob("*.jsonl*")] == ["x.jsonl"]


def test_the_first_line_says_what_it_is(store: Memory, episode: Make) -> None:
    """Anything else is refused as a whole, with the line that is missing."""
    for wrong in (b"", b"RELIVELG\0\0", line_of(episode(1)), [1], b"\xff\xfe\n"):
        with pytest.raises(
            ValueError,
            match=r"^x.jsonl is no export of episodes: its first line must be \{.*relive-episodes",
        ):
            into(store, wrong)
    with pytest.raises(
        ValueError,
        match=r"x.jsonl is of version 2 .* reads 1: import it with the version that wrote it",
    ):
        into(store, {**HEADER, "v": 2})
    assert into(store, HEADER) == Imported()


STEP = {"observation": "o", "action": "a"}
OUTCOME = {"success": True, "score": 1, "reason": "solved"}


def test_an_export_that_was_cut_off_gives_what_is_there(
    store: Memory, episode: Make, tmp_path: Path
) -> None:
    with Memory(tmp_path / "other") as other:
        other.add_many([episode(number) for number in range(20)])
        whole = gzip.compress(b"".join(export_lines(other)))
    done = import_file(store, io.BytesIO(whole[: len(whole) * 9 // 10]), "x.gz").imported
    assert 0 < done.added < 20
    assert done.added == len(store)
    assert done.bad == 1
    assert "cut off or damaged" in done.problems[0].detail


def test_an_episode_that_is_deleted_meanwhile_costs_no_export(
    store: Memory, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left out."""
    store.add_many([episode(number) for number in range(3)])
    real = store.get

    def read_and_delete(episode_id: str, at: int | None = None) -> Episode:
        read = real(episode_id, at)
        if episode_id == "episode-1":
            store.delete(episode_id)
        return read

    monkeypatch.setattr(store, "get", read_and_delete)
    ids = [json.loads(line).get("id") for line in transfer.export_lines(store)]
    assert ids == [None, "episode-0", "episode-2"]


def test_a_damaged_remark_costs_no_export(folder: Path, episode: Make, tmp_path: Path) -> None:
    with Memory(folder) as memory:
        memory.add_many([episode(number) for number in range(3)])
        memory.annotate("episode-1", "a remark that is damaged")
        memory.annotate("episode-1", "and one that is not")
    (segment,) = (folder / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[data.index(b"a remark that")] ^= 1
    segment.write_bytes(data)
    with Memory(folder, "w") as memory:
        assert memory.notes("episode-1") == ("and one that is not",)
        assert export_file(memory, tmp_path / "all.jsonl") == 3
        assert memory.verify()


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        (b'{"v":1,"id":"torn', "no JSON, or cut off"),
        (b"\xff\n", "not UTF-8 (byte 0 of the line)"),
        (b"[" * 200_000 + b"\n", "nested too deeply"),
        (b'{"v":1,"later":' + b'{"a":' * 200_000 + b"\n", "nested too deeply"),
        (b'{"v":1,"id":' + b"9" * 5000 + b"}\n", "digits"),
        ([1], "a list instead of an object"),
        ({}, "of version None of the format; this program reads 1"),
        ({"v": True}, "of version True"),
        ({"v": 9}, "of version 9"),
        ({"v": 1}, "not an episode: id is missing"),
        ({"id": 5}, "not an episode: id should be text and is 5"),
        ({"id": None}, "id should be text and is null"),
        ({"id": ""}, "an episode without an id"),
        ({"task": []}, "task should be an object and is a list"),
        ({"steps": [STEP, {"observation": "o"}]}, "steps[1].action is missing"),
        (
            {"steps": [{**STEP, "tokens": [1, 1.5]}]},
            "steps[0].tokens[1] should be an integer and is 1.5",
        ),
        ({"steps": [{**STEP, "tokens": [2**64]}]}, "cannot be stored"),
        ({"steps": [{**STEP, "reward": 10**400}]}, "steps[0].reward should be a number"),
        ({"steps": [{**STEP, "invalid": 1}]}, "invalid should be true or false and is 1"),
        (
            {"outcome": {**OUTCOME, "score": {"float": "x"}}},
            "score should be a number and is an object",
        ),
        ({"outcome": {**OUTCOME, "reason": "bored"}}, "reason should be one of solved, failed"),
        (
            {"actor": {"policy": "p", "settings": {"a": [1]}}},
            "settings['a'] should be text, a number, true or false and is a list",
        ),
        ({"ratings": {"human": "good"}}, "ratings['human'] should be a number and is 'good'"),
        ({"notes": "one"}, "notes should be a list and is 'one'"),
        ({"id": "x" * 100, "task": 7 * 10**70}, "…"),
    ],
)
def test_a_bad_line_is_named_and_costs_no_other(
    store: Memory, episode: Make, wrong: object, detail: str
) -> None:
    """File, line, place in it, what was found."""
    if isinstance(wrong, dict) and "v" not in wrong and wrong:
        wrong = {**line_of(episode(7)), **wrong}
    tail = (
        b""
        if isinstance(wrong, bytes) and b"torn" in wrong
        else json.dumps(line_of(episode(2))).encode()
    )
    done = into(store, HEADER, line_of(episode(1)), wrong, tail)
    (problem,) = done.problems
    assert str(problem).startswith("x.jsonl, line 3: ")
    assert detail in str(problem)
    assert "\n" not in str(problem)
    assert len(str(problem)) < 300
    assert (done.bad, done.added, len(store)) == (1, 1 + bool(tail), 1 + bool(tail))


def test_a_huge_line_is_passed_over(
    store: Memory, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without being held; the one behind it has its right number."""
    monkeypatch.setattr(transfer, "MAX_LINE", 2000)
    huge = (
        json.dumps(line_of(replace(episode(2), final_observation="x" * 3_000_000))).encode() + b"\n"
    )
    done = into(store, HEADER, line_of(episode(1)), huge, line_of(episode(3)), b"{\n", huge.strip())
    assert (done.added, done.bad) == (2, 3)
    assert [problem.line for problem in done.problems] == [3, 5, 6]
    assert "longer than 2000 bytes" in done.problems[0].detail


def test_only_the_first_bad_lines_are_described(store: Memory, episode: Make) -> None:
    """A file of nothing but rubbish does not fill the memory of the machine."""
    bad = transfer.LISTED + 7
    done = into(store, HEADER, *[b"rubbish\n"] * bad, line_of(episode(1)))
    assert (done.bad, len(done.problems), done.added) == (bad, transfer.LISTED, 1)


def test_bad_episodes_of_a_batch_are_told_apart(store: Memory, episode: Make) -> None:
    """What only the memory can refuse is refused alone, and problems come in the order of the
    lines."""
    blank = replace(episode(3), task=replace(episode(3).task, identity=" "))
    done = into(store, HEADER, *map(line_of, [episode(1), blank, episode(2)]), b"rubbish\n")
    assert [problem.line for problem in done.problems] == [3, 5]
    assert "no task identity" in done.problems[0].detail
    assert [entry.episode_id for entry in store.entries()] == ["episode-1", "episode-2"]


def test_unknown_fields_blank_lines_and_joined_files(
    store: Memory, full: Episode, episode: Make
) -> None:
    """A later version may say more; files may be put one behind the other; numbers may be written
    as integers."""
    more = {**line_of(episode(1)), "later": {"deep": [[]]}, "started": 5}
    more["task"] = {**more["task"], "later": None}  # type: ignore[dict-item]
    done = into(store, HEADER, b"\n", more, b"  \n", HEADER, line_of(full) | {"id": "full"})
    assert done == Imported(added=2)
    assert store.get("episode-1") == replace(episode(1), started=5.0)


def test_what_is_there_is_passed_over_and_completed(store: Memory, episode: Make) -> None:
    """Also twice in one file. Ratings and notes that it lacks are added, none is changed: an
    interrupted import goes on."""
    store.add(episode(1))
    store.rate("episode-1", "human", 0.25)
    store.annotate("episode-1", "again")
    line = {
        **line_of(episode(1)),
        "ratings": {"human": 0.75, "fun": 1.0},
        "notes": ["again", "again", "new"],
    }
    done = into(store, HEADER, line, line_of(episode(2)), line_of(episode(2)), line)
    assert done == Imported(added=1, there=3)
    assert store.get("episode-1").ratings == {"human": 0.25, "fun": 1.0}
    assert store.notes("episode-1") == ("again", "again", "new")
    position = store.position
    assert into(store, HEADER, line, line_of(episode(2))) == Imported(there=2)
    assert store.position == position


def test_another_episode_of_the_same_id_is_not_passed_over(store: Memory, episode: Make) -> None:
    """It would be lost without a word."""
    store.add(episode(1))
    done = into(store, HEADER, line_of(replace(episode(2), id="episode-1")))
    assert "another episode 'episode-1' is there already" in done.problems[0].detail
    assert store.get("episode-1") == episode(1)


def test_what_was_deleted_stays_deleted(store: Memory, episode: Make) -> None:
    """An old export does not bring it back, until compaction forgot it."""
    store.add_many([episode(1), episode(2)])
    store.delete("episode-1")
    lines = [HEADER, line_of(episode(1)), line_of(episode(2))]
    assert into(store, *lines) == Imported(there=1, deleted=1)
    store.compact()
    assert into(store, *lines) == Imported(there=1, added=1)


def test_a_damaged_episode_can_be_had_back(folder: Path, episode: Make) -> None:
    """From an export made before: delete, compact, import."""
    with Memory(folder) as memory:
        memory.add_many([episode(number) for number in range(5)])
        lines = list(export_lines(memory))
    (segment,) = (folder / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[data.index(b"thing1 ")] ^= 1
    segment.write_bytes(data)
    with Memory(folder, "w") as memory:
        done = into(memory, *lines)
        assert (done.there, done.bad) == (4, 1)
        assert "is there, but damaged: delete it" in done.problems[0].detail
        assert len(list(export_lines(memory))) == 5
        memory.delete("episode-1")
        memory.compact()
        assert into(memory, *lines) == Imported(there=4, added=1)
        assert memory.get("episode-1") == episode(1)


def test_batches(store: Memory, episode: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 episodes, or of so many bytes: lines of huge episodes do not add up."""
    sizes: list[int] = []
    add_many = store.add_many

    def noted(episodes: list[Episode]) -> int:
        sizes.append(len(episodes))
        return add_many(episodes)

    monkeypatch.setattr(store, "add_many", noted)
    assert into(store, HEADER, *[line_of(episode(number)) for number in range(150)]).added == 150
    assert sizes == [0, 64, 64, 22]
    long = "x" * (transfer.BATCH_BYTES // 2)
    lines = [
        line_of(replace(episode(number), final_observation=long)) for number in range(200, 206)
    ]
    assert into(store, HEADER, *lines).added == 6
    assert max(sizes[4:]) < 3


def test_a_memory_open_for_reading_is_no_fault_of_the_lines(folder: Path, episode: Make) -> None:
    """It is said once."""
    Memory(folder).close()
    with (
        Memory(folder, "r") as memory,
        pytest.raises(ValueError, match="open for reading"),
    ):
        into(memory, HEADER, line_of(episode(1)))


def test_an_episode_that_could_not_be_read_again_is_refused(store: Memory, episode: Make) -> None:
    """A list longer than readers accept: added, it would be lost."""
    step = Step("o", "a", tokens=(1,) * (2**20 + 1))
    with pytest.raises(ValueError, match="1048577 items in a list; the limit is 1048576"):
        store.add(replace(episode(1), steps=(step,)))
    store.add(replace(episode(1), steps=(replace(step, tokens=step.tokens[1:]),)))
    assert len(store.get("episode-1").steps[0].tokens) == 2**20


def test_plain_values_by_hand(full: Episode) -> None:
    """What has its default is left out, and every type comes back as what it was."""
    assert plain(Step("o", "a")) == {"observation": "o", "action": "a"}
    assert plain(full)["outcome"] == {
        "success": False, "score": {"float": "nan"}, "reason": "policy error",
        "detail": "ValueError: no",
    }  # fmt: skip
    assert repr(read_as(Episode, json.loads(json.dumps(plain(full))))) == repr(full)
    with pytest.raises(ValueError, match="it should be an object and is true"):
        read_as(Step, True)


def test_golden_line(store: Memory, episode: Make) -> None:
    """Version 1 is on people's disks: written and read like this for ever."""
    store.add(replace(episode(1, steps=1), final_observation="é\udc80"))
    store.rate("episode-1", "human", 1)
    store.annotate("episode-1", "fine")
    golden = (
        b'{"format":"relive-episodes","v":1,"about":"one episode per line; relive memory import '
        b'reads it"}\n'
        b'{"v":1,"id":"episode-1","task":{"suite":"household","identity":"game-1","type":"heat","split":"train",'
        b'"room":"room-1","seed":1,"version":"1","goal":"put a hot thing1 in '
        b'cabinet"},"steps":[{"observation":'
        b'"You see shelf 0.","action":"go to shelf '
        b'0"}],"final_observation":"\xc3\xa9\\udc80","outcome":{"success":true,'
        b'"score":1.0,"reason":"solved"},"actor":{"policy":"expert","settings":{"temperature":0.0}},'
        b'"ratings":{"human":1.0},"notes":["fine"]}\n'
    )
    assert out(store) == golden


def test_what_is_exported_is_not_too_long_to_be_imported(
    tmp_path: Path, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control character has six bytes in JSON, and one in a record."""
    assert transfer.MAX_LINE == 6 * payload.MAX_BYTES
    monkeypatch.setattr(payload, "MAX_BYTES", 20_000)
    monkeypatch.setattr(transfer, "MAX_LINE", 6 * 20_000)
    most = replace(episode(1), final_observation="\x01" * 19_300)
    with Memory(tmp_path / "one") as memory:
        memory.add(most)
        with pytest.raises(ValueError, match="20000"):
            memory.add(replace(most, id="more", final_observation="\x01" * 20_000))
        export_file(memory, tmp_path / "all.jsonl")
    with Memory(tmp_path / "other") as memory, (tmp_path / "all.jsonl").open("rb") as file:
        assert import_lines(memory, file, "all.jsonl") == Imported(added=1)
        assert memory.get(most.id) == most


def test_an_export_leaves_other_files_alone(store: Memory, episode: Make, tmp_path: Path) -> None:
    """Also one of its name that ends in .tmp."""
    store.add(episode(1))
    (tmp_path / "all.jsonl.tmp").write_text("mine")
    assert export_file(store, tmp_path / "all.jsonl") == 1
    assert (tmp_path / "all.jsonl.tmp").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.glob("all*")) == ["all.jsonl", "all.jsonl.tmp"]


def test_halves_of_a_character_side_by_side_come_back(
    store: Memory, episode: Make, tmp_path: Path
) -> None:
    """As the character, in JSON: the same episode, with the same notes and ratings, all the
    same."""
    pair = "\ud83d\ude00"
    store.add(replace(episode(1), final_observation=pair))
    store.annotate("episode-1", pair)
    store.rate("episode-1", pair, 1.0)
    store.add(replace(episode(2), final_observation=pair[0]))
    export_file(store, tmp_path / "all.jsonl")
    before = store.position
    for _ in range(2):
        with (tmp_path / "all.jsonl").open("rb") as file:
            assert import_lines(store, file, "all.jsonl") == Imported(there=2)
    assert store.position == before
    other = replace(episode(1), final_observation=pair[::-1])
    assert into(store, HEADER, line_of(other)).bad == 1
