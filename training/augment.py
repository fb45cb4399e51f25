"""More to learn from than what was lived: variations of successes, and what the model makes up.

*Variations.* A suite says what else an episode shows (:meth:`relive.envs.Suite.variations`): the
goal in other words, another goal that was reached as well, the way back. Each becomes an episode to
learn from, and is never stored: it was not lived.

*Paraphrases.* The model says goals in other words. No environment can check that; words are: what
the actions name must stay, and nothing that other episodes' actions name may come in.

*Proposals.* The model reads many episodes at once and goes on with one more, goal and actions, as
it would stand in its memory block. The suite is asked whether there is a train task with that goal
that these actions solve (:meth:`relive.envs.Suite.proposed`). What works is learnt from; the rest
is counted.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..agent.llm.local import LocalModel
from ..agent.llm.prose import continued
from ..agent.prompt import demonstration, system_text
from ..agent.runner import spec_of
from ..envs import Suite
from ..envs.base import Variation
from ..memory.episode import Episode, Outcome, Step, StopReason


@dataclass(frozen=True, slots=True)
class Augmented:
    """What was made of some episodes."""

    episodes: tuple[Episode, ...]
    """The variations. Each has the id and the task's identity of the episode that it was made of,
    so that retrieval keeps that one out of its context; goal and type are its own."""
    counts: Mapping[str, int]
    """Variations of each kind."""


def augment(
    suite: Suite,
    episodes: Sequence[Episode],
    kinds: Sequence[str],
    types: Sequence[str] = (),
    most: int = 1,
    seed: int = 0,
) -> Augmented:
    """Variations of episodes.

    Args:
        suite: in which they were lived.
        episodes: successes, say.
        kinds: of variations; those of `suite.variation_kinds`.
        types: task types that variations may be of; any if empty.
        most: variations of a kind that one episode gives at most.
        seed: decides which, where there are more.

    Raises:
        ValueError: the suite knows no such kind.
    """
    if unknown := set(kinds) - set(suite.variation_kinds):
        raise ValueError(
            f"suite {suite.name!r} knows no variations of kind {', '.join(sorted(unknown))}: it "
            f"has {', '.join(suite.variation_kinds) or 'none'}"
        )
    found: list[Episode] = []
    counts: Counter[str] = Counter()
    for episode in episodes:
        actions = [step.action for step in episode.steps if not step.invalid]
        for kind in kinds:
            some = [
                one
                for one in suite.variations(episode.task, actions, kind)
                if not types or one.type in types
            ]
            rng = random.Random(f"{seed}/{kind}/{episode.task.identity}")
            chosen = rng.sample(some, min(most, len(some)))
            found += [_episode(episode, one) for one in chosen]
            counts[kind] += len(chosen)
    return Augmented(tuple(found), dict(counts))


WORDINGS = """The same instruction in two wordings:

1. open the door and close the window = close the window after opening the door
2. bring a letter to the office = take some letter to the office
3. wash the car and drive it into the garage = put a washed car into the garage
4. {goal} ="""
"""What a model is asked to go on with. Its examples are of no world that the project knows."""


def paraphrase(
    model: LocalModel,
    episodes: Sequence[Episode],
    *,
    tries: int = 6,
    tokens: int = 32,
    temperature: float = 0.7,
    seed: int = 0,
) -> Augmented:
    """The same episodes, their goals as the model says them in other words.

    Args:
        model: who writes; it goes on with a list, so it need not follow instructions.
        episodes: successes, say.
        tries: of each goal, until one can be used.
        tokens: of a try at most.
        temperature, seed: of what is drawn.

    Returns:
        One episode at most for each. Counts: ``paraphrases`` (goals), and tries that were of no
        use: ``as it was``, ``too long`` (more than twice as many words), ``loses a word`` (of the
        goal, that the actions name), ``adds a word`` (that the actions of others name).
    """
    acted = [_words(" ".join(step.action for step in episode.steps)) for episode in episodes]
    often = Counter(word for words in acted for word in set(words))
    # What stands in most episodes (go, to, take) says nothing about one.
    names = {word for word, count in often.items() if 2 * count <= len(acted)}
    found: list[Episode] = []
    counts: Counter[str] = Counter({"paraphrases": 0})
    for episode, done in zip(episodes, acted, strict=True):
        goal = episode.task.goal
        kept = set(_words(goal)) & set(done)
        rng = random.Random(f"paraphrase/{seed}/{episode.task.identity}")
        for _ in range(tries):
            text = continued(
                model, WORDINGS.format(goal=goal), tokens=tokens, temperature=temperature,
                seed=rng.getrandbits(31),
            )  # fmt: skip
            said = text.strip().split("\n")[0].split(" = ")[0].strip().removesuffix(".")
            words = _words(said)
            if len(words) > 2 * len(_words(goal)):
                counts["too long"] += 1
            elif not words or words == _words(goal):
                counts["as it was"] += 1
            elif kept - set(words):
                counts["loses a word"] += 1
            elif (set(words) - set(_words(goal))) & names:
                counts["adds a word"] += 1
            else:
                counts["paraphrases"] += 1
                found.append(_reworded(episode, said))
                break
    return Augmented(tuple(found), dict(counts))


def _reworded(episode: Episode, goal: str) -> Episode:
    """The episode with another goal, which its opening may say as well."""
    first, *steps = episode.steps
    opening = replace(first, observation=first.observation.replace(episode.task.goal, goal))
    return replace(
        episode, task=replace(episode.task, goal=goal), steps=(opening, *steps)
    )  # fmt: skip


def _words(text: str) -> list[str]:
    """The words of a text, without the ending of regular plurals."""
    return [re.sub(r"(?<=\w\w[^s\W])s$", "", word) for word in re.findall(r"\w+", text.casefold())]


def propose(
    model: LocalModel,
    suite: Suite,
    episodes: Sequence[Episode],
    count: int,
    types: Sequence[str] = (),
    *,
    shown: int = 8,
    tokens: int = 240,
    temperature: float = 0.7,
    seed: int = 0,
) -> Augmented:
    """Episodes that a model makes up from others, those that work.

    Args:
        model: who proposes; it acts as it is, with an adapter or without.
        suite: whose tasks.
        episodes: what it is shown, `shown` of them at a time.
        count: proposals.
        types: task types that may be learnt from; any if empty.
        tokens: of a proposal at most.
        temperature, seed: of what is drawn.

    Returns:
        Those that work, each goal with the same actions once. Counts: ``works``, ``copied`` (from
        what it was shown), ``again`` (made up before), ``other type``, ``does not work``, ``says
        nothing``.

    Raises:
        ValueError: there are no episodes, or the model has no room for so many.
    """
    if not episodes:
        raise ValueError("there are no episodes to make others up from")
    spec = spec_of(suite, model)
    found: dict[tuple[str, tuple[str, ...]], Episode] = {}
    counts: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(f"propose/{seed}/{number}")
        some = rng.sample(list(episodes), min(shown, len(episodes)))
        demos = [demonstration(spec, one) for one in some]
        head = "Success. Task:" if spec.goal_form == "instruction" else "Success. Your task is to:"
        text = continued(
            model, f"{system_text(spec, demos)}\n\n{head}", tokens=tokens,
            temperature=temperature, seed=rng.getrandbits(31),
        )  # fmt: skip
        goal, actions = _read(text)
        if not goal or not actions:
            counts["says nothing"] += 1
            continue
        if (goal, actions) in [(e.task.goal, [s.action for s in e.steps]) for e in some]:
            counts["copied"] += 1
            continue
        made = suite.proposed(goal, actions, number)
        if made is None:
            counts["does not work"] += 1
        elif types and made.type not in types:
            counts["other type"] += 1
        elif (goal, tuple(actions)) in found:
            counts["again"] += 1
        else:
            counts["works"] += 1
            base = some[0]
            task = replace(base.task, identity=f"proposed/{seed}/{number}", room="", seed=number)
            found[goal, tuple(actions)] = _episode(
                replace(base, id=f"proposed-{seed}-{number}", task=task), made
            )
    return Augmented(tuple(found.values()), dict(counts))


def _read(text: str) -> tuple[str, list[str]]:
    """Goal and actions of an episode as a memory block has it; of what is cut off, nothing."""
    block = text.split("\n\n", 1)[0]
    goal, *lines = block.split("\n")
    actions = [line.removeprefix("Action: ") for line in lines if line.startswith("Action: ")]
    return goal.strip().removesuffix("."), [action.strip() for action in actions]


def _episode(episode: Episode, variation: Variation) -> Episode:
    """The variation as if it had been lived."""
    seen = [variation.opening, *(observation for _, observation in variation.steps)]
    steps = tuple(
        Step(observation, action)
        for observation, (action, _) in zip(seen, variation.steps, strict=False)
    )
    return replace(
        episode,
        task=replace(episode.task, goal=variation.goal, type=variation.type),
        steps=steps,
        final_observation=seen[-1],
        outcome=Outcome(True, 1.0, StopReason.SOLVED),
    )
