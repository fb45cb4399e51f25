"""Episodes, to bytes and back.

Whatever is encoded is validated first (:mod:`relive.memory.storage.validate`), so that what was
written can be read again.

An episode is two msgpack objects one after the other: the *head* (a map with everything but the
steps) and the *steps* (an array of maps). Whoever only needs to know what an episode is about reads
the head and stops.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...task import Task
from ..episode import Actor, Episode, Outcome, Retrieved, Step, StopReason
from .payload import (
    MAX_ITEMS,
    VERSION,
    CodecError,
    Fields,
    anything,
    boolean,
    count,
    integer,
    integers,
    kind_of,
    next_object,
    number,
    numbers,
    pack,
    settings,
    text,
    texts,
    unpacker_of,
    versioned,
    wrong,
)
from .validate import validated


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
    """64-bit hash of all actions; duplicates, which are of one task, have the same one."""
    shown: tuple[str, ...]
    """Ids of the episodes that were in its context, each once."""
    memory_position: int
    """Log position of the memory that was read; -1 when none was."""
    ratings: Mapping[str, float]
    """Those that the episode itself holds; not those given since."""


def digest(text: str) -> int:
    """64-bit hash of a text; the same on every machine."""
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


def actions_digest(episode: Episode) -> int:
    """64-bit hash of all actions of an episode, in order; not of where one ends and the next
    begins."""
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
        ratings=episode.ratings,
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
        ValueError: the same, or the episode is larger than a payload may be, or a list or map
            in it longer (:mod:`relive.memory.storage.payload`): nobody could read it again.
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
            **({"payload": task.payload} if task.payload else {}),
        },
        "outcome": {
            "success": outcome.success,
            "score": outcome.score,
            "reason": str(outcome.reason),
            "detail": outcome.detail,
            **({"best": outcome.best} if outcome.best else {}),
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
        **({"usage": episode.usage} if episode.usage else {}),
    }
    lists = [episode.steps, known.shown, actor.settings, episode.timings, episode.ratings]
    lists.append(episode.usage)
    lists += [step.tokens for step in episode.steps if step.tokens]
    lists += [step.retrieved for step in episode.steps if step.retrieved]
    longest = max(map(len, lists))
    if longest > MAX_ITEMS:
        raise ValueError(
            f"episode {episode.id!r} cannot be stored: {longest} items in a list; the limit is "
            f"{MAX_ITEMS}"
        )
    return pack(head, f"episode {episode.id!r}", [_step_map(step) for step in episode.steps])


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
        ratings=head.ratings,
        usage=fields.get("usage", numbers, {}),
    )


def _parts(payload: bytes) -> tuple[Fields, Head, list[Any]]:
    """The fields of the head, what they say, and as many steps as they announce, which are not
    looked at."""
    unpacker = unpacker_of(payload)
    fields = _head_fields(unpacker)
    head = _head(fields)
    steps = next_object(unpacker, "the steps")
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
    for name in ("timings", "usage"):
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
    fields = _head_fields(unpacker_of(payload))
    head = _head(fields)
    if fields.get("actions", integer, -1) < 0:
        episode = decode_episode(payload)
        return replace(head, actions=actions_digest(episode), shown=shown_in(episode))
    return head


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
    if step.said:
        fields["said"] = step.said
    return fields


def _head_fields(unpacker: Any) -> Fields:
    return versioned(next_object(unpacker, "the head"), "an episode")


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
            payload=task.text("payload", ""),
        ),
        outcome=Outcome(
            success=outcome.get("success", boolean),
            score=outcome.get("score", number),
            reason=reason,
            detail=outcome.text("detail", ""),
            best=outcome.get("best", number, 0.0),
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
        ratings=fields.get("ratings", numbers, {}),
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
        said=fields.text("said", ""),
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
