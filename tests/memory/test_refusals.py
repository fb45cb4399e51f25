"""What cannot be read back is refused before anything is written, with an error that names it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from relive import Agent
from relive.memory import Episode, HashedEmbedder, Memory, Retrieved, Step
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.search.embed import Vectors
from relive.memory.transfer import export_file
from tests.memory.conftest import Make, found, make_episode, shown

GOOD = make_episode(0)


def contents(folder: Path) -> dict[str, bytes]:
    """All bytes of a folder, or of a file."""
    if folder.is_file():
        return {folder.name: folder.read_bytes()}
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_step(**held: Any) -> Episode:
    """An episode whose second step holds something else."""
    return replace(GOOD, steps=(GOOD.steps[0], replace(GOOD.steps[1], **held)))


def in_task(**held: Any) -> Episode:
    """An episode of a task that holds something else."""
    return replace(GOOD, task=replace(GOOD.task, **held))


def in_outcome(**held: Any) -> Episode:
    """An episode whose outcome holds something else."""
    return replace(GOOD, outcome=replace(GOOD.outcome, **held))


def settings(held: Any) -> Episode:
    """An episode with these settings."""
    return replace(GOOD, actor=replace(GOOD.actor, settings=held))


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no episode": (lambda: None, TypeError, "it should be an Episode and is NoneType"),
    "setting": (lambda: settings({"a": None}), TypeError,
                r"actor\.settings\['a'\] should be text, a number"),
    "name of a setting": (lambda: settings({1: 2}), TypeError,
                          r"actor\.settings should have texts for names"),
    "settings": (lambda: settings([1]), TypeError,
                 r"actor\.settings should be a mapping and is list"),
    "large setting": (lambda: settings({"a": 2**64}), ValueError,
                      r"settings\['a'\] .* an integer of 64 bits"),
    "observation": (lambda: in_step(observation=b"x"), TypeError,
                    r"steps\[1\]\.observation should be text and is bytes"),
    "token": (lambda: in_step(tokens=(1, 1.5)), TypeError,
              r"steps\[1\]\.tokens\[1\] .* integer and is float 1\.5"),
    "truth as token": (lambda: in_step(tokens=(True,)), TypeError,
                       r"tokens\[0\] should be an integer and is bool"),
    "large token": (lambda: in_step(tokens=(2**64,)), ValueError,
                    r"tokens\[0\] should be an integer of 64 bits"),
    "tokens": (lambda: in_step(tokens="12"), TypeError,
               r"steps\[1\]\.tokens should be a tuple and is str"),
    "score": (lambda: in_step(retrieved=(Retrieved("a", "b"),)), TypeError,  # type: ignore[arg-type]
              r"retrieved\[0\]\.score should be a number"),
    "step": (lambda: replace(GOOD, steps=("a",)), TypeError,
             r"steps\[0\] should be a Step and is str"),
    "room": (lambda: in_task(room=None), TypeError, r"task\.room should be text and is None"),
    "seed": (lambda: in_task(seed=2**64), ValueError, r"task\.seed .* 64 bits"),
    "task": (lambda: replace(GOOD, task=None), TypeError, "task should be a Task and is NoneType"),
    "reason": (lambda: in_outcome(reason="bored"), ValueError,
               r"outcome\.reason should be one of"),
    "success": (lambda: in_outcome(success=1), TypeError, r"outcome\.success .* true or"),
    "rating": (lambda: replace(GOOD, ratings={"a": "b"}), TypeError,
               r"ratings\['a'\] should be a number and is str 'b'"),
    "start": (lambda: replace(GOOD, started=None), TypeError,
              "started should be a number and is NoneType"),
    "id": (lambda: replace(GOOD, id=5), TypeError, "id should be text and is int 5"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_episodes_that_cannot_be_read_back(
    store: Memory, folder: Path, episode: Make, what: str
) -> None:
    """Refused, alone or with others, and as a run that taught something; not a byte is changed."""
    make, kind, message = WRONG[what]
    store.add(episode(1))
    before = contents(folder)
    acts: list[Callable[[], object]] = [
        lambda: store.add(make()),
        lambda: store.add_many([episode(2), make(), episode(3)]),
        lambda: store.add(make(), deduplicate=True),
        lambda: store.record_outcome(make()),
    ]
    for act in acts:
        with pytest.raises(kind, match=message):
            act()
    assert contents(folder) == before
    assert (len(store), store.position) == (1, 1)
    assert store.add(episode(2)) == 2


def test_the_same_value_in_another_type_is_stored_as_what_it_is(store: Memory) -> None:
    """Numbers of numpy, lists, an integer for a float, the text of a reason."""
    odd = replace(
        GOOD,
        started=5,
        steps=[Step("a", "b", np.float32(0.5), np.bool_(True), [np.int64(7), 8])],  # type: ignore[arg-type]
        outcome=replace(GOOD.outcome, reason="solved"),  # type: ignore[arg-type]
    )
    store.add(odd)
    assert store.get(GOOD.id) == replace(
        GOOD, started=5.0, steps=(Step("a", "b", 0.5, True, (7, 8)),)
    )
    assert store.verify() == ()


def test_what_is_said_about_episodes(store: Memory, folder: Path) -> None:
    """Ratings, remarks and deletions that mean nothing are refused, and the episode stays."""
    store.add(GOOD)
    before = contents(folder)
    acts: list[tuple[Callable[[], object], str]] = [
        (
            lambda: store.delete(GOOD.id, None),
            "a deletion cannot be stored: reason should be text and is NoneType",
        ),  # type: ignore[arg-type]
        (
            lambda: store.annotate(GOOD.id, None),
            "a note cannot be stored: text should be text and is NoneType",
        ),  # type: ignore[arg-type]
        (lambda: store.rate(GOOD.id, None, 1.0), "a rating cannot be stored: name should be text"),  # type: ignore[arg-type]
        (lambda: store.rate(GOOD.id, "a", None), "value should be a number and is NoneType"),  # type: ignore[arg-type]
        (lambda: store.rate(GOOD.id, "a", "1"), "value should be a number and is str '1'"),  # type: ignore[arg-type]
        (lambda: store.delete(None), "episode should be text and is NoneType"),  # type: ignore[arg-type]
    ]
    for act, message in acts:
        with pytest.raises(TypeError, match=message):
            act()
    with pytest.raises(
        ValueError, match="value should be an integer of 64 bits and is int of 1329 bits"
    ):
        store.rate(GOOD.id, "a", 10**400)
    assert contents(folder) == before
    assert (GOOD.id in store, store.position, store.verify()) == (True, 1, ())


class Odd(HashedEmbedder):
    """An embedder that makes something else."""

    def __init__(self, make: Callable[[Vectors], Any]) -> None:
        super().__init__()
        self.make = make

    def encode(self, texts: Sequence[str]) -> Any:
        """Whatever it makes of right vectors."""
        return self.make(super().encode(texts))


NONE: dict[str, tuple[Callable[[Vectors], Any], type[Exception], str]] = {
    "nothing": (
        lambda rows: None,
        TypeError,
        r"hashed-1-384 made nothing \(None\) of 1 texts: return a numpy array",
    ),
    "list": (lambda rows: rows.tolist(), TypeError, "made a list of 1 texts"),
    "text": (lambda rows: "vectors", TypeError, "made a str of 1 texts"),
    "objects": (lambda rows: rows.astype(object), TypeError, "made an array of object"),
    "flat": (
        lambda rows: rows[0],
        ValueError,
        r"made an array of shape \(384,\) .* float32 of shape \(1, 384\)",
    ),
    "zeros": (np.zeros_like, ValueError, "made a vector of zeros"),
    "nan": (lambda rows: rows * np.float32("nan"), ValueError, "numbers that are not finite"),
    "infinity": (
        lambda rows: np.full_like(rows, np.inf),
        ValueError,
        "numbers that are not finite",
    ),
}


@pytest.mark.parametrize("what", NONE)
def test_embedders_that_make_no_vectors(folder: Path, episode: Make, what: str) -> None:
    """One clear error when adding and when searching; nothing is written."""
    make, kind, message = NONE[what]
    embedder = Odd(lambda rows: rows)
    with Memory(folder, embedder=embedder) as memory:
        memory.add(episode(1))
        before, embedder.make = contents(folder), make
        with pytest.raises(kind, match=message):
            memory.add(episode(2))
        with pytest.raises(kind, match=message):
            found(memory, "anything")
        assert contents(folder) == before


@pytest.mark.parametrize("factor", [3, 0.01, 1e30, 1e-30, np.float64(1e200), np.float64(1e-200)])
def test_vectors_of_another_length_are_normalised(
    folder: Path, episode: Make, factor: float
) -> None:
    """A score is a cosine, whatever an embedder makes."""
    embedder = Odd(lambda rows: rows * factor)
    with Memory(folder, embedder=embedder) as memory:
        memory.add_many([episode(number) for number in range(3)])
        assert found(memory, episode(2).task.goal)[0] == "episode-2"
        rows = memory._state.spaces["goal"].column.take(np.arange(3))
        assert np.linalg.norm(rows, axis=1) == pytest.approx([1.0] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("identity", None, TypeError),
        ("identity", " ", ValueError),
        ("identity", "\ud800", ValueError),
        ("dimension", 2.5, TypeError),
        ("dimension", True, TypeError),
        ("dimension", 0, ValueError),
    ],
)
def test_embedders_that_do_not_say_what_they_are(
    folder: Path, name: str, value: Any, kind: type[Exception]
) -> None:
    """Refused before a folder is made."""
    known = {"identity": "mine", "dimension": 4, "encode": list, name: value}
    embedder: Any = SimpleNamespace(**known)
    for act in (
        lambda: Memory(folder, embedder=embedder),
        lambda: rebuild(folder, embedder=embedder),
    ):
        with pytest.raises(kind, match=f"the {name} of the embedder (SimpleNamespace|mine) is"):
            act()
    assert not folder.exists()


@pytest.mark.parametrize(
    "what", ["lock", "log", "catalog", "vectors", "index", "log/0000000000000000.log"]
)
def test_links_are_not_written_through(
    folder: Path, tmp_path: Path, episode: Make, what: str
) -> None:
    """Writing is refused, what the link leads to stays as it was."""
    with Memory(folder) as memory:
        memory.add(episode(1))
    elsewhere = tmp_path / "elsewhere"
    (folder / what).rename(elsewhere)
    (folder / what).symlink_to(elsewhere)
    before = contents(elsewhere)

    def add() -> None:
        with Memory(folder, "w") as memory:
            memory.add(episode(2))

    with pytest.raises(OSError, match="a symbolic link, and nothing is written through one"):
        add()
    assert contents(elsewhere) == before
    (folder / what).unlink()
    elsewhere.rename(folder / what)
    with Memory(folder, "w") as memory:
        assert memory.add(episode(2)) == 2


def test_caches_and_leftovers_that_are_links_are_replaced(
    folder: Path, tmp_path: Path, episode: Make
) -> None:
    """They can be made again, beside what they lead to."""
    elsewhere = tmp_path / "elsewhere"
    with Memory(folder) as memory:
        memory.add(episode(1))
    elsewhere.write_bytes(b"somebody else's")
    for name in (
        "catalog/catalog.rows",
        "catalog/catalog.rows.tmp",
        "memory.json.tmp",
        "log/0000000000000000.0001.log.tmp",
    ):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(elsewhere)
    with Memory(folder, "w") as memory:
        memory.add(episode(2))
        memory.delete("episode-1")
        memory.compact()
        assert len(memory) == 1
    assert elsewhere.read_bytes() == b"somebody else's"


def test_a_pipe_does_not_hang(folder: Path, episode: Make) -> None:
    """Nothing waits for the other end of what is no file."""
    with Memory(folder) as memory:
        memory.add(episode(1))
    (folder / "lock").unlink()
    os.mkfifo(folder / "lock")
    with pytest.raises(OSError, match="no regular file"):
        Memory(folder, "w")


def test_a_run_teaches_only_what_can_be_stored(store: Memory) -> None:
    """The credit of a run that is right is kept."""
    store.add(GOOD)
    assert store.record_outcome(shown(make_episode(1), GOOD.id)) == 2
    assert store.usefulness(GOOD.id).shown == 1
    for lacking in ({"identity": ""}, {"split": " "}):
        run = replace(GOOD, id="run", task=replace(GOOD.task, **lacking))
        for take in (store.add, store.record_outcome):
            with pytest.raises(ValueError, match=f"has no task {next(iter(lacking))}"):
                take(shown(run, GOOD.id))
    assert store.position == 2


class OnesOwn(HashedEmbedder):
    """One that only the program that made it has."""

    identity = "mine-1"


def test_what_was_made_with_ones_own_embedder_can_be_read_and_kept_in_order(
    folder: Path, episode: Callable[..., Episode], tmp_path: Path
) -> None:
    """Without it all goes on that needs no new vectors; what does says what to do, and changes
    nothing."""
    with Memory(folder, embedder=OnesOwn()) as memory:
        memory.add_many([episode(number) for number in range(4)])
    with Memory(folder, "w") as memory:
        assert memory.stats().embedder == "mine-1"
        assert export_file(memory, tmp_path / "all.jsonl") == 4
        memory.annotate("episode-1", "seen")
        memory.delete("episode-2")
        memory.compact()
        assert memory.verify() == ()
        agent = Agent(lambda messages: "look", memory)
        acts: list[Callable[[], object]] = [
            lambda: memory.search("a mug"), lambda: memory.add(episode(9)),
            lambda: list(agent.run("toy", 1)),
        ]  # fmt: skip
        for act in acts:
            with pytest.raises(ValueError, match=r"embedded with mine-1, which is not here"):
                act()
        assert len(memory) == 3
    with pytest.raises(ValueError, match="mine-1, which is not here"):
        rebuild(folder, reembed=True)
    rebuild(folder)
    with Memory(folder, "r", embedder=OnesOwn()) as memory:
        assert len(memory.search("a mug", k=9)) == 3
    with pytest.raises(ValueError, match=r"embedded with mine-1 .* not with hashed"):
        Memory(folder, embedder=HashedEmbedder())


@pytest.mark.parametrize("blank", ["", " ", "\u200b", "\u00ad\ufeff", "\u2800\u3164"])
def test_what_nobody_can_see_is_no_text(store: Memory, blank: str) -> None:
    """What was stored under such an identity could be kept from nobody."""
    for name in ("identity", "split"):
        task = replace(GOOD.task, **{name: blank})
        with pytest.raises(ValueError, match=f"has no task {name}, so nobody could be kept"):
            store.add(replace(GOOD, task=task))
    if blank:
        with pytest.raises(ValueError, match="has no task identity"):
            store.add(goal="wash up", steps=[], success=True, task_id=blank)
    with pytest.raises(ValueError, match="the goal is blank"):
        store.add(goal=blank, steps=[], success=True)
    assert store.position == 0
