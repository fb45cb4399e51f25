"""Files of every format and in every state: recognised, taken once, and reported on."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.memory import Episode, Memory
from relive.memory.imports import FORMATS, ImportReport, Labels, LeftOut, import_file, source
from relive.memory.transfer import LISTED, Imported, export_lines

DATA = Path(__file__).parent / "data"
Make = Callable[..., Episode]


def talk(number: int, **fields: Any) -> dict[str, Any]:
    """A conversation unlike all others."""
    messages = [
        {"role": "user", "content": f"goal {number}"},
        {"role": "assistant", "content": "act"},
    ]
    return {"messages": messages, **fields}


def lines(*values: Any) -> bytes:
    return b"".join(
        value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
        for value in values
    )


def into(memory: Memory, data: bytes, **options: Any) -> ImportReport:
    return import_file(memory, io.BytesIO(data), "x", **options)


def goals(memory: Memory) -> list[str]:
    return [episode.task.goal for episode in memory.iterate()]


def test_conversations_and_their_report(store: Memory) -> None:
    system = {"role": "system", "content": "be kind"}
    first = talk(1, success=True, dataset="d")
    first["messages"].insert(0, system)
    report = into(
        store, lines(first, b"\n", talk(2, dataset="d", split="test"), talk(3, success=False))
    )
    assert (report.format, report.imported) == ("messages", Imported(added=3))
    assert (report.read, report.successes, report.unknown) == (3, 1, 1)
    assert report.left_out == (LeftOut("field 'dataset'", "an episode has no place for it", 2, 1),)
    assert report.summary() == [
        "3 episodes read: 1 success, 2 failures",
        "2 of suite imported, split train",
        "1 of suite imported, split test",
        "of 1 the file does not say whether they succeeded: they count as failures (unknown is not "
        "success) and stay so; give each line the field 'success', delete what is here of them "
        "(relive memory delete) and import the file again",
        "told apart: system turns, in notes (they are not shown to agents): 1",
        "not taken: field 'dataset': an episode has no place for it (2 times, first in line 1)",
    ]
    episode = next(iter(store.iterate()))
    assert store.notes(episode.id) == ("System turn: be kind",)
    assert [step.observation for step in episode.steps] == ["goal 1"]


@pytest.mark.parametrize("name", ["knowagent.jsonl", "react_prompts.json"])
@pytest.mark.parametrize("packed", [False, True])
def test_logs_go_in_once(store: Memory, name: str, packed: bool) -> None:
    """Imported again nothing is added, neither episodes nor notes: ids follow from the content."""
    data = (DATA / name).read_bytes()
    data = gzip.compress(data) if packed else data
    report = into(store, data)
    assert (report.format, report.imported, report.read) == ("alfworld-logs", Imported(added=3), 3)
    position = store.position
    again = into(store, data)
    assert again.imported == Imported(there=3)
    assert (again.successes, again.left_out) == (report.successes, report.left_out)
    assert store.position == position


def test_thoughts_are_in_the_memory_and_not_in_the_actions(store: Memory) -> None:
    into(store, (DATA / "knowagent.jsonl").read_bytes())
    episode = next(iter(store.iterate()))
    assert episode.steps[3].reasoning == "Next, I need to put pillow 1 in/on armchair 1."
    assert all("hink" not in step.action for step in episode.steps)
    assert store.notes(episode.id)[0].startswith("Action path: Start->")


def test_a_list_is_read_like_lines(store: Memory, tmp_path: Path) -> None:
    """Over several lines or not, with the line of each value; ids are the same as from lines."""
    values = [talk(1), {"messages": []}, talk(2)]
    text = json.dumps(values, indent=1)
    report = into(store, b"\n " + text.encode())
    assert report.imported.added == 2
    begins = 1 + text[: text.index('"messages": []')].count("\n")
    assert [str(problem) for problem in report.imported.problems] == [
        f"x, line {begins}: messages is empty"
    ]
    assert into(store, lines(*values)).imported.there == 2
    assert into(store, b"[]", format="messages").imported == Imported()


@pytest.mark.parametrize(
    ("tail", "line", "detail"),
    [
        (b', {"messages": [', 1, "no JSON, or cut off: "),
        (
            b",\n" + b"[" * 100_000,
            2,
            "nested too deeply to be an episode; nothing behind it in the list",
        ),
        (b",\n" + b"9" * 5000 + b"]", 2, "; nothing behind it in the list was read"),
        (b" 7]", 1, "neither , nor ] behind it"),
        (b"]\n\n7", 1, "something follows the list"),
        (b",\n\xff]", 2, "not UTF-8 (byte "),
    ],
)
def test_a_damaged_list(store: Memory, tail: bytes, line: int, detail: str) -> None:
    """What comes before the damage is there, unless it cannot be read as text at all."""
    report = into(store, b"[" + json.dumps(talk(1)).encode() + tail, format="messages")
    (problem,) = report.imported.problems
    assert (problem.file, problem.line) == ("x", line)
    assert detail in problem.detail
    assert report.imported.added == ("UTF-8" not in detail)


def test_a_list_that_is_too_long(store: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LIST", 50)
    (problem,) = into(store, b"[" + lines(talk(1)) + b"]", format="messages").imported.problems
    assert (
        "a list longer than 50 bytes: write one object per line (jq -c '.[]' FILE)"
        in problem.detail
    )


def test_bad_lines_are_named_and_the_others_go_in(store: Memory) -> None:
    """Not UTF-8, cut off, too deep, no object, no conversation, half a character."""
    bad = [
        b"\xff\n",
        b'{"messages": [\n',
        b"[" * 100_000 + b"\n",
        b"7\n",
        b"{}\n",
        b'{"messages": {}}\n',
        b"9" * 5000 + b"\n",
    ]
    half = lines(talk(2, id="half \ud83d", metadata="\ud83d"))
    report = into(store, lines(talk(1), *bad) + half)
    assert (report.imported.added, report.imported.bad) == (2, len(bad))
    assert [problem.line for problem in report.imported.problems] == list(range(2, 2 + len(bad)))
    details = [problem.detail for problem in report.imported.problems]
    for detail, part in zip(
        details,
        [
            "not UTF-8",
            "cut off",
            "nested too deeply",
            "not a conversation: 7",
            "and is null",
            "and is an object",
            "digits",
        ],
        strict=True,
    ):
        assert part in detail
    assert goals(store) == ["goal 1", "goal 2"]
    assert store.notes("half \ud83d") == ('Metadata: "\ud83d"',)


def test_deep_metadata_costs_only_its_line(store: Memory) -> None:
    """Whatever its depth: read, or refused with the reason."""
    deep = [
        b'%s, "metadata": %s}\n' % (lines(talk(depth))[:-2], b"[" * depth + b"]" * depth)
        for depth in range(500, 1000, 5)
    ]
    done = into(store, lines(talk(1), *deep, talk(2))).imported
    assert done.added + done.bad == 2 + len(deep)
    assert done.added >= 2
    assert {problem.detail for problem in done.problems} <= {"nested too deeply to be an episode"}


def test_a_line_that_the_memory_refuses(store: Memory) -> None:
    """One id for two episodes: the second is refused, and said so; the same one twice is one."""
    report = into(store, lines(talk(1, id="a"), talk(2, id="a"), talk(1, id="a"), talk(3)))
    assert (report.imported.added, report.imported.there, report.imported.bad) == (2, 1, 1)
    (problem,) = report.imported.problems
    assert problem.line == 2
    assert "another episode 'a' is there already" in problem.detail


@pytest.mark.parametrize("first", [{}, {"success": False}, {"score": 0.5}])
def test_a_corrected_line_is_not_there_twice(store: Memory, first: dict[str, Any]) -> None:
    """It is refused and says which one to delete; after that it goes in, and the old one stays
    away."""
    into(store, lines(talk(1, **first), talk(2, success=True)))
    old = next(episode.id for episode in store.iterate() if not episode.success)
    data = lines(talk(1, **first | {"success": True}), talk(2, success=True))
    report = into(store, data)
    assert (report.imported.there, report.imported.bad, len(store)) == (1, 1, 2)
    detail = report.imported.problems[0].detail
    assert f"are there already with another outcome, as episode {old!r}: delete that" in detail
    store.delete(old)
    assert into(store, data).imported == Imported(added=1, there=1)
    assert all(episode.success for episode in store.iterate())
    assert into(store, lines(talk(1, **first))).imported == Imported(deleted=1)


def test_two_outcomes_of_the_same_steps_in_one_file_need_ids(store: Memory) -> None:
    report = into(store, lines(talk(1), talk(1, success=True), talk(1, success=True, id="x")))
    assert (report.imported.added, report.imported.bad) == (2, 1)
    assert report.imported.problems[0].line == 2


def test_a_corrected_log_is_not_there_twice(store: Memory) -> None:
    data = (DATA / "knowagent.jsonl").read_bytes()
    logs = [json.loads(line) for line in data.splitlines()]
    unsaid = [{name: v for name, v in log.items() if name != "result"} for log in logs]
    assert "give each line the field 'result'" in "".join(into(store, lines(*unsaid)).summary())
    for said in (True, False, 0):
        done = into(store, lines(*(log | {"result": said} for log in logs))).imported
        assert (done.added, done.bad) == (0, len(logs))


def test_deleted_episodes_stay_deleted(store: Memory) -> None:
    into(store, lines(talk(1)))
    store.delete(next(iter(store.iterate())).id)
    assert into(store, lines(talk(1))).imported == Imported(deleted=1)


def test_further_fields_are_counted_without_end(store: Memory) -> None:
    """A file with another field in every line does not fill the memory of the machine."""
    report = into(
        store, lines(*(talk(i, suite=f"s{i}", **{f"f{i}": 1}) for i in range(LISTED + 5)))
    )
    assert len(report.left_out) == LISTED + 1
    assert report.left_out[-1] == LeftOut(
        "further parts", "too many kinds of them to list", 5, LISTED + 1
    )
    assert (len(report.labels), report.labels["further suites and splits"]) == (LISTED + 1, 5)


def test_an_export_is_recognised_and_keeps_its_labels(
    store: Memory, episode: Make, tmp_path: Path
) -> None:
    store.add(episode(1))
    data = b"".join(export_lines(store))
    for number, packed in enumerate([data, gzip.compress(data), b"\xef\xbb\xbf" + data]):
        with Memory(tmp_path / str(number)) as copy:
            report = into(copy, packed)
            assert (report.format, report.imported, report.summary()) == (
                "episodes",
                Imported(added=1),
                [],
            )
            assert list(copy.iterate()) == [episode(1)]
            with pytest.raises(
                ValueError, match="the episodes in x have their suite and split: give no labels"
            ):
                into(copy, packed, labels=Labels(split="test"))


def test_labels(store: Memory) -> None:
    report = into(store, lines(talk(1, suite="a"), talk(2, split="b")), labels=Labels("s", "p"))
    assert report.labels == {"suite s, split p": 2}
    assert {(e.task.suite, e.task.split) for e in store.iterate()} == {("s", "p")}


@pytest.mark.parametrize(
    "data",
    [gzip.compress(lines(talk(1), *map(talk, range(2, 3000)))), gzip.compress(lines(talk(1)))],
    ids=["long", "short"],
)
def test_a_packed_file_that_is_cut_off(store: Memory, data: bytes) -> None:
    """What could be unpacked is there; the rest is named."""
    done = into(
        store, data[:-8] if len(data) < 1000 else data[: len(data) // 2], format="messages"
    ).imported
    assert done.added >= 1
    assert done.bad >= 1
    assert "the compressed file is cut off or damaged from here on" in done.problems[-1].detail
    assert done.problems[-1].line == done.added + done.bad


def test_a_packed_file_without_a_whole_line(store: Memory) -> None:
    with pytest.raises(ValueError, match=r"^x: the compressed file is cut off or damaged"):
        into(store, gzip.compress(lines(talk(1)))[:12])


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "x holds nothing that could be imported"),
        (b"\n \n", "x holds nothing that could be imported"),
        (b"[]", "x holds nothing that could be imported"),
        (b"hello\n", "because of its line 1: no JSON, or cut off"),
        (b"\n{\n", "because of its line 2: no JSON, or cut off"),
        (b"\xff\xfe{\x00", "because of its line 1: not UTF-8"),
        (
            b'{"a": 1}\n',
            "its first value is an object with the keys 'a', and without messages (a conversation)",
        ),
        (b"7\n", "its first value is 7 without"),
        (b'{"prompt": "text", "answer": 1}\n', "with the keys 'prompt', 'answer', and without"),
        (b'{"a": 1}\n', """write each line as {"messages": [{"role": "user", "content": """),
        (lines(dict.fromkeys("abcdefghi", 1)), "'g', 'h', …, and without"),
    ],
)
def test_what_is_not_recognised(store: Memory, data: bytes, detail: str) -> None:
    """The message says what to do; with a format named, the lines are reported one by one."""
    with pytest.raises(ValueError, match=r"^.") as raised:
        into(store, data)
    assert detail in str(raised.value)
    if data.strip() not in (b"", b"[]"):
        assert "name the format (episodes, messages, alfworld-logs)" in str(raised.value)
        assert into(store, data, format="messages").imported.bad == 1


def test_formats(store: Memory, folder: Path) -> None:
    assert FORMATS == ("episodes", "messages", "alfworld-logs")
    with pytest.raises(
        ValueError, match="unknown format 'csv': use one of episodes, messages, alfworld-logs"
    ):
        into(store, b"", format="csv")
    with pytest.raises(ValueError, match="is no export of episodes"):
        into(store, lines(talk(1)), format="episodes")
    with (
        Memory(folder, "r") as reader,
        pytest.raises(ValueError, match="mode='w'"),
    ):
        into(reader, lines(talk(1)))


def test_progress_names_lines(store: Memory) -> None:
    said: list[int] = []
    into(store, lines(talk(1), b"\n", talk(2)), on_progress=said.append)
    assert said == [1, 3]
