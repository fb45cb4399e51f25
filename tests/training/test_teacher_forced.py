"""Teacher-forced measures, and the learning curve that is made of them."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from relive.agent.llm.chat import ChatEncoder
from relive.agent.llm.local import LocalModel
from relive.agent.policy import ExpertPolicy
from relive.agent.runner import Runner, play_all
from relive.envs import get_suite
from relive.training.batches import encode_example
from relive.training.examples import Example
from relive.training.experiments.study.curve import treatments
from relive.training.pretraining import corpus
from relive.training.pretraining.tokenizer import build_tokenizer
from relive.training.teacher_forced import forced, mean_loss


def test_actions_are_scored_as_the_model_would_have_said_them(tiny_model: Path) -> None:
    """Checked against the model's own greedy answer and against torch's loss over the same
    tokens."""
    sample = corpus.draw(1, 3, 0.2)
    tokenizer = build_tokenizer()
    (encoded,) = encode_example(ChatEncoder(tokenizer), Example(sample.conversation))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    actions = forced(model, encoded)
    assert len(actions) == sum(turn.role == "assistant" for turn in sample.conversation)
    ids, mask = encoded
    labels = torch.tensor([[i if m else -100 for i, m in zip(ids, mask, strict=True)]])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
    assert mean_loss(actions) == pytest.approx(loss, rel=1e-4)
    assert not any(a.matched for a in actions)  # random weights say nothing sensible
    # What the model itself says is what it is said to have said.
    policy = LocalModel(tiny_model, max_new_tokens=8)
    first = sample.conversation[:2]
    (answer,) = policy.act([first])
    said = [*policy.encoder.prompt(first), *answer.tokens]
    own = forced(
        model, (said, [False] * (len(said) - len(answer.tokens)) + [True] * len(answer.tokens))
    )
    assert own[0].matched
    assert 0 < math.exp(-own[0].loss) <= 1


def test_actions_at_an_appliance_are_found() -> None:
    suite = get_suite("household")
    expert = ExpertPolicy(suite)
    tasks = suite.tasks("valid", 4, ["pick_heat_then_place_in_recep", "pick_and_place_simple"])
    for episode in play_all(Runner(suite, expert), tasks):
        found = [episode.steps[i].action for i in treatments(episode)]
        if episode.task.type == "pick_and_place_simple":
            assert found == []
        else:
            assert found[0] == "go to microwave 1"
            assert found[1].startswith("heat ")
