"""A training that is stopped goes on, and gives what it would have given."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from relive.agent.llm.local import LocalModel
from relive.agent.llm.manifest import AdapterManifest
from relive.training import unfinished
from relive.training.examples import Example
from relive.training.lora import LoraSettings, train_adapter
from relive.training.pretraining import corpus
from relive.training.pretraining.rehearsal import rehearsal

EXAMPLES = [Example(corpus.draw(3, i, 0.05).conversation) for i in range(6)]
MANIFEST = AdapterManifest("v1", "tiny", "")
# Dropout draws random numbers, and rehearsal is a stream of its own: both must go on as well.
SETTINGS = LoraSettings(steps=6, batch_examples=2, rehearsal=0.5, dropout=0.2, bf16=False)


class Stopped(Exception):
    """What a signal would do."""


def stopped(model: LocalModel, out: Path, at: int, settings: LoraSettings = SETTINGS) -> None:
    """A training that is broken off after some steps."""

    def stop(step: int, _: float) -> None:
        if step == at + 1:
            raise Stopped

    with pytest.raises(Stopped):
        train_adapter(model, EXAMPLES, settings, out, MANIFEST, rehearsal=rehearsal(1), report=stop)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> LocalModel:
    """A tiny model as a policy."""
    return LocalModel(tiny_model)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is kept after every step."""
    monkeypatch.setattr(unfinished, "EVERY", 0.0)


def finished(
    model: LocalModel, out: Path, settings: LoraSettings = SETTINGS
) -> tuple[AdapterManifest, list[int]]:
    """The adapter's manifest, and the steps that were worked on."""
    steps: list[int] = []
    manifest = train_adapter(
        model, EXAMPLES, settings, out, MANIFEST, rehearsal=rehearsal(1),
        report=lambda step, _: steps.append(step),
    )  # fmt: skip
    return manifest, steps


def test_what_goes_on_is_what_was_never_stopped(
    tiny: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, all_steps = finished(tiny, tmp_path / "whole")
    assert all_steps == [1, 2, 3, 4, 5, 6]
    stopped(tiny, tmp_path / "part", 2)
    stopped(tiny, tmp_path / "part", 4)
    before = torch.load(tmp_path / "part.unfinished", weights_only=True)["seconds"]
    monkeypatch.setattr(unfinished.time, "monotonic", lambda: 1000.0)  # what follows takes no time
    manifest, steps = finished(tiny, tmp_path / "part")
    assert steps == [5, 6]
    assert manifest.adapter_sha256 == whole.adapter_sha256
    assert (manifest.loss_first, manifest.loss_last) == (whole.loss_first, whole.loss_last)
    assert manifest.supervised_tokens == whole.supervised_tokens
    assert manifest.seconds == round(before, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part", "whole"]


def test_another_training_does_not_go_on_from_it(tiny: LocalModel, tmp_path: Path) -> None:
    stopped(tiny, tmp_path / "v1", 3)
    other = replace(SETTINGS, learning_rate=1e-3)
    _, steps = finished(tiny, tmp_path / "v1", other)
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_state_is_begun_anew(
    tiny: LocalModel, tmp_path: Path, damage: bytes | None
) -> None:
    stopped(tiny, tmp_path / "v1", 3)
    file = tmp_path / "v1.unfinished"
    file.write_bytes(file.read_bytes()[:-700] if damage is None else damage)
    whole, _ = finished(tiny, tmp_path / "whole")
    manifest, steps = finished(tiny, tmp_path / "v1")
    assert steps == [1, 2, 3, 4, 5, 6]
    assert manifest.adapter_sha256 == whole.adapter_sha256
