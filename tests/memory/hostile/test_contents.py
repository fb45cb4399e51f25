"""What an episode may hold comes back as it was; what it may not hold changes nothing, not a
byte."""

import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.memory import Episode, Memory, Outcome, Query, StopReason
from relive.memory.transfer import export_lines, import_lines
from tests.memory.conftest import make_episode
from tests.memory.faults import open_memory
from tests.memory.hostile import contents
from tests.memory.hostile.ask import ask
from tests.memory.hostile.contents import (
    GOOD,
    LEAST,
    MOST,
    WRONG,
    folder_bytes,
    paired,
    same,
    with_field,
)

Act = Callable[[Memory], object]


def judge(memory: Memory, expected: Sequence[Episode]) -> None:
    """Exactly these are there, each as it was."""
    assert len(memory) == len(expected)
    found = list(memory.iterate())
    assert [episode.id for episode in found] == [episode.id for episode in expected]
    for one, other in zip(found, expected, strict=True):
        assert same(one, other), f"{one} is not {other}"
        assert memory.meta(other.id).task == other.task
    assert not memory.verify()


def refused(memory: Memory, act: Act, *names: str) -> str | None:
    """Do what has to be refused; what is wrong with how that went, None if it left no trace.

    Args:
        memory: it is done to.
        act: what is done.
        names: one of them must be in the message of a `TypeError` or `ValueError`; without any,
            every error will do.
    """
    before, position, count = folder_bytes(memory.path), memory.position, len(memory)
    try:
        act(memory)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        clear = isinstance(error, TypeError | ValueError) and any(
            name in str(error) for name in names
        )
    else:
        return "accepted"
    if (memory.position, len(memory)) != (position, count):
        return f"counted all the same ({message})"
    if folder_bytes(memory.path) != before:
        return f"written all the same ({message})"
    return f"not named: {message}" if names and not clear else None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        contents.episodes, min_size=1, max_size=5, unique_by=lambda episode: paired(episode.id)
    )
)
def test_anything_that_an_episode_may_hold_comes_back(episodes: list[Episode]) -> None:
    """After adding, opening again, another one's deletion and compaction, and after export and
    import."""
    root = Path(tempfile.mkdtemp(prefix="hostile"))
    try:
        with open_memory(root / "a", "create") as memory:
            memory.add_many(episodes)
            judge(memory, episodes)
            extra = make_episode(1)
            memory.add(extra)
            memory.delete(extra.id)
        with open_memory(root / "a", "w") as memory:
            judge(memory, episodes)
            assert memory.compact().episodes == 1
            judge(memory, episodes)
            lines = io.BytesIO(b"".join(export_lines(memory)))
        with open_memory(root / "a") as memory:
            judge(memory, episodes)
            hits = ask(memory, Query("anything", k=9))
            assert all(hit.score == hit.score for hit in hits)
        with open_memory(root / "b", "create") as memory:
            imported = import_lines(memory, lines, "export")
            assert (imported.added, imported.problems) == (len(episodes), ())
            judge(memory, [paired(episode) for episode in episodes])
    finally:
        shutil.rmtree(root)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(contents.text, contents.number, contents.text), max_size=5))
def test_anything_that_may_be_said_comes_back(said: list[tuple[str, float, str]]) -> None:
    """Ratings and notes."""
    folder = Path(tempfile.mkdtemp(prefix="hostile"))
    try:
        with open_memory(folder, "create") as memory:
            memory.add_many([GOOD, make_episode(1)])
            for name, value, note in said:
                memory.rate("good", name, value)
                memory.annotate("good", note)
            memory.delete("episode-1", "\ud83d")
            memory.compact()
        with open_memory(folder) as memory:
            given = {name: float(value) for name, value, _ in said}
            assert same(dict(memory.get("good").ratings), {"human": 0.5, **given})
            assert memory.notes("good") == tuple(note for _, _, note in said)
            assert not memory.stats().damage
    finally:
        shutil.rmtree(folder)


def test_every_field_is_attacked() -> None:
    """A field that is added to an episode has to be added there."""
    assert set(contents.all_fields()) == set(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_what_a_field_cannot_hold_is_refused(folder: Path, name: str) -> None:
    """Rows 4 and 5 of a memory: alone and among good ones, the field named, no byte changed, and
    all goes on."""
    with open_memory(folder, "create") as memory:
        memory.add(make_episode(1))
        problems = []
        for held in WRONG[name]:
            bad = with_field(GOOD, name, held)
            leaf = name.rpartition(".")[2]
            acts: dict[str, Act] = {
                "add": lambda memory, bad=bad: memory.add(bad),  # type: ignore[misc]
                "among others": lambda memory, bad=bad: memory.add_many(
                    [make_episode(8), bad, make_episode(9)]
                ),  # type: ignore[misc]
                "deduplicated": lambda memory, bad=bad: memory.add(bad, deduplicate=True),  # type: ignore[misc]
            }
            for how, act in acts.items():
                problem = refused(memory, act, leaf)
                if problem is not None:
                    problems.append(
                        f"{name} = {type(held).__name__} {held!r:.30}, {how}: {problem:.120}"
                    )
                    break
        assert not problems, "not refused as they should be:\n" + "\n".join(problems)
        memory.add(GOOD)
    with open_memory(folder) as memory:
        judge(memory, [make_episode(1), GOOD])


@pytest.mark.parametrize("what", [None, 5, "text", b"x", {}, [1], GOOD.task], ids=repr)
def test_what_is_no_episode_is_refused(store: Memory, what: Any) -> None:
    """Instead of an episode, and among episodes."""
    acts: list[Act] = [
        lambda memory: memory.add(what),
        lambda memory: memory.add_many([GOOD, what]),
        lambda memory: memory.record_outcome(what),
    ]
    problems = [problem for act in acts if (problem := refused(store, act))]
    assert not problems


@pytest.mark.parametrize(
    "name", [name for name in WRONG if not name.startswith(("task.s", "task.g", "task.v"))]
)
def test_credits_hold_nothing_that_cannot_be_read(folder: Path, name: str) -> None:
    """A run that is not stored leaves a record all the same: refused without a trace, or
    readable."""
    with open_memory(folder, "create") as memory:
        memory.add(make_episode(1))
        for held in WRONG[name]:
            before = folder_bytes(memory.path)
            try:
                memory.record_outcome(with_field(GOOD, name, held))
            except Exception:
                assert folder_bytes(memory.path) == before, (
                    f"{name} = {held!r}: refused and written"
                )
        assert not memory.verify()
        memory.compact()
    with open_memory(folder) as memory:
        assert not memory.stats().damage
        assert len(memory) == 1


_SAYINGS: dict[str, Callable[[Memory, Any], object]] = {
    "delete": lambda memory, value: memory.delete("good", value),
    "rate": lambda memory, value: memory.rate("good", value, 1.0),
    "annotate": lambda memory, value: memory.annotate("good", value),
    "delete whom": lambda memory, value: memory.delete(value),
    "rate whom": lambda memory, value: memory.rate(value, "worth", 1.0),
    "annotate whom": lambda memory, value: memory.annotate(value, "remark"),
}


@pytest.mark.parametrize(
    "value",
    [None, b"good", 5, ["good"], contents.Strange()],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("how", _SAYINGS)
def test_what_cannot_be_said_is_refused(store: Memory, how: str, value: Any) -> None:
    """Row 6: deletions, ratings and notes; the episode stays, and nothing is reported damaged."""
    store.add(GOOD)
    assert refused(store, lambda memory: _SAYINGS[how](memory, value)) is None
    assert "good" in store
    assert not store.stats().damage


@pytest.mark.parametrize(
    "value", [None, "high", [1.0], {}, 10**400, 1j], ids=lambda value: type(value).__name__
)
def test_what_is_no_rating_is_refused(store: Memory, value: Any) -> None:
    """Row 6: the value of a rating."""
    store.add(GOOD)
    assert refused(store, lambda memory: memory.rate("good", "worth", value)) is None
    assert same(store.get("good"), GOOD)


@pytest.mark.parametrize("number", [MOST + 1, LEAST - 1, 10**30])
@pytest.mark.parametrize("name", ["task.seed", "memory_position", "steps.tokens", "actor.settings"])
def test_integers_that_do_not_fit_are_refused(store: Memory, name: str, number: int) -> None:
    """64 bits are what a record holds; one less is held."""
    wraps: dict[str, Callable[[int], Any]] = {
        "steps.tokens": lambda n: (1, n),
        "actor.settings": lambda n: {"n": n},
    }
    wrap = wraps.get(name, lambda n: n)
    act: Act = lambda memory: memory.add(with_field(GOOD, name, wrap(number)))  # noqa: E731
    assert refused(store, act, name.rpartition(".")[2]) is None
    fits = [replace(with_field(GOOD, name, wrap(n)), id=f"good {n}") for n in (LEAST, MOST)]
    store.add_many(fits)
    judge(store, fits)


def test_a_reason_to_stop_that_is_none_changes_nothing(store: Memory) -> None:
    """Row 5, as it was found."""
    bad = replace(GOOD, outcome=Outcome(True, 1.0, "won"))  # type: ignore[arg-type]
    assert refused(store, lambda memory: memory.add(bad), "reason") is None
    store.add(replace(GOOD, outcome=Outcome(True, 1.0, StopReason.SOLVED)))
    assert len(store) == 1
