"""One episode, from the first observation to the record of it.

`run_episode` is a generator: it yields what it needs (a reset, an action, a step) and is sent the
answer, so that one screen of code serves one episode in a plain `for` loop as well as hundreds in
an event-driven batch. A failed episode is data: errors of the environment and of the policy are
thrown into the generator and end up in the outcome.
"""

import hashlib
import math
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from numbers import Real
from typing import Any

import numpy as np

from ..envs import EnvironmentFailure, Reply, Task
from ..memory.episode import Actor, Episode, Outcome, Step, StopReason
from .conversation import ADMISSIBLE, Action, Asked, StopRun, Usage, without_oldest
from .prompt import PromptSpec, begin, extend
from .retriever import RetrievedContext, Retriever


@dataclass(frozen=True, slots=True)
class NeedReset:
    """The environment is to start this task. Answer: a `Reply`."""

    task: Task


@dataclass(frozen=True, slots=True)
class NeedStep:
    """The environment is to do this. Answer: a `Reply`."""

    action: str


class PolicyFailure(RuntimeError):
    """The policy could not act.

    Args:
        message: what happened.
        overflow: the conversation no longer fits into the model's context; a shorter one might.
    """

    def __init__(self, message: str, overflow: bool = False) -> None:
        super().__init__(message)
        self.overflow = overflow


Need = NeedReset | Asked | NeedStep
EpisodeRun = Generator[Need, Any, Episode]
Success = Callable[[Reply], bool | None]
"""Whether the goal is reached, by the environment's last answer; None where nobody knows. It is
asked after each step, and True ends the episode."""


def draw_seed(run_seed: int, identity: str, step: int) -> int:
    """A seed that depends on the run, the task and the step, never on the order of arrival."""
    digest = hashlib.blake2b(f"{run_seed}/{identity}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SuccessUnknownError(ValueError):
    """An environment ended an episode and nobody says whether the goal was reached.

    Args:
        episode: as far as it is known, recorded as an error of the environment.
    """

    def __init__(self, episode: Episode) -> None:
        super().__init__(episode)
        self.episode = episode

    def __str__(self) -> str:
        return self.episode.outcome.detail


def stated_success(reply: Reply) -> bool | None:
    """What the environment says about its goal: ``info["success"]``, or else ``info["won"]``; None
    where it has neither, or something that is neither true nor false."""
    name = _stated_by(reply)
    return _truth(reply.info[name]) if name else None


def _stated_by(reply: Reply) -> str:
    """By which value of its info an environment speaks about its goal; empty where by none."""
    names = (name for name in ("success", "won") if reply.info.get(name) is not None)
    return next(names, "")


def _truth(value: object) -> bool | None:
    """What is true or false, 1 and 0 included; None for anything else."""
    return bool(value) if isinstance(value, Real | np.bool_) and value in (0, 1) else None


def _judged(success: Success, reply: Reply) -> tuple[bool | None, str]:
    """Whether the goal is reached, and what is wrong with what was answered to that."""
    try:
        said: object = success(reply)
    except StopRun:
        raise
    except Exception as error:  # a function of the user's: it costs this episode
        return None, f"success= raised {type(error).__name__}: {error}"
    if said is None or (known := _truth(said)) is not None:
        return (None if said is None else known), ""
    return None, f"success= must return True, False or None, not {said!r:.80}"


def stated_score(reply: Reply) -> float:
    """Progress in [-1, 1], 1 for success alone: ``info["score"]``, as a share of
    ``info["max_score"]`` where that is stated. 0 for anything else: such games give points, and
    nobody knows of how many."""
    score, most = reply.info.get("score"), reply.info.get("max_score")
    if score is None:
        return 0.0
    if isinstance(score, Real) and not isinstance(score, bool) and math.isfinite(float(score)):
        if isinstance(most, Real) and float(most) > 0:
            return max(-1.0, min(1.0, float(score) / float(most)))
        if -1 <= float(score) <= 1:
            return float(score)
    warnings.warn(
        f"the environment's info['score'] is {score!r}, and info['max_score'] {most!r}: it counts "
        "as 0, since it is no share of anything (see relive.envs.steps)",
        stacklevel=2,
    )
    return 0.0


def _seen(reply: Reply, show_admissible: bool) -> str:
    """What the agent reads; only the plain observation is stored."""
    if not show_admissible or not reply.admissible:
        return reply.observation
    return f"{reply.observation}{ADMISSIBLE}{', '.join(reply.admissible)}"


def _refusals(steps: Sequence[Step]) -> int:
    """How many times the latest action was refused in a row."""
    again = takewhile(lambda s: s.invalid and s.action == steps[-1].action, reversed(steps))
    return sum(1 for _ in again)


_ALL_BUT = math.nextafter(1.0, 0.0)


def _unstated(success: Success, reply: Reply) -> str:
    """Why nobody knows how an episode ended, and what to do."""
    if success is not stated_success:
        return (
            "the episode ended, and success= returned None, which is for steps that say nothing: "
            "return True or False where reply.terminated is true"
        )
    name = _stated_by(reply)
    what = (
        f"info[{name!r}] is {reply.info[name]!r:.80}, neither True nor False"
        if name
        else "the environment did not say whether the goal was reached"
    )
    return (
        f"the episode ended and {what}: set info['success'] (see relive.envs.steps.termination), "
        "or pass success=, a function of the last reply that is asked after each step, for example "
        "success=lambda reply: reply.terminated and reply.reward > 0"
    )


def run_episode(
    task: Task,
    spec: PromptSpec,
    actor: Actor,
    retriever: Retriever | None,
    max_steps: int,
    run_seed: int = 0,
    success: Success = stated_success,
    show_admissible: bool = False,
    give_up_after: int = 0,
) -> EpisodeRun:
    """Runs one episode and returns it.

    Args:
        task: what to do; the environment may fill in its goal.
        spec: the suite's part of the prompt.
        actor: who acts, for the record.
        retriever: what past episodes to show; None for none.
        max_steps: actions at most.
        run_seed: base of all random numbers.
        success: whether the goal is reached, by the environment's answer; None for unknown. It is
            asked after each step, and True ends the episode. An exception, or an answer of another
            kind, ends it as an error of the environment.
        show_admissible: list the commands that would be accepted below every observation; they are
            not stored.
        give_up_after: end the episode when the same action was refused so many times in a row; 0
            never does.

    Yields:
        `NeedReset` once, then `Asked` and `NeedStep` in turn. `EnvironmentFailure` and
        `PolicyFailure` may be thrown in. A conversation that outgrew the model's context is asked
        again without its older half (:func:`relive.agent.conversation.without_oldest`).

    Raises:
        SuccessUnknownError: the environment ended the episode, and `success` does not know.
    """
    # One episode reads the memory at one position.
    retriever = retriever.frozen() if retriever else None
    unknown = False
    opening = ""
    began, started = time.time(), time.monotonic()
    spent = {"policy": 0.0, "environment": 0.0, "retrieval": 0.0}
    steps: list[Step] = []
    used: Usage | None = None
    observation, outcome = "", Outcome(False, 0.0, StopReason.STEP_LIMIT)
    best, dropped, cut = 0.0, 0, 0

    def lap(part: str, since: float) -> None:
        spent[part] += time.monotonic() - since

    def ask(history: Sequence[tuple[str, str]]) -> RetrievedContext:
        now = time.monotonic()
        try:
            return retriever(task, history, opening=opening) if retriever else RetrievedContext()
        except StopRun:
            raise
        except Exception as error:  # whatever a text, a counter or an embedder brings about
            raise PolicyFailure(f"retrieval failed: {type(error).__name__}: {error}") from error
        finally:
            lap("retrieval", now)

    try:
        now = time.monotonic()
        reply: Reply = yield NeedReset(task)
        spent["environment"] += reply.seconds
        observation = reply.observation
        opening = _seen(reply, show_admissible)
        best = min(_ALL_BUT, max(0.0, stated_score(reply)))
        told = reply.info.get("task")
        task = told if isinstance(told, Task) else task
        context = ask(())
        conversation = begin(spec, opening, context.demonstrations)
        for index in range(max_steps):
            if give_up_after and _refusals(steps) >= give_up_after:
                outcome = Outcome(False, outcome.score, StopReason.STUCK)
                break
            asks = retriever is not None and retriever.due(index)
            if index and asks:
                seen = [step.observation for step in steps[1:]] + [observation]
                context = ask([(s.action, after) for s, after in zip(steps, seen, strict=True)])
                conversation = (
                    begin(spec, conversation[1].text, context.demonstrations) + conversation[2:]
                )
            seed = draw_seed(run_seed, task.identity, index)
            now = time.monotonic()
            while True:
                try:
                    action: Action = yield Asked(
                        conversation, seed, task, reply.admissible,
                        tuple(demo.episode for demo in context.demonstrations),
                    )  # fmt: skip
                    break
                except PolicyFailure as failure:
                    shorter = without_oldest(conversation, opening, dropped)
                    if not failure.overflow or shorter is None:
                        raise
                    conversation, dropped = shorter
            lap("policy", now)
            if action.usage:
                used = (used or Usage()) + action.usage
            cut += action.cut
            if action.problem:  # nothing that the environment could do: the model is told so
                reply = Reply(
                    action.problem, 0.0, False, False, {"invalid": True}, 0.0, reply.admissible
                )
            else:
                reply = yield NeedStep(action.text)
                spent["environment"] += reply.seconds
            shown = context.retrieved if asks else ()
            invalid = bool(reply.info.get("invalid", False))
            steps.append(
                Step(
                    observation,
                    action.text,
                    reply.reward,
                    invalid,
                    action.tokens,
                    shown,
                    action.reasoning,
                    action.said,
                )
            )
            observation = reply.observation
            conversation = extend(conversation, action, _seen(reply, show_admissible))
            if action.problem:
                continue
            score = stated_score(reply)
            succeeded, wrong = _judged(success, reply)
            if not succeeded:  # all the points there are, and yet not what was asked for
                score = min(score, _ALL_BUT)
            best = max(best, score)
            outcome = Outcome(False, score, StopReason.STEP_LIMIT)
            if wrong:
                outcome = Outcome(False, score, StopReason.ENVIRONMENT_ERROR, wrong)
                break
            if succeeded:
                outcome = Outcome(True, 1.0, StopReason.SOLVED)
                break
            if reply.terminated and succeeded is None:
                outcome = Outcome(
                    False, score, StopReason.ENVIRONMENT_ERROR, _unstated(success, reply)
                )
                unknown = True
                break
            if reply.terminated:
                outcome = Outcome(False, score, StopReason.FAILED)
                break
            if reply.truncated:  # a limit of the environment's own
                break
    except EnvironmentFailure as error:
        outcome = Outcome(False, outcome.score, StopReason.ENVIRONMENT_ERROR, str(error))
    except PolicyFailure as error:
        outcome = Outcome(False, outcome.score, StopReason.POLICY_ERROR, str(error))
    spent["total"] = time.monotonic() - started
    outcome = replace(outcome, best=max(best, outcome.score))
    usage: dict[str, float] = asdict(used) if used else {}
    if dropped:
        usage["dropped"] = dropped
    if cut:
        usage["cut"] = cut
    episode = Episode(
        id=uuid.uuid4().hex[:16],
        task=task,
        steps=tuple(steps),
        final_observation=observation,
        outcome=outcome,
        actor=actor,
        memory_position=retriever.position if retriever else -1,
        started=began,
        timings=spent,
        usage=usage,
    )
    if unknown:
        raise SuccessUnknownError(episode)
    return episode
