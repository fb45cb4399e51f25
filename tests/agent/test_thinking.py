"""Thoughts: how long they may be, where they are kept, and where they are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from relive import Agent, LocalModel, Memory, Retrieval
from relive.agent.conversation import Conversation, Turn
from relive.agent.load_policy import PolicySettings, load_policy
from relive.agent.runner import spec_of
from relive.envs import get_suite
from relive.training.batches import encode_example
from relive.training.examples import example
from tests.agent.made_tokenizer import make_tokenizer

QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last and m.reasoning_content %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TALK: Conversation = (Turn("system", "Act."), Turn("user", "You are in a kitchen."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a template that thinks as Qwen3's."""
    where = tmp_path_factory.mktemp("thinks")
    tokenizer = make_tokenizer(QWEN)
    tokenizer.save_pretrained(where)
    torch.manual_seed(2)
    size: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
    }  # fmt: skip
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **size))
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.4)
    model.save_pretrained(where)
    return where


@pytest.mark.parametrize("budget", [1, 5, 12])
def test_thoughts_keep_to_their_budget(folder: Path, budget: int) -> None:
    """A random model never stops thinking by itself: it is made to, and then answers."""
    model = LocalModel(folder, thinking="on", thinking_tokens=budget, max_new_tokens=6)
    (action,) = model.act([TALK])
    close = model.encoder.ids_of("\n</think>\n\n")
    assert list(action.tokens[budget : budget + len(close)]) == close
    assert len(action.tokens) <= budget + len(close) + 6
    assert action.reasoning == model.encoder.text_of(action.tokens[:budget]).strip()
    assert "</think>" not in action.text
    assert (model.actor.settings["thinking"], model.actor.settings["thinking_tokens"]) == (
        "on", budget,
    )  # fmt: skip
    both = LocalModel(folder, thinking="on", thinking_tokens=budget, max_new_tokens=6)
    assert both.act([(TALK[0], Turn("user", "Other.")), TALK])[1] == action


@pytest.mark.parametrize("action", [None, "look"])
def test_an_answer_without_an_action_says_that_it_was_cut_off(
    folder: Path, action: str | None
) -> None:
    model = LocalModel(folder, max_new_tokens=4, action_format=lambda answer: action)
    (said,) = model.act([TALK])
    assert (len(said.tokens), said.cut) == (4, action is None)


def test_history_shows_thoughts_only_as_the_template_does(folder: Path) -> None:
    model = LocalModel(folder, thinking="on", thinking_tokens=5, max_new_tokens=6)
    (action,) = model.act([TALK])
    later = model.encoder.prompt((*TALK, action.turn, Turn("user", "Nothing happens.")))
    text = model.encoder.text_of(later)
    assert "</think>" not in text
    assert (action.said or action.text) in text
    off = LocalModel(folder, max_new_tokens=6)
    assert "thinking" not in off.actor.settings
    asked = off.encoder.text_of(off.encoder.prompt(TALK))
    assert asked.endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize("learn", [True, False])
def test_thoughts_are_learnt_or_not_behind_the_same_prompt(folder: Path, learn: bool) -> None:
    encoder = LocalModel(folder, thinking="on").encoder
    thought = Turn("assistant", "look", reasoning="It is dark.")
    (one,) = encoder.sequences((*TALK, thought), thoughts=learn)
    prompt = encoder.prompt(TALK)
    assert one.ids[: len(prompt)] == prompt
    own = encoder.text_of([i for i, learnt in zip(*one, strict=True) if learnt])
    assert own == ("<think>\nIt is dark.\n</think>\n\n" if learn else "") + "look<|im_end|>"
    assert encoder.text_of(one.ids).endswith("It is dark.\n</think>\n\nlook<|im_end|>")
    off = LocalModel(folder).encoder
    (same,) = off.sequences((*TALK, thought), thoughts=learn)
    assert "dark" not in off.text_of(same.ids)


def test_they_are_in_the_record_and_never_in_demonstrations(folder: Path, tmp_path: Path) -> None:
    model = LocalModel(folder, thinking="on", thinking_tokens=4, max_new_tokens=5)
    suite = get_suite("toy")
    with Memory(tmp_path / "m") as memory:
        first, second = Agent(
            model, memory, Retrieval(k=1, outcomes="all")
        ).run("toy", 2, max_steps=2)  # fmt: skip
        assert all(step.reasoning for step in first.steps)
        assert memory.get(first.id).steps == first.steps
        assert second.retrieved
        spec = spec_of(suite, model)
        from relive.agent.prompt import demonstration

        shown = demonstration(spec, first).text
        assert first.steps[0].reasoning not in shown
        sequences = encode_example(
            model.encoder, example(spec, first, replace(_nothing(), demonstrations=()))
        )
        assert len(sequences) == len(first.steps) - sum(step.invalid for step in first.steps)


def _nothing() -> Any:
    from relive.agent.retriever import RetrievedContext

    return RetrievedContext()


def test_settings_reach_the_model(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(QWEN.replace("system", "system"))
    settings = PolicySettings(
        model=str(folder), thinking="on", thinking_tokens=7, max_new_tokens=9, context=300,
        action_format="tagged", chat_template=str(template), template_arguments={"mood": "good"},
    )  # fmt: skip
    policy: Any = load_policy(settings, get_suite("toy"))
    told = policy.actor.settings
    assert (told["thinking"], told["thinking_tokens"]) == ("on", 7)
    assert (told["max_new_tokens"], told["action_format"], told["context"]) == (9, "tagged", 300)
    assert len(told["chat_template"]) == 64
    assert told["template_arguments"] == '{"mood": "good"}'
    with pytest.raises(FileNotFoundError, match="no chat template"):
        LocalModel(folder, chat_template=tmp_path / "none.jinja")
    plain = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(ValueError, match="no place for thoughts"):
        LocalModel(folder, chat_template=plain, thinking="on")
