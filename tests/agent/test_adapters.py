"""An adapter whose file does not hold what its config promises is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

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
