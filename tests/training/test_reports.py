"""Kinds of faults that others have reported of training, each tried here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from relive import Agent, LocalModel, Memory, Retrieval
from relive.agent.collect import collect_demonstrations
from relive.agent.llm.manifest import AdapterManifest
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import spec_of
from relive.envs import get_suite
from relive.memory import Purpose
from relive.training.examples import ContextRates, Example
from relive.training.lora import LoraSettings, train_adapter
from relive.training.pretraining import corpus
from relive.training.select import SelectSettings, select
from relive.training.tune import tune

SETTINGS = LoraSettings(steps=2, batch_examples=2, rehearsal=0.0, bf16=False)


def test_what_does_not_fit_is_counted_and_nothing_left_is_an_error(
    tiny_model: Path, tmp_path: Path
) -> None:
    """trl#3927, #6668: cut sequences without a target, loss 0.0, and a run that "succeeds"."""
    suite = get_suite("toy")
    with Memory(tmp_path / "memory") as memory:
        collect_demonstrations(memory, suite, 12)
        episodes = select(memory, SelectSettings(policies=("expert",)))

        def fine_tune(context: int, out: Path) -> AdapterManifest:
            model = LocalModel(tiny_model, context=context)
            shown = Retrieval(k=4, max_tokens=4000)
            return tune(
                model, {spec_of(suite): episodes},
                lambda spec: MemoryRetriever(
                    memory, spec, model.count_tokens, shown, Purpose.TRAIN, memory.position
                ),
                ContextRates(0.5, 0.0), SETTINGS, out,
            )  # fmt: skip

        whole = fine_tune(4000, tmp_path / "whole")
        assert (whole.too_long, whole.examples) == (0, len(episodes))
        lengths = sorted(
            len(one.ids)
            for episode in episodes
            for one in LocalModel(tiny_model).encoder.sequences(
                Example(_bare(suite, episode)).conversation
            )
        )
        some = fine_tune(lengths[-1] + 40, tmp_path / "some")
        assert 0 < some.too_long < len(episodes)
        assert some.supervised_tokens > 0
        assert some.loss_last is not None
        assert some.loss_last > 0.1
        with pytest.raises(ValueError, match=r"nothing can be learnt from .* more than 40 tokens"):
            fine_tune(40, tmp_path / "none")
        assert not (tmp_path / "none").exists()


def _bare(suite: object, episode: object) -> tuple:  # type: ignore[type-arg]
    from relive.agent.retriever import RetrievedContext
    from relive.training.examples import example

    made = example(spec_of(suite), episode, RetrievedContext())  # type: ignore[arg-type]
    return made.conversation


def test_the_base_stays_as_it_was_over_rounds(tiny_model: Path, tmp_path: Path) -> None:
    """mlx-vlm PR#2181: going on from an adapter left the base trainable."""
    examples = [Example(corpus.draw(3, i, 0.05).conversation) for i in range(4)]
    first = LocalModel(tiny_model)
    base = {name: p.clone() for name, p in first.model.named_parameters()}
    manifest = AdapterManifest("v1", "tiny", first.base_sha256)
    train_adapter(first, examples, SETTINGS, tmp_path / "v1", manifest)
    with pytest.raises(InterruptedError):  # killed in the second round
        train_adapter(
            first, examples, SETTINGS, tmp_path / "lost", manifest, start=tmp_path / "v1",
            report=_interrupt,
        )  # fmt: skip
    for model in (first, LocalModel(tiny_model, adapter=tmp_path / "v1")):
        made = train_adapter(
            model, examples, SETTINGS, tmp_path / f"v2{model.adapter}",
            replace(manifest, version="v2"), start=tmp_path / "v1",
        )  # fmt: skip
        assert made.started_from
        before = model.adapter
        model.set_adapter(None)
        assert {
            n: torch.equal(p, base[n]) for n, p in model.model.named_parameters()
        } == dict.fromkeys(base, True)
        assert not any(p.requires_grad for p in model.model.parameters())
        assert before in (None, "v1")  # as it was before it was trained on
    assert not (tmp_path / "lost").exists()


def _interrupt(step: int, loss: float) -> None:
    raise InterruptedError


def test_no_adapter_changes_under_running_episodes(tiny_model: Path, tmp_path: Path) -> None:
    """vllm#47724: an adapter published in mid-flight changed running requests."""
    examples = [Example(corpus.draw(3, i, 0.05).conversation) for i in range(4)]
    model = LocalModel(tiny_model, max_new_tokens=6)
    manifest = AdapterManifest("v1", "tiny", model.base_sha256)
    learnt = replace(SETTINGS, learning_rate=0.1, steps=6)
    train_adapter(model, examples, learnt, tmp_path / "v1", manifest)

    def play(name: str, disturb: bool) -> dict[str, tuple[str, list[str]]]:
        found = {}
        with Memory(tmp_path / name) as memory:
            run = Agent(model, memory, Retrieval(k=0)).run("toy", 24, batch=16, max_steps=5, at=0)
            for number, episode in enumerate(run):
                actions = [step.action for step in episode.steps]
                found[episode.task.identity] = (episode.actor.adapter, actions)
                if disturb and number == 3:  # others have begun in the place of the first three
                    with pytest.raises(RuntimeError, match="episodes are being played"):
                        model.set_adapter(tmp_path / "v1")
        return found

    undisturbed = play("a", False)
    assert play("b", True) == undisturbed
    assert all(adapter == "" for adapter, _ in undisturbed.values())
    model.set_adapter(tmp_path / "v1")
    assert play("c", False) != undisturbed
