"""Episodes and what is said about them, to bytes and back. The only door to msgpack.

Whatever is encoded is validated first (:mod:`relive.memory.storage.validate`), so that what was
written can be read again.

An episode is two msgpack objects one after the other: the *head* (a map with everything but the
steps) and the *steps* (an array of maps). Whoever only needs to know what an episode is about reads
the head and stops.

Each payload carries an integer format version. Within a version fields are only ever added: a
reader skips names it does not know and fills in what is missing where the data class has a default.
Anything else needs a new version.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgpack  # type: ignore[import-untyped]

from ...task import Task
from ..episode import Actor, Episode, Outcome, Retrieved, Step, StopReason
from .fields import (
    CodecError,
    Fields,
    anything,
    boolean,
    count,
    integer,
    integers,
    kind_of,
    number,
    numbers,
    settings,
    text,
    texts,
    wrong,
)
from .validate import validated

VERSION = 1
"""Format version written by this code."""
SUPPORTED = (1,)
"""Format versions that this code reads."""
MAX_BYTES = 64 * 2**20
"""Longest payload written or read. An episode is a few kilobytes; this keeps a forged length from
taking all memory."""
MAX_ITEMS = 2**20
"""Longest array or map inside a payload."""


@dataclass(frozen=True, slots=True)
class Head:
    """What an episode is about, without its steps."""

    id: str
    task: Task
    outcome: Outcome
    actor: Actor
    step_count: int
    """Number of steps."""
    started: float
    """Unix time in seconds."""
    actions: int
    """64-bit hash of all actions; two episodes of one task with the same one are duplicates."""
    shown: tuple[str, ...]
    """Ids of the episodes that were in its context, each once."""
    memory_position: int
    """Log position of the memory that was read; -1 when none was."""


@dataclass(frozen=True, slots=True)
class Rating:
    """A number that someone gave to an episode afterwards."""

    episode: str
    """Id of the episode."""
    name: str
    """What was rated, for example ``human``."""
    value: float
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Note:
    """A remark about an episode."""

    episode: str
    """Id of the episode."""
    text: str
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """An episode that is not to be found any more."""

    episode: str
    """Id of the episode."""
    reason: str
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Credit:
    """How a run ended that had episodes in its context, or none: what usefulness is learned
    from."""

    shown: tuple[str, ...]
    """Ids of the episodes that were in context."""
    task: str
    """Identity of the task that was run."""
    type: str
    """Its type."""
    policy: str
    """Who ran it."""
    success: bool
    time: float
    """Unix time in seconds."""


def digest(text: str) -> int:
    """64-bit hash of a text; the same on every machine."""
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


def actions_digest(episode: Episode) -> int:
    """64-bit hash of all actions of an episode, in order."""
    return digest("\n".join(step.action for step in episode.steps))


def shown_in(episode: Episode) -> tuple[str, ...]:
    """Ids of the episodes that were in the context of any step, each once, in order of
    appearance."""
    return tuple(dict.fromkeys(hit.episode for step in episode.steps for hit in step.retrieved))


def head_of(episode: Episode) -> Head:
    """What :func:`decode_head` would find in the encoded episode, which is valid."""
    return Head(
        id=episode.id,
        task=episode.task,
        outcome=episode.outcome,
        actor=episode.actor,
        step_count=len(episode.steps),
        started=episode.started,
        actions=actions_digest(episode),
        shown=shown_in(episode),
        memory_position=episode.memory_position,
    )


def valid_episode(episode: object) -> Episode:
    """The episode with exactly the types that its fields declare.

    Raises:
        TypeError: a field holds something that cannot be stored; the message names it.
        ValueError: a number does not fit, or a reason is none.
    """
    return validated(Episode, episode, _name(episode), quick=False)


def _name(episode: object) -> str:
    known = getattr(episode, "id", None)
    return f"episode {known!r}" if isinstance(known, str) else "the episode"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An episode that can be stored."""

    episode: Episode
    """Exactly as it will be read again."""
    head: Head
    payload: bytes


def encode_episode(episode: Episode) -> bytes:
    """The episode as bytes; raises as :func:`prepare`."""
    return prepare(episode).payload


def prepare(episode: object) -> Prepared:
    """What is stored of an episode.

    Raises:
        TypeError: a field holds something that cannot be stored; the message names it.
        ValueError: the same, or the episode is larger than :data:`MAX_BYTES`, or a list or map in
            it longer than :data:`MAX_ITEMS` (nobody could read it again).
    """
    checked = validated(Episode, episode, _name(episode))
    head = head_of(checked)
    try:
        return Prepared(checked, head, _encode(checked, head))
    except OverflowError:
        valid_episode(episode)  # says which number does not fit
        raise


def _encode(episode: Episode, known: Head) -> bytes:
    task, outcome, actor = episode.task, episode.outcome, episode.actor
    head = {
        "v": VERSION,
        "id": episode.id,
        "task": {
            "suite": task.suite,
            "identity": task.identity,
            "type": task.type,
            "split": task.split,
            "room": task.room,
            "seed": task.seed,
            "version": task.version,
            "goal": task.goal,
        },
        "outcome": {
            "success": outcome.success,
            "score": outcome.score,
            "reason": str(outcome.reason),
            "detail": outcome.detail,
        },
        "actor": {
            "policy": actor.policy,
            "model": actor.model,
            "weights": actor.weights,
            "adapter": actor.adapter,
            "prompt": actor.prompt,
            "settings": actor.settings,
        },
        "steps": len(episode.steps),
        "final": episode.final_observation,
        "memory_position": episode.memory_position,
        "started": episode.started,
        "actions": known.actions,
        "shown": list(known.shown),
        "timings": episode.timings,
        "ratings": episode.ratings,
    }
    lists = [episode.steps, known.shown, actor.settings, episode.timings, episode.ratings]
    lists += [step.tokens for step in episode.steps if step.tokens]
    lists += [step.retrieved for step in episode.steps if step.retrieved]
    longest = max(map(len, lists))
    if longest > MAX_ITEMS:
        raise ValueError(
            f"episode {episode.id!r} cannot be stored: {longest} items in a list; the limit is "
            f"{MAX_ITEMS}"
        )
    return _pack(head, f"episode {episode.id!r}", [_step_map(step) for step in episode.steps])


def decode_episode(payload: bytes) -> Episode:
    """The episode in ``payload``.

    Raises:
        CodecError: not an episode, of an unsupported version, or larger than the limits.
    """
    fields, head, steps = _parts(payload)
    return Episode(
        id=head.id,
        task=head.task,
        steps=tuple(_step(Fields(step, "a step")) for step in steps),
        final_observation=fields.text("final"),
        outcome=head.outcome,
        actor=head.actor,
        memory_position=head.memory_position,
        started=fields.get("started", number, 0.0),
        timings=fields.get("timings", numbers, {}),
        ratings=fields.get("ratings", numbers, {}),
    )


def _parts(payload: bytes) -> tuple[Fields, Head, list[Any]]:
    """The fields of the head, what they say, and as many steps as they announce, which are not
    looked at."""
    unpacker = _unpacker(payload)
    fields = _head_fields(unpacker)
    head = _head(fields)
    steps = _next(unpacker, "the steps")
    if not isinstance(steps, list) or len(steps) != head.step_count:
        raise CodecError(
            f"not an episode: {head.step_count} steps announced, {kind_of(steps)} found"
        )
    if unpacker.tell() != len(payload):
        raise CodecError(f"not an episode: {len(payload) - unpacker.tell()} bytes too many")
    return fields, head, steps


def check_episode(payload: bytes) -> Head:
    """As :func:`decode_head`, of an episode that :func:`decode_episode` can read, too; in less time
    than that takes.

    Raises:
        CodecError: as :func:`decode_episode`.
    """
    fields, head, steps = _parts(payload)
    fields.text("final")
    nothing: Mapping[str, float] = {}
    for name in ("timings", "ratings"):
        fields.get(name, numbers, nothing)
    for step in steps:
        # The usual step is two texts. Every other one is read.
        usual = type(step) is dict and len(step) == 2
        if (
            not usual
            or type(step.get("observation")) is not str
            or type(step.get("action")) is not str
        ):
            _step(Fields(step, "a step"))
    return head if head.actions >= 0 else decode_head(payload)


def decode_head(payload: bytes) -> Head:
    """What the episode in ``payload`` is about; its steps are not looked at, unless it is of the
    time before heads held what follows from them.

    Raises:
        CodecError: as :func:`decode_episode`.
    """
    fields = _head_fields(_unpacker(payload))
    head = _head(fields)
    if fields.get("actions", integer, -1) < 0:
        episode = decode_episode(payload)
        return replace(head, actions=actions_digest(episode), shown=shown_in(episode))
    return head


def encode_rating(rating: Rating) -> bytes:
    """The rating as bytes; as all that follow, raises `TypeError` or `ValueError` for what cannot
    be stored."""
    rating = validated(Rating, rating, "a rating")
    fields = {"v": VERSION, "episode": rating.episode, "name": rating.name}
    return _pack({**fields, "value": rating.value, "time": rating.time}, "a rating")


def decode_rating(payload: bytes) -> Rating:
    """The rating in ``payload``; raises :class:`CodecError` as :func:`decode_episode`."""
    fields = _single(payload, "a rating")
    return Rating(
        fields.text("episode"),
        fields.text("name"),
        fields.get("value", number),
        fields.get("time", number, 0.0),
    )


def encode_note(note: Note) -> bytes:
    """The note as bytes."""
    note = validated(Note, note, "a note")
    return _pack(
        {"v": VERSION, "episode": note.episode, "text": note.text, "time": note.time}, "a note"
    )


def decode_note(payload: bytes) -> Note:
    """The note in ``payload``; raises :class:`CodecError` as :func:`decode_episode`."""
    fields = _single(payload, "a note")
    return Note(fields.text("episode"), fields.text("text"), fields.get("time", number, 0.0))


def encode_deletion(deletion: Deletion) -> bytes:
    """The deletion as bytes."""
    deletion = validated(Deletion, deletion, "a deletion")
    fields = {
        "v": VERSION,
        "episode": deletion.episode,
        "reason": deletion.reason,
        "time": deletion.time,
    }
    return _pack(fields, "a deletion")


def decode_deletion(payload: bytes) -> Deletion:
    """The deletion in ``payload``; raises :class:`CodecError` as :func:`decode_episode`."""
    fields = _single(payload, "a deletion")
    return Deletion(
        fields.text("episode"), fields.text("reason", ""), fields.get("time", number, 0.0)
    )


def encode_credit(credit: Credit) -> bytes:
    """The credit as bytes."""
    credit = validated(Credit, credit, "a credit")
    if len(credit.shown) > MAX_ITEMS:
        raise ValueError(
            f"a credit cannot be stored: {len(credit.shown)} items in a list; the limit is "
            f"{MAX_ITEMS}"
        )
    fields: dict[str, object] = {
        "v": VERSION,
        "shown": list(credit.shown),
        "task": credit.task,
        "type": credit.type,
    }
    fields["policy"] = credit.policy
    return _pack({**fields, "success": credit.success, "time": credit.time}, "a credit")


def decode_credit(payload: bytes) -> Credit:
    """The credit in ``payload``; raises :class:`CodecError` as :func:`decode_episode`."""
    fields = _single(payload, "a credit")
    return Credit(
        fields.get("shown", texts),
        fields.text("task"),
        fields.text("type", ""),
        fields.text("policy", ""),
        fields.get("success", boolean),
        fields.get("time", number, 0.0),
    )


def _pack(head: Mapping[str, object], what: str, *more: object) -> bytes:
    try:
        # surrogatepass: a model may sample half a character; that must not cost the episode.
        packed = b"".join(
            bytes(msgpack.packb(part, use_bin_type=True, unicode_errors="surrogatepass"))
            for part in (head, *more)
        )
    except ValueError as error:  # a text of gigabytes
        raise ValueError(f"{what} cannot be stored: {error}") from error
    if len(packed) > MAX_BYTES:
        raise ValueError(f"{what} takes {len(packed)} bytes; the limit is {MAX_BYTES}")
    return packed


def _step_map(step: Step) -> dict[str, object]:
    """Only what differs from the defaults: most steps are two strings."""
    fields: dict[str, object] = {"observation": step.observation, "action": step.action}
    if step.reward or math.copysign(1, step.reward) < 0:  # -0.0 is another number than 0.0
        fields["reward"] = step.reward
    if step.invalid:
        fields["invalid"] = True
    if step.tokens:
        fields["tokens"] = step.tokens
    if step.retrieved:
        fields["retrieved"] = [[hit.episode, hit.score] for hit in step.retrieved]
    if step.reasoning:
        fields["reasoning"] = step.reasoning
    return fields


def _unpacker(payload: bytes) -> Any:
    if len(payload) > MAX_BYTES:
        raise CodecError(f"the payload takes {len(payload)} bytes; the limit is {MAX_BYTES}")
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        unicode_errors="surrogatepass",
        max_buffer_size=MAX_BYTES,
        max_str_len=MAX_BYTES,
        max_bin_len=MAX_BYTES,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
        max_ext_len=0,
    )
    unpacker.feed(payload)
    return unpacker


def _next(unpacker: Any, what: str) -> object:
    try:
        return unpacker.unpack()
    except msgpack.OutOfData:
        raise CodecError(f"the payload ends before {what} does") from None
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise CodecError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


def _head_fields(unpacker: Any) -> Fields:
    return _versioned(_next(unpacker, "the head"), "an episode")


def _single(payload: bytes, what: str) -> Fields:
    return _versioned(_next(_unpacker(payload), what), what)


def _versioned(value: object, what: str) -> Fields:
    fields = Fields(value, what)
    version = fields.get("v", integer)
    if version not in SUPPORTED:
        raise CodecError(
            f"{what} of format version {version}; this program reads "
            f"{', '.join(map(str, SUPPORTED))}: "
            "a newer version of it wrote this, use that one"
        )
    return fields


def _head(fields: Fields) -> Head:
    task = Fields(fields.get("task", anything), "a task")
    outcome = Fields(fields.get("outcome", anything), "an outcome")
    actor = Fields(fields.get("actor", anything), "an actor")
    steps = fields.get("steps", count)
    if steps > MAX_ITEMS:
        raise CodecError(f"not an episode: {steps} steps announced; the limit is {MAX_ITEMS}")
    try:
        reason = StopReason(outcome.text("reason"))
    except ValueError as error:
        raise CodecError(f"not an outcome: {error}") from None
    return Head(
        id=fields.text("id"),
        task=Task(
            suite=task.text("suite"),
            identity=task.text("identity"),
            type=task.text("type"),
            split=task.text("split"),
            room=task.text("room"),
            seed=task.get("seed", integer),
            version=task.text("version"),
            goal=task.text("goal"),
        ),
        outcome=Outcome(
            success=outcome.get("success", boolean),
            score=outcome.get("score", number),
            reason=reason,
            detail=outcome.text("detail", ""),
        ),
        actor=Actor(
            policy=actor.text("policy"),
            model=actor.text("model", ""),
            weights=actor.text("weights", ""),
            adapter=actor.text("adapter", ""),
            prompt=actor.text("prompt", ""),
            settings=actor.get("settings", settings, {}),
        ),
        step_count=steps,
        started=fields.get("started", number, 0.0),
        actions=fields.get("actions", integer, -1),
        shown=fields.get("shown", texts, ()),
        memory_position=fields.get("memory_position", integer, -1),
    )


def _step(fields: Fields) -> Step:
    return Step(
        observation=fields.text("observation"),
        action=fields.text("action"),
        reward=fields.get("reward", number, 0.0),
        invalid=fields.get("invalid", boolean, False),
        tokens=fields.get("tokens", integers, ()),
        retrieved=fields.get("retrieved", _retrieved, ()),
        reasoning=fields.text("reasoning", ""),
    )


def _retrieved(value: object) -> tuple[Retrieved, ...]:
    if not isinstance(value, list):
        raise wrong(value, "a list of retrieved episodes")
    hits = []
    for item in value:
        # Fields that a later version appends to a pair are skipped, as in maps.
        if not isinstance(item, list) or len(item) < 2:
            raise wrong(item, "a list of pairs: one of them")
        hits.append(Retrieved(text(item[0]), number(item[1])))
    return tuple(hits)
