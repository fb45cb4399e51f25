"""Two processes train what one trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from relive.agent.llm.local import LocalModel
from relive.agent.llm.manifest import AdapterManifest
from relive.training.examples import Example
from relive.training.lora import LoraSettings, train_adapter
from relive.training.pretraining import corpus

SETTINGS = LoraSettings(
    steps=4, learning_rate=0.05, batch_examples=5, batch_tokens=600, rehearsal=0.0, dropout=0.0,
    bf16=False,
)  # fmt: skip


def train(folder: Path, out: Path) -> None:
    """The same training, in however many processes."""
    model = LocalModel(folder, device="cpu")
    examples = [Example(corpus.draw(3, i, 0.05).conversation) for i in range(9)]
    manifest = train_adapter(
        model, examples, SETTINGS, out, AdapterManifest("a", "tiny", model.base_sha256)
    )
    said = [manifest.loss_first, manifest.loss_last, manifest.adapter_sha256]
    # One write with its line end: `print` makes two, and another process may write in between.
    sys.stdout.write(json.dumps(said) + "\n")


def test_two_processes_train_what_one_trains(tiny_model: Path, tmp_path: Path) -> None:
    train(tiny_model, tmp_path / "one")
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", __file__, str(tiny_model), str(tmp_path / "two"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(said) == 2
    assert said[0] == said[1]  # both know the same
    one, two = (json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("one", "two"))
    for name in ("loss_first", "loss_last"):
        assert one[name] == pytest.approx(two[name], abs=2e-4)
    assert one["supervised_tokens"] == two["supervised_tokens"]
    tensors = [load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two")]
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], atol=1e-4, rtol=1e-3)
    assert any(tensor.abs().max() > 0.005 for n, tensor in tensors[0].items() if "lora_B" in n)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]))
