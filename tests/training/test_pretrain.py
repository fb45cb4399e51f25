"""Pretraining learns, resumes and exports. The real run is scripts/pretrain_base.py."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from relive.training.pretraining import corpus
from relive.training.pretraining.pretrain import (
    Pretraining,
    PretrainSettings,
    action_accuracy,
    build_model,
    settle_unseen,
)
from relive.training.pretraining.tokenizer import build_tokenizer

SMALL = PretrainSettings(tokens=60_000, hidden=64, layers=1, heads=2, mlp=64)


def test_loss_falls(tmp_path: Path) -> None:
    run = Pretraining(replace(SMALL, tokens=400_000), tmp_path)
    first = run.train_pool()
    for _ in range(3):
        last = run.train_pool()
    assert last < first - 0.3


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = Pretraining(SMALL, tmp_path / "a")
    whole.train_pool()
    whole.train_pool()
    first = Pretraining(SMALL, tmp_path / "b")
    first.train_pool()
    first.save()
    with pytest.raises(ValueError, match=r"other settings \(memory\)"):
        Pretraining(replace(SMALL, memory=False), tmp_path / "b").resume()
    second = Pretraining(SMALL, tmp_path / "b")
    assert second.resume()
    second.train_pool()
    assert (second.tokens, second.step) == (whole.tokens, whole.step)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_export_is_an_ordinary_folder(tmp_path: Path) -> None:
    run = Pretraining(SMALL, tmp_path)
    run.export(tmp_path / "model")
    from relive.agent.conversation import Turn
    from relive.agent.llm.local import LocalModel

    policy = LocalModel(tmp_path / "model")
    (action,) = policy.act([(Turn("system", "Act."), Turn("user", "You see a cup 1."))])
    assert isinstance(action.text, str)
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["settings"]["hidden"] == 64


def test_names_start_out_like_their_kinds(tmp_path: Path) -> None:
    run = Pretraining(SMALL, tmp_path)
    table, vocab = run.model.model.embed_tokens.weight, run.tokenizer.get_vocab()

    def alike(a: str, b: str) -> float:
        return torch.cosine_similarity(table[vocab[a]], table[vocab[b]], dim=0).item()

    assert alike("▁cup▁2", "▁cup") > 0.5 > alike("▁cup▁2", "▁pen")


def test_accuracy_counts_every_kind_of_action(tmp_path: Path) -> None:
    run = Pretraining(SMALL, tmp_path)
    found = action_accuracy(run.model, run.tokenizer, corpus.probe("hot", 1, 3))
    assert {"first", "take", "go to apply", "apply", "put"} <= set(found)
    assert all(0 <= share <= 1 for share in found.values())


def test_tokens_that_never_occurred_are_average_words() -> None:
    """Or their kind's other numbers; the embedding of what did occur is not touched."""
    tokenizer = build_tokenizer()
    model = build_model(replace(PretrainSettings(), hidden=32, layers=1), tokenizer)
    vocab, table = tokenizer.get_vocab(), model.model.embed_tokens.weight
    before = table.detach().clone()
    unseen = {vocab[token] for token in ("▁two", "▁them", "▁cup▁3")}
    seen = set(vocab.values()) - unseen
    settle_unseen(model, tokenizer, seen)
    words = [
        i for token, i in vocab.items() if i in seen and token[1:].isalpha() and token[0] == "▁"
    ]
    cups = [i for token, i in vocab.items() if i in seen and token.rpartition("▁")[0] == "▁cup"]
    assert cups
    assert torch.allclose(table[vocab["▁two"]], before[words].mean(0))
    assert torch.allclose(table[vocab["▁cup▁3"]], before[cups].mean(0))
    assert torch.equal(table[sorted(seen)], before[sorted(seen)])
