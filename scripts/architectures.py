"""Small random models of many architectures, and whether they act as `generate` does.

python scripts/architectures.py [NAME …]
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from relive.agent.conversation import Conversation, Turn
from relive.agent.llm.local import LocalModel
from relive.agent.llm.weights import quiet

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<unk>"]
WORDS = [f"w{number}" for number in range(90)]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 2048, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip
WINDOW = {"sliding_window": 24}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "n_group": 1,
    "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "num_key_value_heads": 4, "head_dim": 8,
}  # fmt: skip
MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "phi3": ("Phi3", {}),
    "olmo2": ("Olmo2", {}),
    "smollm3": ("SmolLM3", {}),
    "granite": ("Granite", {}),
    "qwen3_moe": ("Qwen3Moe", EXPERTS),
    "mixtral": ("Mixtral", EXPERTS),
    "lfm2": ("Lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 2048}),
    "gpt_neox": ("GPTNeoX", {}),
    "ministral3": ("Ministral3", {}),
    "mistral": ("Mistral", WINDOW),
    "ministral": ("Ministral", {**WINDOW, **MIXED}),
    "gemma2": ("Gemma2", {**WINDOW, **MIXED, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {**WINDOW, **MIXED, "query_pre_attn_scalar": 8}),
    "gemma4": ("Gemma4Text", {**WINDOW, **MIXED}),
    "gpt_oss": ("GptOss", {**WINDOW, **MIXED, **EXPERTS}),
    "qwen3_next": ("Qwen3Next", {**LINEAR, **EXPERTS}),
    "qwen3_5": ("Qwen3_5Text", LINEAR),
    "mamba": ("Mamba", {"state_size": 8, "intermediate_size": 64}),
    "falcon_h1": (
        "FalconH1",
        {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    ),
    "openai_gpt": ("OpenAIGPT", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048}),
    "deepseek_v3": ("DeepseekV3", {**LATENT, **EXPERTS}),
}
"""By name: the class of its config without ``Config``, and what it needs besides `SIZES`."""


TARGETS: dict[str, list[str]] = {"mamba": ["in_proj"], "falcon_h1": ["q_proj", "v_proj"]}
"""What is adapted where PEFT does not take all linear layers."""


@dataclass(frozen=True)
class Found:
    """What came of one architecture."""

    name: str
    equal: bool
    reuse_share: float
    """Share of the tokens of all prompts that were not encoded again."""
    way: str
    """How it is decoded."""
    note: str = ""


def save(name: str, folder: Path) -> Path:
    """A random model that says many different things, with a tokenizer."""
    kind, more = ARCHITECTURES[name]
    words = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[2:5],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **more})
    model: Any = AutoModelForCausalLM.from_config(config)
    for title, weight in model.named_parameters():
        if weight.dim() == 2 and "A_log" not in title:
            wide = "embed" in title or "lm_head" in title
            # Gemma multiplies its embeddings by the root of their width.
            torch.nn.init.normal_(weight, std=(0.1 if "gemma" in name else 1.0) if wide else 0.3)
    model.save_pretrained(folder)
    return folder


def reference(model: Any, policy: LocalModel, talks: list[Conversation]) -> list[tuple[int, ...]]:
    """What `generate` says to the whole prompts, one after the other."""
    said = []
    for talk in talks:
        ids = torch.tensor([policy.encoder.prompt(talk)])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=policy.max_new_tokens, eos_token_id=sorted(policy.encoder.stop_ids),
            pad_token_id=0,
        )  # fmt: skip
        new = out[0, ids.shape[1] :].tolist()
        said.append(tuple(t for t in new if t not in policy.encoder.stop_ids))
    return said


def check(name: str, folder: Path, turns: int = 5, adapters: bool = True) -> Found:
    """Plays some turns in a batch of four and compares every answer with `generate`."""
    save(name, folder / "model")
    plain: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    policy = LocalModel(folder / "model", max_new_tokens=8, device="cpu")
    way = type(policy._decoder).__name__
    way += "" if getattr(policy._decoder, "reuses", True) else ", encoding anew"
    tuned, adapter = None, None
    if adapters:
        adapter = _adapter(folder, name)
        base: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        tuned = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    rng = random.Random(0)
    common = " ".join(rng.choices(WORDS, k=20))
    talks: list[Conversation] = [
        (
            Turn("system", f"{common} {' '.join(rng.choices(WORDS, k=rng.randint(10, 60)))}"),
            Turn("user", " ".join(rng.choices(WORDS, k=rng.randint(2, 12)))),
        )
        for _ in range(4)
    ]
    prompts = encoded = 0
    kinds = set()
    for turn in range(turns + 3 * adapters):
        attached = turns <= turn < turns + 2
        if turn >= turns:
            policy.set_adapter(adapter if attached else None)
        before = policy.tokens_encoded
        actions = policy.act(talks)
        if turn < turns:
            encoded += policy.tokens_encoded - before - sum(len(a.tokens) for a in actions)
            prompts += sum(len(policy.encoder.prompt(talk)) for talk in talks)
        expected = reference(tuned if attached else plain, policy, talks)
        said = [action.tokens for action in actions]
        if said != expected:
            return Found(name, False, 0.0, way, f"turn {turn}: {said} is not {expected}")
        kinds |= set(said)
        talks = [
            (*talk, action.turn, Turn("user", " ".join(rng.choices(WORDS, k=5))))
            for talk, action in zip(talks, actions, strict=True)
        ]
    note = f"{len(kinds)} different answers"
    return Found(name, len(kinds) > 1, round(max(0.0, 1 - encoded / prompts), 3), way, note)


def _adapter(folder: Path, name: str) -> Path:
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    torch.manual_seed(5)
    targets = TARGETS.get(name, "all-linear")
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    tuned: Any = get_peft_model(model, config)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    tuned.save_pretrained(folder / "adapter")
    return folder / "adapter"


def main(report: Callable[[str], None] = print) -> None:
    """Prints a line for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ARCHITECTURES))
    for name in parser.parse_args().names:
        began = time.perf_counter()
        with quiet(), tempfile.TemporaryDirectory() as folder:
            try:
                found = asdict(check(name, Path(folder)))
            except Exception as error:  # every one is wanted, whatever another raises
                found = {"name": name, "equal": False, "note": f"{type(error).__name__}: {error}"}
        report(f"{found} {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
