"""Fine-tuning on remembered episodes: the one function that the cycle and the experiments share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.events import OnEvent, Phase, TrainingStep, ignore
from ..agent.llm.local import LocalModel
from ..agent.llm.manifest import AdapterManifest
from ..agent.prompt import PromptSpec
from ..agent.retriever import MemoryRetriever
from ..agent.runner import spec_of
from ..agent.settings import as_stored
from ..envs import Suite
from ..memory import Memory, Purpose
from ..memory.episode import Episode
from .augment import augment
from .examples import ContextRates, Example, build_examples
from .lora import LoraSettings, train_adapter
from .select import of_suite, select, tasks_of, why_nothing

if TYPE_CHECKING:
    from .learn import LearnSettings


def tune(
    model: LocalModel,
    episodes: Mapping[PromptSpec, Sequence[Episode]],
    retrieval: Callable[[PromptSpec], MemoryRetriever],
    rates: ContextRates,
    lora: LoraSettings,
    out: Path,
    *,
    version: str = "",
    base_model: str = "",
    parent: str = "",
    seed: int | None = None,
    rehearsal: Iterator[Example] | None = None,
    extra: Mapping[str, Any] | None = None,
    report: Callable[[int, float], object] | None = None,
    checkpoint: Callable[[int, Any], object] | None = None,
    start: Path | None = None,
) -> AdapterManifest:
    """Trains an adapter on episodes, each under the context that retrieval would have given it.

    Args:
        model: whose bare weights the adapter is for.
        episodes: what to learn from, by the prompt of their suite.
        retrieval: for the purpose of training, under each of these prompts.
        rates: how often the context is something else.
        lora: how.
        out: folder of the adapter.
        version: its name, by default that of the folder.
        base_model: what to call the model, by default as it was loaded.
        parent: version that acted before.
        seed: decides the contexts; by default that of the training.
        rehearsal, report, checkpoint, start: see :func:`relive.training.lora.train_adapter`.
        extra: what else the manifest is to say.

    Raises:
        ValueError, FileExistsError: as :func:`relive.training.lora.train_adapter`.
    """
    examples: list[Example] = []
    asked: MemoryRetriever | None = None
    for spec, some in episodes.items():
        asked = retrieval(spec)
        examples += build_examples(some, asked, rates, lora.seed if seed is None else seed)
    learnt = [episode for some in episodes.values() for episode in some]
    manifest = AdapterManifest(
        version=version or out.name,
        parent=parent,
        base_model=base_model or model.model_name,
        base_sha256=model.base_sha256,
        memory_position=asked.position if asked else None,
        context=as_stored(rates),
        retrieval=as_stored(asked.settings) if asked else {},
        tasks=tuple(tasks_of(learnt)),
        episodes=tuple(episode.id for episode in learnt),
        extra=extra or {},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    return train_adapter(
        model, examples, lora, out, manifest,
        rehearsal=rehearsal, report=report, checkpoint=checkpoint, start=start,
    )  # fmt: skip


class NothingToLearnError(LookupError):
    """A memory holds no episode that qualifies for fine-tuning."""


def train_on_memory(
    settings: "LearnSettings",
    suite: Suite,
    model: LocalModel,
    memory: Memory,
    out: Path,
    *,
    parent: str = "",
    on_event: OnEvent = ignore,
    rehearsal: Callable[[int], Iterator[Example]] | None = None,
) -> AdapterManifest:
    """Fine-tunes one adapter on the successes in a memory, each under its retrieved context.

    Args:
        settings: what is selected, how contexts are made, how it is trained.
        suite: whose prompt.
        model: whose bare weights.
        memory: what to learn from, as it is now.
        out: folder of the adapter; must not exist.
        parent: version that acted before.
        on_event: told about progress.
        rehearsal: see :class:`relive.training.learn.Learner`.

    Raises:
        NothingToLearnError: nothing in the memory qualifies.
        FileExistsError: the adapter exists.
    """
    position = memory.position
    chosen = of_suite(settings.select, suite)
    # Other suites have other commands; across is for those that are one world under two names.
    within = "" if settings.retrieval.across else suite.name
    episodes = select(memory, chosen, position, within)
    if not episodes:
        raise NothingToLearnError(
            f"there is nothing to fine-tune on: {memory.path} holds "
            f"{why_nothing(memory, chosen, position, within)}"
        )
    on_event(Phase(f"fine-tuning {out.name} on {len(episodes)} successes"))
    lora = settings.lora.resolved(rehearsal is not None)
    now = (suite.name, suite.version)  # what others were like cannot be laid out anew
    own = [one for one in episodes if (one.task.suite, one.task.version) == now]
    more = augment(suite, own, chosen.variations, chosen.types, seed=lora.seed)
    return tune(
        model,
        {spec_of(suite, model): [*episodes, *more.episodes]},
        lambda spec: MemoryRetriever(
            memory, spec, model.count_tokens, settings.retrieval, Purpose.TRAIN, position
        ),
        settings.context,
        lora,
        out,
        parent=parent,
        extra={"variations": dict(more.counts)} if more.counts else None,
        rehearsal=rehearsal(lora.seed) if rehearsal else None,
        report=lambda step, loss: on_event(TrainingStep(step, lora.steps, loss)),
    )
