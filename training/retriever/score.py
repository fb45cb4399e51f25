"""How much the policy is helped by each of a sample of candidates."""

import random
from dataclasses import replace

from ...agent.events import OnEvent, Phase, TrainingStep, ignore
from ...agent.llm.local import LocalModel
from ...agent.prompt import condense, demonstration, fit
from ...agent.retriever import MemoryRetriever, RetrievedContext
from ...agent.runner import spec_of
from ...envs import Suite
from ...memory import Memory, Purpose, Retrieval
from ...memory.episode import Episode
from ..batches import encode_example
from ..examples import example
from ..select import SelectSettings, select
from ..teacher_forced import mean_losses
from .settings import RetrieverSettings, ScoredQuery


def score_candidates(
    model: LocalModel, memory: Memory, suite: Suite, retrieval: Retrieval,
    settings: RetrieverSettings, on_event: OnEvent = ignore,
) -> list[ScoredQuery]:  # fmt: skip
    """Asks the policy how much each of a sample of candidates helps with each of the memory's own
    successes. What retrieval must not show for training (the task itself, its near-duplicates) is
    no candidate.

    Raises:
        ValueError: dynamic retrieval, or fewer than two queries with two candidates each.
    """
    if retrieval.query == "dynamic" or retrieval.refresh_after:
        raise ValueError(
            "a retriever is tuned for one question per episode: use retrieval.query 'static' and "
            "retrieval.refresh_after 0"
        )
    position, spec = memory.position, spec_of(suite, model)
    everyone = tuple(sorted({entry.policy for entry in memory.entries(at=position)}))
    within = "" if retrieval.across else suite.name
    found = select(memory, SelectSettings(policies=everyone), position, within)
    rng = random.Random(f"{settings.seed}/queries")
    chosen = [episode for episode in found if episode.steps]
    if settings.queries and len(chosen) > settings.queries:
        chosen = rng.sample(chosen, settings.queries)
    asked = MemoryRetriever(memory, spec, model.count_tokens, retrieval, Purpose.TRAIN, position)
    on_event(Phase(f"scoring {settings.candidates} candidates of {len(chosen)} successes"))
    scored: list[ScoredQuery] = []
    for number, episode in enumerate(chosen, 1):
        texts, sequences = [], []
        for other in _candidates(asked, episode, settings):
            shown = fit(
                [demonstration(spec, other, reword=retrieval.translate)],
                retrieval.max_tokens, model.count_tokens, 1,
                shorten=retrieval.long == "shorten",
            )  # fmt: skip
            encoded = encode_example(model.encoder, example(spec, episode, RetrievedContext(shown)))
            if shown and encoded and max(len(one.ids) for one in encoded) <= model.context:
                texts.append(_key(asked, other))
                sequences.append(encoded)
        if len(texts) > 1:
            told = [(step.action, "") for step in episode.steps if step.action]
            actions = ". ".join(action for action, _ in condense(spec, told))
            losses = mean_losses(model.model, sequences)
            scored.append(
                ScoredQuery(
                    episode.task.identity, episode.task.room or episode.task.identity,
                    _key(asked, episode), actions, tuple(texts), tuple(-loss for loss in losses),
                )
            )  # fmt: skip
        on_event(TrainingStep(number, len(chosen), 0.0))
    if len({query.group for query in scored}) < 2:
        raise ValueError(
            f"{memory.path} holds {len(scored)} successes at train tasks of {suite.name} that can "
            "be asked with, in fewer than two rooms: a retriever needs more to be tuned and "
            "measured (relive run adds some)"
        )
    return scored


def _candidates(
    asked: MemoryRetriever, episode: Episode, settings: RetrieverSettings
) -> list[Episode]:
    """Other successes: the closest ones, and some that were drawn."""
    task, memory = episode.task, asked.memory
    text = asked.asked(task, (), episode.observations[0])
    query = asked.query(task, text, frozenset({episode.id}))
    query = replace(query, successes_only=True, min_score=None)
    holdout, count = asked.holdout(task), settings.candidates
    near = round(settings.near * count)
    hits = memory.search(replace(query, k=near), holdout, at=asked.position) if near else []
    seed = random.Random(f"{settings.seed}/{task.identity}").getrandbits(32)
    drawn = memory.draw(query, count, seed, holdout, asked.position)
    # Drawn ones come ordered by similarity: cut as they are, the far ones would be left out.
    others = random.Random(seed).sample(drawn, len(drawn))
    names = dict.fromkeys([*(hit.episode_id for hit in hits), *(name for name, _ in others)])
    return [memory.get(name, asked.position) for name in list(names)[:count]]


def _key(asked: MemoryRetriever, episode: Episode) -> str:
    """What an episode is found by, and would be asked with."""
    return asked.asked(episode.task, (), episode.observations[0])
