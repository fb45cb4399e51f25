"""Two processes that share the model, too, train what one trains."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from relive.agent.llm.local import LocalModel
from relive.agent.llm.manifest import AdapterManifest
from relive.training.examples import Example
from relive.training.lora import LoraSettings, train_adapter
from relive.training.pretraining import corpus
from relive.training.sharded import Sharded, layers_of

RECIPE = Path(__file__).resolve().parents[2] / "scripts" / "recipes" / "fsdp"
SETTINGS = LoraSettings(
    steps=12, learning_rate=2e-3, batch_examples=9, batch_tokens=1500, rehearsal=0.0, dropout=0.0,
    targets="all-linear", bf16=False,
)  # fmt: skip
LOSS, WEIGHTS = 1e-5, 2e-4
"""Tolerances: sums in another order, over twelve steps of an optimiser that divides by the roots of
small numbers."""


def train(out: Path) -> None:
    """The same training, in however many processes."""
    model = LocalModel("bundled", device="cpu")
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    examples = [Example(corpus.draw(3, i, 0.05).conversation) for i in range(9)]
    losses: list[float] = []
    held: list[float] = []

    def look(step: int, tuned: Any) -> None:
        own = sum(
            (p.to_local() if hasattr(p, "to_local") else p).numel() for p in tuned.parameters()
        )
        held.append(own / sum(p.numel() for p in tuned.parameters()))

    manifest = train_adapter(
        model, examples, SETTINGS, out, AdapterManifest("a", "bundled", model.base_sha256),
        report=lambda step, loss: losses.append(loss), checkpoint=look,
    )  # fmt: skip
    # The policy's own weights are whole and as they were, and it acts with the adapter.
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    model.set_adapter(out)
    told = {"losses": losses, "sha256": manifest.adapter_sha256, "held": held[-1]}
    print(json.dumps(told))


@pytest.mark.slow
def test_two_processes_with_half_a_model_each(tmp_path: Path) -> None:
    train(tmp_path / "one")
    command = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", str(RECIPE / "two-cpus.yaml"), "--main_process_port", "0",
        __file__, str(tmp_path / "two"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(said) == 2
    assert said[0]["sha256"] == said[1]["sha256"]
    assert [some["held"] for some in said] == pytest.approx([0.5, 0.5], abs=0.01)
    one, two = (json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("one", "two"))
    assert one["supervised_tokens"] == two["supervised_tokens"]
    (curve,) = [some["losses"] for some in said if some["losses"]]  # the first process reports
    assert len(curve) == SETTINGS.steps
    alone = _curve_of_one(tmp_path)
    assert curve == pytest.approx(alone, abs=LOSS)
    assert curve[-1] < 0.9 * curve[0]
    tensors = [load_file(tmp_path / n / "adapter_model.safetensors") for n in ("one", "two")]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], atol=WEIGHTS, rtol=1e-3)
    print(
        "largest difference:", max(abs(a - b) for a, b in zip(curve, alone, strict=True)), "loss,",
        max(float((t - tensors[1][n]).abs().max()) for n, t in tensors[0].items()), "weights",
    )  # fmt: skip


def _curve_of_one(folder: Path) -> list[float]:
    """The losses of one process, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder / "again")],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("{")]
    curve: list[float] = json.loads(line)["losses"]
    return curve


def test_every_process_has_as_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that only one of them made would wait for the others for ever."""
    pieces = [(torch.full((1, 4), n), torch.ones(1, 4, dtype=torch.bool)) for n in range(5)]
    shares = []
    for rank in range(3):
        process = Sharded.__new__(Sharded)
        process.count, process.rank = 3, rank
        shares.append(process.share(pieces))
    assert [len(share) for share in shares] == [2, 2, 2]
    learnt = [int(ids[0, 0]) for share in shares for ids, learn in share if learn.any()]
    assert sorted(learnt) == [0, 1, 2, 3, 4]
    (ids, learn) = shares[2][1]
    assert not learn.any()
    assert ids.shape == (1, 4)


def test_settings_that_are_not_followed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ValueError, match="use fsdp_version: 2"):
        Sharded()
    with pytest.raises(ValueError, match="Linear has no list of layers"):
        layers_of(torch.nn.Linear(2, 2))


if __name__ == "__main__":
    train(Path(sys.argv[1]))
