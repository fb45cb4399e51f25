"""A tiny model of random weights with the bundled tokenizer: enough to train, save and load, made
in a second."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from relive.training.pretraining.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a one-layer model."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer()
    vocab = tokenizer.get_vocab()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, intermediate_size=64, max_position_embeddings=4096,
        tie_word_embeddings=True, pad_token_id=vocab["<|pad|>"], eos_token_id=vocab["<|end|>"],
        bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
