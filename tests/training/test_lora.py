import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from relive.agent.llm.chat import ChatEncoder, Encoded
from relive.agent.llm.local import LocalModel
from relive.agent.llm.manifest import AdapterManifest
from relive.agent.llm.weights import hash_weights
from relive.training.batches import batches, encode_example, mixed, pieces
from relive.training.examples import Example
from relive.training.lora import LoraSettings, train_adapter
from relive.training.loss import target_logits
from relive.training.pretraining import corpus
from relive.training.pretraining.rehearsal import rehearsal
from relive.training.pretraining.tokenizer import build_tokenizer

ENCODER = ChatEncoder(build_tokenizer())
EXAMPLES = [Example(corpus.draw(3, i, 0.05).conversation) for i in range(12)]
MANIFEST = AdapterManifest("v1", "tiny", "")
SETTINGS = LoraSettings(steps=30, learning_rate=0.02, batch_tokens=1500, rehearsal=0.0, bf16=False)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> LocalModel:
    """A tiny model as a policy."""
    return LocalModel(tiny_model)


def test_training_lowers_the_loss_and_writes_a_manifest(tiny: LocalModel, tmp_path: Path) -> None:
    out = tmp_path / "v1"
    base = replace(MANIFEST, base_sha256=tiny.base_sha256)
    manifest = train_adapter(tiny, EXAMPLES, SETTINGS, out, base)
    assert manifest.loss_last < manifest.loss_first - 0.1
    assert json.loads((out / "manifest.json").read_text()) == json.loads(json.dumps(manifest.plain))
    assert manifest.adapter_sha256 == hash_weights(out)
    assert (manifest.version, manifest.examples) == ("v1", 12)
    assert manifest.supervised_tokens > 0
    policy = LocalModel(tiny.folder)
    assert policy.base_sha256 == manifest.base_sha256
    before = policy.weights_sha256
    policy.set_adapter(out, "v1")
    assert policy.weights_sha256 != before


def test_an_adapter_of_other_weights_is_refused(tiny: LocalModel, tmp_path: Path) -> None:
    out = tmp_path / "v1"
    train_adapter(
        tiny, EXAMPLES[:2], LoraSettings(steps=1), out,
        replace(MANIFEST, base_sha256="0" * 64),
    )  # fmt: skip
    with pytest.raises(ValueError, match="trained on weights 000000000000"):
        LocalModel(tiny.folder, adapter=out)


def test_an_adapter_is_never_overwritten_nor_trained_on_nothing(
    tiny: LocalModel, tmp_path: Path
) -> None:
    (tmp_path / "v1").mkdir()
    with pytest.raises(FileExistsError, match="never overwritten"):
        train_adapter(tiny, EXAMPLES, SETTINGS, tmp_path / "v1", MANIFEST)
    with pytest.raises(ValueError, match="nothing to fine-tune on"):
        train_adapter(tiny, [], SETTINGS, tmp_path / "v2", MANIFEST)
    assert not (tmp_path / "v2").exists()


def test_the_same_settings_give_the_same_weights(tiny: LocalModel, tmp_path: Path) -> None:
    settings = LoraSettings(steps=4, batch_tokens=1500, bf16=False)
    hashes = {
        train_adapter(tiny, EXAMPLES, settings, tmp_path / name, MANIFEST).adapter_sha256
        for name in ("a", "b")
    }
    assert len(hashes) == 1


def test_loss_falls_on_the_assistants_tokens_only(tiny: LocalModel, tmp_path: Path) -> None:
    """Changing what is not supervised at the end of a conversation changes nothing that is
    trained."""
    shortest = min(EXAMPLES, key=lambda e: len(e.conversation))
    ((ids, learn),) = encode_example(ENCODER, shortest)
    item = [Encoded(ids, learn)]
    (alone,) = islice(batches(iter([item, item]), len(ids)), 1)
    ((batch, mask),) = pieces(alone, len(ids))
    assert batch.tolist() == [ids]
    assert mask.tolist() == [learn]
    assert 0 < sum(learn) < 0.5 * len(learn)
    learnt = [i for i, on in zip(ids, learn, strict=True) if on]
    stops = sum(i in ENCODER.stop_ids for i in learnt)
    assert stops == sum(turn.role == "assistant" for turn in shortest.conversation)


def test_every_example_comes_once_before_any_comes_again() -> None:
    encoded = [[Encoded([i], [True])] for i in range(7)]
    stream = mixed(encoded, None, LoraSettings(rehearsal=0.0).mix, 0)
    for _ in range(3):
        assert sorted(one.ids[0] for (one,) in islice(stream, 7)) == list(range(7))


def test_rehearsal_is_the_stated_share() -> None:
    encoded = [[Encoded([0], [True])]]
    worlds = (encode_example(ENCODER, e) for e in rehearsal(0))
    drawn = islice(mixed(encoded, worlds, LoraSettings(rehearsal=0.5).mix, 0), 200)
    assert sum(len(one.ids) > 1 for (one,) in drawn) == pytest.approx(100, abs=30)


def test_batches_keep_to_their_tokens_and_lose_nothing() -> None:
    sizes = [5, 9, 3, 30, 8, 8, 8, 2, 40]
    items = [Encoded(list(range(1, n + 1)), [True] * n) for n in sizes]
    stream = iter([[one] for one in [*items, Encoded([1] * 100, [True] * 100)]])
    made = [piece for batch in batches(stream, 32) for piece in pieces(batch, 32)]
    assert sum(int(mask.sum()) for _, mask in made) == sum(sizes)
    whole = list(pieces(items, 32))  # one batch of all of them is worked on in pieces
    assert sum(int(mask.sum()) for _, mask in whole) == sum(sizes)
    made += whole
    for ids, mask in made:
        assert ids.numel() <= 32 or ids.shape[0] == 1
        assert torch.equal(ids == 0, ~mask)


@pytest.mark.parametrize("bad", [{"rehearsal": 1.0}, {"steps": 0}, {"learning_rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="lora"):
        LoraSettings(**bad)  # type: ignore[arg-type]


def test_batches_of_examples_supervise_the_same_tokens_whatever_the_context(
    tiny: LocalModel, tmp_path: Path
) -> None:
    """So that trainings with and without memory differ in nothing but what the prompt shows."""
    settings = LoraSettings(steps=3, batch_examples=4, rehearsal=0.5, bf16=False)
    manifests = []
    for name, memory in (("with", True), ("without", False)):
        examples = [Example(corpus.draw(3, i, 0.05, memory).conversation) for i in range(12)]
        manifests.append(
            train_adapter(
                tiny,
                examples,
                settings,
                tmp_path / name,
                MANIFEST,
                rehearsal=rehearsal(settings.seed),
            )
        )
    assert manifests[0].supervised_tokens == manifests[1].supervised_tokens
    assert manifests[0].adapter_sha256 != manifests[1].adapter_sha256
    counted = batches(iter([[Encoded([1] * n, [True] * n)] for n in range(1, 9)]), 64, 3)
    assert [len(batch) for batch in islice(counted, 2)] == [3, 3]


def test_pieces_of_a_batch_learn_what_the_whole_would(tiny: LocalModel, tmp_path: Path) -> None:
    losses = []
    for tokens in (10_000, 600):
        settings = LoraSettings(
            steps=1, batch_examples=6, batch_tokens=tokens, rehearsal=0.0, bf16=False, dropout=0.0
        )
        manifest = train_adapter(tiny, EXAMPLES, settings, tmp_path / str(tokens), MANIFEST)
        losses.append((manifest.loss_last, manifest.supervised_tokens))
    assert losses[0][0] == pytest.approx(losses[1][0], abs=2e-4)
    assert losses[0][1] == losses[1][1]


def test_rehearsal_comes_on_top_and_changes_no_order() -> None:
    """With and without it the same examples come in the same batches."""
    encoded = [encode_example(ENCODER, e) for e in EXAMPLES]
    plain = LoraSettings(batch_examples=5, rehearsal=0.0)
    half = LoraSettings(batch_examples=5, rehearsal=0.5)
    assert (plain.mix, half.mix, LoraSettings(rehearsal=0.25).mix) == (
        (0, 5),
        (5, 10),
        (250, 1000),
    )
    alone = list(islice(mixed(encoded, None, plain.mix, plain.seed), 40))
    both = list(
        islice(
            mixed(encoded, (encode_example(ENCODER, e) for e in rehearsal(0)), half.mix, half.seed),
            80,
        )
    )
    assert [item for item in both if item in encoded] == alone
    for batch in range(8):
        assert sum(item in encoded for item in both[10 * batch : 10 * batch + 10]) == 5


def test_checkpoints_are_called_after_every_step(tiny: LocalModel, tmp_path: Path) -> None:
    steps: list[int] = []
    train_adapter(
        tiny,
        EXAMPLES,
        LoraSettings(steps=3, rehearsal=0.0),
        tmp_path / "v1",
        MANIFEST,
        checkpoint=lambda step, model: steps.append(step),
    )
    assert steps == [1, 2, 3]


def test_only_targets_are_predicted(tiny_model: Path) -> None:
    """The same loss and gradients as from the predictions of all positions."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.randint(3, 500, (3, 17), generator=torch.Generator().manual_seed(0))
    learn = torch.rand(3, 17, generator=torch.Generator().manual_seed(1)) < 0.3
    logits, targets = target_logits(model, ids, learn)
    whole = model(input_ids=ids).logits[:, :-1][learn[:, 1:]]
    assert logits.shape == whole.shape == (int(learn[:, 1:].sum()), whole.shape[1])
    assert torch.equal(targets, ids[:, 1:][learn[:, 1:]])
    torch.testing.assert_close(logits, whole)
    some = []
    for predicted in (logits, whole):
        model.zero_grad()
        torch.nn.functional.cross_entropy(predicted, targets).backward()
        some.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for mine, theirs in zip(*some, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert model(input_ids=ids).logits.shape[:2] == ids.shape  # as it was


def test_checkpointing_changes_nothing_but_memory(tiny: LocalModel, tmp_path: Path) -> None:
    """Activations are computed again, dropout included."""
    plain = LoraSettings(steps=3, batch_tokens=1500, rehearsal=0.0, bf16=False)
    losses, switched = [], list[bool]()

    def look(step: int, model: torch.nn.Module) -> None:
        layers = (getattr(layer, "gradient_checkpointing", False) for layer in model.modules())
        switched.append(any(layers))

    for on in (False, True):
        made = train_adapter(
            tiny, EXAMPLES, replace(plain, gradient_checkpointing=on),
            tmp_path / str(on), MANIFEST, checkpoint=look,
        )  # fmt: skip
        losses.append((made.loss_first, made.loss_last))
    assert switched == [False] * 3 + [True] * 3
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
