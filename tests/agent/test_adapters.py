"""An adapter whose file does not hold what its config promises is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from relive.agent.conversation import Turn
from relive.agent.llm.local import LocalModel
from relive.agent.llm.manifest import AdapterManifest
from relive.agent.llm.weights import BUNDLED
from relive.agent.settings import as_stored

FILE = "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the bundled model that changes nothing."""
    model = AutoModelForCausalLM.from_pretrained(BUNDLED)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def changed(adapter: Path, folder: Path, change: Callable[[Tensors], object]) -> Path:
    tensors = load_file(adapter / FILE)
    change(tensors)
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    save_file(tensors, folder / FILE)
    return folder


def test_a_whole_one_is_taken(adapter: Path) -> None:
    assert LocalModel("bundled", adapter=adapter).adapter == adapter.name


def _rename(tensors: Tensors) -> None:
    tensors["base_model.model.other"] = torch.zeros(4, 4)


def _cut(tensors: Tensors) -> None:
    name = sorted(tensors)[0]
    tensors[name] = tensors[name][:, :-1].contiguous()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop(sorted(tensors)[0]), "1 are not in adapter_model"),
        (lambda tensors: [tensors.pop(n) for n in list(tensors) if "v_proj" in n], "are not in"),
        (_rename, "1 tensors that its config does not promise"),
        (_cut, "has the shape|for another model"),
    ],
)
def test_others_are_refused(
    adapter: Path, tmp_path: Path, change: Callable[[Tensors], object], says: str
) -> None:
    model = LocalModel("bundled")
    with pytest.raises(ValueError, match=says):
        model.set_adapter(changed(adapter, tmp_path, change))
    assert model.adapter is None  # it is as it was


def test_the_manifest_says_which_weights_it_fits(adapter: Path, tmp_path: Path) -> None:
    folder = changed(adapter, tmp_path, lambda tensors: None)
    manifest = AdapterManifest("v1", "bundled", LocalModel("bundled").base_sha256)
    file = folder / "manifest.json"
    stored = {**as_stored(manifest), "life": {"seed": 3}}
    stored.pop("extra")
    file.write_text(json.dumps(stored))
    assert AdapterManifest.read(folder) == replace(manifest, extra={"life": {"seed": 3}})
    assert stored["recall"] == {}  # its name on disk
    LocalModel("bundled", adapter=folder)
    file.write_text(json.dumps({**stored, "base_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="for another model"):
        LocalModel("bundled", adapter=folder)
    for broken in ("{", "[]", json.dumps({"version": "v1"})):
        file.write_text(broken)
        with pytest.raises(ValueError, match="manifest"):
            LocalModel("bundled", adapter=folder)


def tuned(model: Path, folder: Path, **config: Any) -> Path:
    """An adapter that changes much, as PEFT saves it."""
    base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(1)
    made: Any = get_peft_model(base, LoraConfig(r=4, task_type="CAUSAL_LM", **config))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    made.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(5, 25)[None]).logits
    return found


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "use_rslora": True, "lora_alpha": 3},
        {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": "all-linear"},
    ],
)
def test_it_says_what_peft_says_and_comes_off_bit_by_bit(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """The bundled model's embeddings are tied, which adding up must not forget."""
    folder = tuned(BUNDLED, tmp_path / "a", **config)
    policy = LocalModel("bundled", device="cpu")
    bare = logits(policy.model)
    base = {name: p.clone() for name, p in policy.model.named_parameters()}
    plain: Any = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    expected = logits(PeftModel.from_pretrained(plain, str(folder)))
    for _ in range(2):
        policy.set_adapter(folder)
        torch.testing.assert_close(logits(policy.model), expected, atol=2e-3, rtol=1e-3)
        policy.set_adapter(None)
        assert torch.equal(logits(policy.model), bare)
        assert {n for n, _ in policy.model.named_parameters()} == set(base)
        assert all(torch.equal(p, base[n]) for n, p in policy.model.named_parameters())


def test_another_scale_is_another_adapter(adapter: Path, tmp_path: Path) -> None:
    weak = tuned(BUNDLED, tmp_path / "weak", target_modules=["q_proj"], lora_alpha=1)
    strong = tuned(BUNDLED, tmp_path / "strong", target_modules=["q_proj"], lora_alpha=64)
    policy = LocalModel("bundled", device="cpu", adapter=weak)
    before = logits(policy.model)
    policy.set_adapter(strong)
    assert not torch.allclose(logits(policy.model), before)
    with pytest.raises(ValueError, match="has been used for other weights"):
        policy.set_adapter(strong, "weak")


def test_what_cannot_be_used_leaves_the_policy_as_it_was(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tuned(BUNDLED, tmp_path / "good", target_modules=["q_proj"])
    policy = LocalModel("bundled", device="cpu", adapter=good)
    before = logits(policy.model)
    biased = tuned(BUNDLED, tmp_path / "biased", target_modules=["k_proj"])
    file = biased / "adapter_config.json"
    plain = json.loads(file.read_text())
    for change, says in (({"bias": "all"}, "biases of its own"), (
        {"init_lora_weights": "pissa"}, "changes the model's own weights",
    )):  # fmt: skip
        file.write_text(json.dumps({**plain, **change}))
        with pytest.raises(ValueError, match=says):
            policy.set_adapter(biased)
        assert policy.adapter == "good"
        assert torch.equal(logits(policy.model), before)
    file.write_text(json.dumps(plain))
    real = PeftModel.from_pretrained

    def fails(*args: Any, **named: Any) -> Any:
        real(*args, **named)
        raise MemoryError("no room")

    monkeypatch.setattr(PeftModel, "from_pretrained", fails)
    with pytest.raises(ValueError, match="cannot be used: no room"):
        policy.set_adapter(biased)
    monkeypatch.undo()
    assert policy.adapter == "good"
    assert torch.equal(logits(policy.model), before)
    policy.set_adapter(biased)
    policy.set_adapter(None)


def test_twins_share_the_base_and_nothing_else(adapter: Path, tmp_path: Path) -> None:
    def louder(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = torch.full_like(tensors[name], 0.05)

    model = LocalModel("bundled", adapter=adapter, slots=2)
    twin = model.twin(changed(adapter, tmp_path, louder), "loud")
    bare = model.twin()
    assert (model.adapter, twin.adapter, bare.adapter) == (adapter.name, "loud", None)
    mine, other = (dict(one.model.named_parameters()) for one in (model, bare))
    same = [name for name in mine if mine[name].data_ptr() == other[name].data_ptr()]
    assert len(same) == sum("q_proj" not in name and "v_proj" not in name for name in mine)
    asked = (Turn("system", "Act."), Turn("user", "You see a mug. Your task is to: put a mug in a"))
    alone = LocalModel("bundled", adapter=tmp_path, adapter_version="loud", slots=2)
    plain = LocalModel("bundled", slots=2)
    before = model.act([asked])
    assert twin.act([asked]) == alone.act([asked])
    assert bare.act([asked]) == plain.act([asked])
    assert model.act([asked]) == before
    twin.temperature = 1.0
    assert (model.temperature, bare.temperature) == (0.0, 0.0)
    model.set_adapter(None)
    assert twin.act([asked], [1])
    assert twin.adapter == "loud"
    assert twin.weights_sha256 == alone.weights_sha256 != bare.weights_sha256
    model.playing.tell(1, 1)  # others may change theirs while it plays
    twin.set_adapter(None)
    with pytest.raises(FileNotFoundError):
        model.twin(tmp_path / "gone")
