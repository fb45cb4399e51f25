"""Random sequences of everything that can be done to a memory, each step compared with a plain
list.

A sequence follows from its seed. What a step does follows from the step's own number and from what
is there when its turn comes, so any part of a sequence is a sequence, too: what fails is shortened
before it is shown.
"""

import itertools
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.memory import (
    Actor,
    Episode,
    Memory,
    Outcome,
    Query,
    Retrieved,
    Step,
    StopReason,
    Task,
)
from relive.memory.maintenance.evict import POLICIES
from relive.memory.search.rank import LEAST_POOL, POOL
from tests.memory.faults import SMALL, delete_caches
from tests.memory.hostile.ask import Hide, ask
from tests.memory.hostile.contents import same
from tests.memory.hostile.embedders import DISTRIBUTIONS, MadeEmbedder, clustered_goal
from tests.memory.hostile.model import Entry, Model, greedy
from tests.memory.hostile.oracle import NEAR, Answers

GRAPHS_FROM = 40
"""Rows from which on graphs are used."""
LONGEST = 50
"""Most hits that are asked for."""
KINDS = 6
_SPLITS = ("train", "train", "train", "valid", "test")
_RATINGS: list[dict[str, float]] = [
    {}, {}, {"human": -0.5}, {"unsafe": 1.0}, {"own": 2.0, "human": 3.0}, {"unsafe": -1.0}
]  # fmt: skip
_WEIGHTS = {
    "search": 10, "add": 3, "add_many": 3, "add_again": 1, "delete": 3, "delete_kind": 1,
    "rate": 3, "unrate": 2, "restore": 3, "annotate": 1, "credit": 1, "evict": 1,
    "evict_otherwise": 1, "compact": 2, "reopen": 2, "lose_caches": 1, "follow": 3, "publish": 1,
    "verify": 1, "count": 1, "refuse": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A sequence: the seed of its surroundings, and steps with a number each."""

    seed: int
    steps: tuple[tuple[str, int], ...]


def plan(seed: int) -> Plan:
    """The sequence of a seed."""
    draw = random.Random(f"plan {seed}")
    names = draw.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=draw.randrange(8, 24))
    start = [("populate", draw.randrange(10**6))] if draw.random() < 0.9 else []
    return Plan(seed, (*start, *((name, draw.randrange(10**6)) for name in names)))


def play(sequence: Plan) -> Answers:
    """Do what a plan says in a new folder; how good the answers of the searches were.

    Raises:
        AssertionError: the memory is not as it has to be; so does whatever it raises itself.
    """
    folder = Path(tempfile.mkdtemp(prefix="hostile"))
    try:
        run = _Run(sequence.seed, folder / "experience")
        try:
            for name, number in sequence.steps:
                run.step(name, random.Random(number))
            run.step("reopen", random.Random(0))
        finally:
            run.close()
        return run.answers
    finally:
        shutil.rmtree(folder)


def shortened(sequence: Plan, tries: int = 60) -> Plan:
    """A part of a sequence that fails, which fails still and is as short as was found in so many
    tries."""
    size = max(1, len(sequence.steps) // 2)
    while tries > 0:
        for start in range(0, len(sequence.steps), size):
            part = replace(sequence, steps=sequence.steps[:start] + sequence.steps[start + size :])
            tries -= 1
            try:
                play(part)
            except Exception:
                sequence = part
                break
        else:
            if size == 1:
                break
            size //= 2
    return sequence


def judge(seeds: Iterable[int]) -> Answers:
    """Play the sequences of some seeds; raises `AssertionError` with a short one that fails."""
    total = Answers()
    for seed in seeds:
        try:
            answers = play(plan(seed))
        except Exception as error:
            short = shortened(plan(seed))
            raise AssertionError(f"{type(error).__name__}: {error}\n{short}") from error
        assert answers.wanted < LONGEST or answers.recall >= 0.9, (
            f"recall {answers.recall:.3f}: {plan(seed)}"
        )
        total.take(answers)
    return total


class _Run:
    """A memory, its model, and sometimes a reader beside it."""

    def __init__(self, seed: int, folder: Path) -> None:
        draw = random.Random(f"run {seed}")
        self.folder = folder
        self.embedder = MadeEmbedder(
            DISTRIBUTIONS[seed % len(DISTRIBUTIONS)], draw.choice([8, 12, 16, 24, 32])
        )
        self.fields = draw.choice(
            [("goal",), ("goal",), ("goal",), ("goal", "first"), ("goal", "window")]
        )
        self.model = Model(self.embedder, self.fields)
        self.answers = Answers()
        self.count = 0
        """Episodes that were made so far: they are numbered."""
        self.memory = Memory(folder, embedder=self.embedder, fields=self.fields, index=SMALL)
        self.reader: Memory | None = None

    def close(self) -> None:
        """Close what is open."""
        self.memory.close()
        if self.reader is not None:
            self.reader.close()

    def step(self, name: str, draw: random.Random) -> None:
        """Do something, and look whether everything is as it has to be."""
        act: Callable[[random.Random], None] = getattr(self, f"_{name}")
        act(draw)
        self._check(self.memory, draw)

    def _check(self, memory: Memory, draw: random.Random, looks: int = 3) -> None:
        """Numbers and ids of all that is there, contents of some."""
        alive = self.model.alive
        assert memory.position == self.model.position
        assert len(memory) == len(alive)
        assert [entry.episode_id for entry in memory.entries()] == [entry.id for entry in alive]
        for entry in draw.sample(alive, min(looks, len(alive))):
            assert entry.id in memory
            assert same(memory.get(entry.id), entry.now(self.model.position))
            assert memory.ratings(entry.id) == entry.ratings(self.model.position)
            assert memory.notes(entry.id) == tuple(entry.notes)
        deleted = [entry for entry in self.model.entries if entry.deleted is not None]
        assert [entry.episode_id for entry in memory.deleted()] == [entry.id for entry in deleted]
        for entry in draw.sample(deleted, min(looks, len(deleted))):
            assert entry.id not in memory
            assert memory.get(entry.id, at=entry.deleted).task == entry.episode.task
            with pytest.raises(KeyError):
                memory.get(entry.id)
        at = draw.randrange(self.model.position + 1)
        then = self.model.visible(at)
        assert [entry.episode_id for entry in memory.entries(at=at)] == [e.id for e in then]
        for entry in draw.sample(then, min(looks, len(then))):
            # What steers nothing may be compacted away once another one replaced it.
            steering = [
                {name: r[name] for name in ("human", "unsafe") if name in r}
                for r in (memory.get(entry.id, at).ratings, entry.ratings(at))
            ]
            assert steering[0] == steering[1]

    # What is done.

    def _populate(self, draw: random.Random) -> None:
        self._adds([self._episode(draw) for _ in range(draw.choice([30, 300, 500, 700]))])

    def _add(self, draw: random.Random) -> None:
        episode = self._episode(draw)
        self.model.add([episode])
        assert self.memory.add(episode) == self.model.position

    def _add_many(self, draw: random.Random) -> None:
        self._adds([self._episode(draw) for _ in range(draw.choice([0, 2, 10, 60]))])

    def _adds(self, episodes: list[Episode]) -> None:
        self.model.add(episodes)
        assert self.memory.add_many(episodes) == self.model.position

    def _add_again(self, draw: random.Random) -> None:
        """Something of the same task with the same actions as another: left out if that is asked
        for."""
        episodes = [self._episode(draw)]
        episodes.append(replace(episodes[0], id=self._new_id()))
        if self.model.alive:
            episodes.append(replace(self._one(draw).episode, id=self._new_id()))
        there = {_what_was_done(entry.episode) for entry in self.model.alive}
        self.model.add(episodes[:1] if _what_was_done(episodes[0]) not in there else [])
        assert self.memory.add_many(episodes, deduplicate=True) == self.model.position

    def _delete(self, draw: random.Random) -> None:
        for _ in range(draw.choice([1, 1, 20])):
            if self.model.alive:
                entry = self._one(draw)
                self.model.delete(entry)
                assert (
                    self.memory.delete(entry.id, draw.choice(["", "too old"]))
                    == self.model.position
                )

    def _delete_kind(self, draw: random.Random) -> None:
        """All that have something to do with each other, so that what remains is unlike it."""
        kinds = draw.sample(range(KINDS), draw.choice([1, KINDS // 2, KINDS - 1]))
        for entry in self.model.alive:
            if entry.episode.task.goal.lower().split()[0] in {f"kind{kind}" for kind in kinds}:
                self.model.delete(entry)
                self.memory.delete(entry.id)

    def _rate(self, draw: random.Random) -> None:
        if self.model.alive:
            entry, name, value = (
                self._one(draw),
                draw.choice(["worth", "human", "human", "unsafe", "x" * 60, ""]),
                draw.uniform(-2, 2),
            )
            self.model.say(entry, name, value)
            assert self.memory.rate(entry.id, name, value) == self.model.position

    def _unrate(self, draw: random.Random) -> None:
        at = self.model.position
        rated = [entry for entry in self.model.alive if entry.ratings(at)]
        for entry in draw.sample(rated, min(2, len(rated))):
            name = draw.choice(sorted(entry.ratings(at)))
            self.model.say(entry, name, None)
            assert self.memory.unrate(entry.id, name) == self.model.position
            with pytest.raises(ValueError, match="has no rating"):
                self.memory.unrate(entry.id, name)

    def _restore(self, draw: random.Random) -> None:
        deleted = [entry for entry in self.model.entries if entry.deleted is not None]
        for entry in draw.sample(deleted, min(draw.choice([1, 1, 20]), len(deleted))):
            self.model.restore(entry)
            reason = draw.choice(["", "it was right"])
            assert self.memory.restore(entry.id, reason) == self.model.position
            with pytest.raises(ValueError, match="not deleted"):
                self.memory.restore(entry.id)

    def _annotate(self, draw: random.Random) -> None:
        if self.model.alive:
            entry, text = self._one(draw), draw.choice(["", "a remark", "\ud83d", "x" * 300])
            entry.notes.append(text)
            self.model.position += 1
            assert self.memory.annotate(entry.id, text) == self.model.position

    def _credit(self, draw: random.Random) -> None:
        self.model.position += 1
        assert self.memory.record_outcome(self._episode(draw)) == self.model.position

    def _evict(self, draw: random.Random) -> None:
        limits = {
            "capacity": draw.choice([None, draw.randrange(len(self.model.alive) + 2)]),
            "before": draw.choice([None, float(draw.randrange(self.count + 1))]),
        }
        if limits["capacity"] is limits["before"] is None:
            limits["capacity"] = len(self.model.alive) * 3 // 4
        keep = draw.choice([0, 2])
        gone = self.model.victims(limits["capacity"], limits["before"], keep)  # type: ignore[arg-type]
        assert self.memory.evict(by="age", keep_per_type=keep, **limits) == tuple(
            entry.id for entry in gone
        )  # type: ignore[arg-type]
        for entry in gone:
            self.model.delete(entry)

    def _evict_otherwise(self, draw: random.Random) -> None:
        """By what the model does not know: who goes is the memory's choice, how many is not."""
        before, keep = self.model.alive, draw.choice([0, 2])
        capacity = draw.randrange(len(before) + 2)
        ids = self.memory.evict(
            capacity=capacity, by=draw.choice(POLICIES), keep_per_type=keep, seed=draw.randrange(9)
        )
        entries = [self.model.find(name) for name in ids]
        for entry in entries:
            assert entry is not None
            assert entry.deleted is None
            self.model.delete(entry)
        had, left = (
            Counter(entry.episode.task.type for entry in some if entry.episode.success)
            for some in (before, self.model.alive)
        )
        assert all(left[kind] >= min(keep, had[kind]) for kind in had)
        spared = all(
            e.episode.success and left[e.episode.task.type] <= keep for e in self.model.alive
        )
        assert len(self.model.alive) == min(capacity, len(before)) or (
            len(self.model.alive) > capacity and spared
        )

    def _compact(self, draw: random.Random) -> None:
        names = [entry.id for entry in self.model.alive]
        worth = {name: self.memory.usefulness(name) for name in names}
        done = self.memory.compact()
        assert done.episodes == self.model.compact()
        if done.records:
            assert done.after == sum(
                path.stat().st_size for path in (self.folder / "log").glob("*.log")
            )
        for name in names:
            # What was learnt from runs stays when these are gone.
            assert self.memory.usefulness(name).value == pytest.approx(worth[name].value, abs=1e-9)
        self._check(self.memory, draw, looks=40)

    def _reopen(self, draw: random.Random) -> None:
        self.memory.close()
        if draw.random() < 0.5:
            with Memory(self.folder, "r", embedder=self.embedder, index=SMALL) as memory:
                self._check(memory, draw)
                self._judge(memory, draw)
        self.memory = Memory(self.folder, "w", embedder=self.embedder, index=SMALL)
        assert not self.memory.stats().damage
        self._check(self.memory, draw, looks=40)
        self._judge(self.memory, draw)

    def _lose_caches(self, draw: random.Random) -> None:
        self.close()
        self.reader = None
        delete_caches(self.folder)
        self._reopen(draw)

    def _follow(self, draw: random.Random) -> None:
        """A reader beside the writer looks for what is new."""
        if self.reader is None:
            self.reader = Memory(self.folder, "r", embedder=self.embedder, index=SMALL)
        else:
            # Of what it knows: not an error, whatever the writer did meanwhile.
            ask(self.reader, self._query(draw))
            self.reader.refresh()
        self._check(self.reader, draw)
        self._judge(self.reader, draw)
        if draw.random() < 0.2:
            self.reader.close()
            self.reader = None

    def _publish(self, draw: random.Random) -> None:
        rows = self.memory.publish_index()
        assert rows in (0, len(self.model.alive), len(self.model.entries))

    def _verify(self, draw: random.Random) -> None:
        assert self.memory.verify() == ()

    def _count(self, draw: random.Random) -> None:
        stats, tasks = self.memory.stats(), [entry.episode.task for entry in self.model.alive]
        assert (stats.entries, stats.deleted) == (len(tasks), len(self.model.entries) - len(tasks))
        assert stats.successes == sum(entry.episode.success for entry in self.model.alive)
        assert stats.by_type == Counter(task.type for task in tasks)
        assert stats.by_split == Counter(task.split for task in tasks)
        assert stats.by_policy == Counter(entry.episode.actor.policy for entry in self.model.alive)
        assert stats.notes >= sum(len(entry.notes) for entry in self.model.alive)
        assert (stats.position, stats.damage) == (self.model.position, ())

    def _refuse(self, draw: random.Random) -> None:
        """What must not work does not, and changes nothing."""
        size = sum(path.stat().st_size for path in (self.folder / "log").iterdir())
        for entry in draw.sample(self.model.entries, min(2, len(self.model.entries))):
            with pytest.raises(ValueError, match="already" if entry.deleted is None else "deleted"):
                self.memory.add_many([self._episode(draw), replace(entry.episode, started=1.0)])
            if entry.deleted is not None:
                with pytest.raises(KeyError, match="deleted"):
                    self.memory.rate(entry.id, "worth", 1.0)
        for change in (self.memory.delete, self.memory.restore):
            with pytest.raises(KeyError, match="there is no episode"):
                change("nobody")
        twice = self._episode(draw)
        with pytest.raises(ValueError, match="already"):
            self.memory.add_many([twice, replace(twice, started=2.0)])
        with pytest.raises(BlockingIOError):
            Memory(self.folder, "w", embedder=self.embedder, index=SMALL)
        if self.reader is not None:
            with pytest.raises(ValueError, match="reading"):
                self.reader.add(twice)
        with pytest.raises(ValueError, match="position"):
            ask(self.memory, self._query(draw), at=self.model.position + 1)
        assert sum(path.stat().st_size for path in (self.folder / "log").iterdir()) == size

    def _search(self, draw: random.Random) -> None:
        self._judge(self.memory, draw)

    # How answers are judged.

    def _judge(self, memory: Memory, draw: random.Random) -> None:
        """Search, and compare with the exact answer."""
        query, hide = self._query(draw), self._hide(draw)
        at = draw.choice([None, None, self.model.position, draw.randrange(self.model.position + 1)])
        if draw.random() < 0.3:
            query = self._with_least(draw, query, hide, at)
        hits = ask(memory, query, at, hide)
        given = [(hit.episode_id, hit.score) for hit in hits]
        for k in {draw.randrange(1, query.k + 1), query.k // 2}:
            fewer = [
                (hit.episode_id, hit.score) for hit in ask(memory, replace(query, k=k), at, hide)
            ]
            assert fewer == given[:k], (
                f"of {query.k} hits, {k} are others: {fewer} instead of {given[:k]}"
            )
        right = self.model.scores(query, hide, at)
        # An approximate answer may miss what is just close enough, and an empty one does not say
        # how it was found.
        complete = query.min_score is None
        exact = hits[0].explanation.exact if hits else complete
        if not query.ranked:
            self.answers.compare(given, right, query.k, exact=exact, complete=complete or exact)
            assert not self.answers.wrong, f"{self.answers.wrong}; {query}, {hide}, at {at}"
            return
        assert set(dict(given)) <= set(right), f"not to be shown: {set(dict(given)) - set(right)}"
        assert len({name for name, _ in given}) == len(given)
        assert len(given) == min(query.k, len(right)) or not (exact or complete)
        worth, position = dict(right), self.model.position if at is None else at
        for entry in self.model.entries:
            if entry.id in worth:
                rating = max(-1.0, min(1.0, entry.ratings(position).get("human", 0.0)))
                worth[entry.id] += query.ratings * rating
        for hit in hits:
            entry, why = self.model.find(hit.episode_id), hit.explanation
            assert entry is not None
            assert why.rating == pytest.approx(worth[entry.id] - right[entry.id], abs=1e-12)
            length = query.length_penalty * np.log2(max(1, len(entry.episode.steps)))
            assert (why.similarity, why.length) == pytest.approx(
                (right[hit.episode_id], length), abs=NEAR
            )
            if at in (None, self.model.position) and entry.deleted is None:
                value = query.usefulness * memory.usefulness(hit.episode_id).value
                assert why.usefulness == pytest.approx(value, abs=NEAR)
            worth[hit.episode_id] += why.usefulness - why.length
        if query.fields == ("goal",):
            # Of all, where they are so few that all were weighed; else of those that were found.
            everything = (
                len(right) <= LEAST_POOL
                and exact
                and not query.usefulness
                and not query.length_penalty
            )
            among = worth if everything else {hit.episode_id: worth[hit.episode_id] for hit in hits}
            vectors = {
                entry.id: entry.vectors["goal"][0]
                for entry in self.model.entries
                if entry.id in among
            }
            # Each place is taken from the closest eight times as many, and 32 at least.
            ranks = {
                h.episode_id: h.explanation.considered
                - h.explanation.held_out
                - h.explanation.filtered
                for h in hits
            }
            begins = {
                name: 0 if rank <= LEAST_POOL else -(-rank // POOL) - 1
                for name, rank in ranks.items()
            }
            turns = greedy(
                among, vectors, query.diversity, [hit.episode_id for hit in hits], begins
            )
            for hit, (score, best) in zip(hits, turns, strict=True):
                assert hit.score == pytest.approx(score, abs=NEAR), (query, given)
                assert score >= best - NEAR, (query, given)

    def _query(self, draw: random.Random) -> Query:
        options: dict[str, Any] = {
            "k": draw.choice([1, 2, 5, 5, 10, 10, LONGEST, draw.randrange(1, LONGEST)])
        }
        if len(self.fields) > 1 and draw.random() < 0.6:
            options["fields"] = draw.choice([self.fields, self.fields[1:]])
        if draw.random() < 0.2:
            options["successes_only"] = True
        if draw.random() < 0.2:
            options["only"] = draw.choice(
                [{"type": ["type-1"]}, {"split": ["train"], "policy": ["expert", "none"]}]
            )
        if draw.random() < 0.2:
            some = draw.sample(self.model.entries, min(5, len(self.model.entries)))
            options["exclude"] = frozenset(["nobody", *(entry.id for entry in some)])
        for name, values in {
            "diversity": (0.2, 0.7),
            "usefulness": (0.3,),
            "ratings": (0.4, -0.2),
            "length_penalty": (0.02,),
        }.items():
            if draw.random() < 0.12:
                options[name] = draw.choice(values)
        texts = [
            entry.episode.task.goal
            for entry in draw.sample(self.model.entries, min(1, len(self.model.entries)))
        ]
        texts += [
            clustered_goal(draw.randrange(10**6), draw.randrange(KINDS)),
            f"unheard{draw.random()}",
            "",
        ]
        return Query(draw.choice(texts), **options)

    def _with_least(self, draw: random.Random, query: Query, hide: Hide, at: int | None) -> Query:
        """A query with a least score, between two scores that are not equal for the memory."""
        scores = sorted(self.model.scores(query, hide, at).values())
        gaps = [(a + b) / 2 for a, b in itertools.pairwise(scores) if b - a > 4 * NEAR]
        return replace(query, min_score=draw.choice(gaps)) if gaps else query

    def _hide(self, draw: random.Random) -> Hide:
        if draw.random() < 0.4 or not self.model.entries:
            return Hide()
        task = draw.choice(self.model.entries).episode.task
        near = task.room, draw.choice([task.goal, task.goal.upper(), f" {task.goal}!"])
        return Hide(
            tasks=draw.choice([frozenset(), frozenset([task.identity])]),
            splits=draw.choice(
                [None, frozenset(["train"]), frozenset(["train", "valid"]), frozenset()]
            ),
            hidden_splits=draw.choice([frozenset(), frozenset(["test"])]),
            near=draw.choice([None, near]),
        )

    # What it is done with.

    def _one(self, draw: random.Random) -> Entry:
        return draw.choice(self.model.alive)

    def _new_id(self) -> str:
        self.count += 1
        return f"episode-{self.count}" if self.count % 10 else f"episode-{'x' * 60}-{self.count}"

    def _episode(self, draw: random.Random) -> Episode:
        name, number = self._new_id(), self.count
        kind = draw.randrange(KINDS)
        goal = clustered_goal(draw.choice([number, draw.randrange(20)]), kind)
        goal = draw.choice([goal, goal, goal.upper().replace("KIND", "kind")])
        others = (
            draw.sample(self.model.entries, min(2, len(self.model.entries)))
            if draw.random() < 0.2
            else []
        )
        shown = tuple(Retrieved(entry.id, 0.5) for entry in others)
        observed = f"kind{draw.randrange(KINDS)} view {number}"
        success = draw.random() < 0.6
        return Episode(
            name,
            Task(
                suite="suite",
                identity=f"task-{number if draw.random() < 0.8 else draw.randrange(20)}",
                type=f"type-{draw.randrange(3)}",
                split=draw.choice(_SPLITS),
                room=draw.choice(["", "room-1", "room-2", "room-3"]),
                seed=number,
                version="1",
                goal=goal,
            ),
            tuple(
                Step(observed, f"go {number} {i}", retrieved=shown if i == 0 else ())
                for i in range(draw.randrange(0, 5))
            ),
            "Done.",
            Outcome(
                success, float(success), StopReason.SOLVED if success else StopReason.STEP_LIMIT
            ),
            Actor(draw.choice(["expert", "local"])),
            ratings=draw.choice(_RATINGS),
            memory_position=0,  # all had a memory, so that compaction keeps what they taught
            started=float(number),
        )


def _what_was_done(episode: Episode) -> tuple[str, ...]:
    """Two episodes with the same are duplicates."""
    return episode.task.identity, *(step.action for step in episode.steps)
