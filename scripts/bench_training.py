"""Fine-tuning speed and memory: ours against trl's `SFTTrainer`, same model, data, mask and
precision, in turns.

    python scripts/bench_training.py speed MODEL       # tokens per second, both, and their ratio
    python scripts/bench_training.py memory MODEL      # peak memory of a batch of 4,096 tokens
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from relive.agent.llm.local import LocalModel
from relive.agent.llm.manifest import AdapterManifest
from relive.training.batches import encode_example
from relive.training.examples import Example
from relive.training.lora import LoraSettings, train_adapter

BATCH = 2
"""Episodes of a batch; with four, trl needs more than 20 GB for SmolLM2."""


def examples(count: int) -> list[Example]:
    """Episodes of the expert under two demonstrations, as they are learnt."""
    import bench_agent

    return [Example(conversation) for conversation in bench_agent.recorded(count)]


def ours(model: LocalModel, data: list[Example], steps: int) -> list[float]:
    """Seconds of each optimiser step."""
    ends: list[float] = []
    settings = LoraSettings(
        steps=steps, batch_examples=BATCH, rehearsal=0.0, dropout=0.0, gradient_checkpointing=False
    )
    with tempfile.TemporaryDirectory() as folder:
        train_adapter(
            model, data, settings, Path(folder) / "a", AdapterManifest("a", "", model.base_sha256),
            report=lambda step, loss: ends.append(time.perf_counter()),
        )  # fmt: skip
    return [b - a for a, b in pairwise(ends)]


def theirs(model: LocalModel, data: list[Example], steps: int) -> list[float]:
    """The same by `SFTTrainer`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **named: Any) -> None:
            ends.append(time.perf_counter())

    encoded = [one for e in data for one in encode_example(model.encoder, e)]
    rows = [{"input_ids": ids, "completion_mask": [int(m) for m in mask]} for ids, mask in encoded]
    base: Any = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            base,
            SFTConfig(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=BATCH,
                max_length=None, bf16=True, use_cpu=True, gradient_checkpointing=False,
                completion_only_loss=True, report_to="none", disable_tqdm=True,
                logging_strategy="no", save_strategy="no", learning_rate=5e-4,
                dataloader_pin_memory=False, shuffle_dataset=False,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model.folder),
            callbacks=[Clock()],
            peft_config=LoraConfig(
                r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM",
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            ),
        )  # fmt: skip
        trainer.train()
    return [b - a for a, b in pairwise(ends)]


def speed(name: str, rounds: int = 2, steps: int = 3) -> dict[str, float]:
    """Medians over the rounds of both, and their ratio."""
    model = LocalModel(name, slots=1)
    data = examples(BATCH * (steps + 1))
    mean = sum(len(one.ids) for e in data for one in encode_example(model.encoder, e)) / len(data)
    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    for _ in range(rounds):
        for way, run in (("ours", ours), ("trl", theirs)):
            seconds[way] += run(model, data, steps)
    per_second = {way: BATCH * mean / statistics.median(s) for way, s in seconds.items()}
    return {
        "ours_tokens_per_second": round(per_second["ours"], 1),
        "trl_tokens_per_second": round(per_second["trl"], 1),
        "tokens_per_second_ratio": round(per_second["ours"] / per_second["trl"], 2),
    }


def memory(name: str) -> dict[str, float]:
    """Peak memory of this process after two steps of 4,096 tokens."""
    model = LocalModel(name, slots=1)
    settings = LoraSettings(steps=2, batch_tokens=4096, rehearsal=0.0)
    with tempfile.TemporaryDirectory() as folder:
        train_adapter(
            model, examples(24), settings, Path(folder) / "a",
            AdapterManifest("a", "", model.base_sha256),
        )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"memory_gb": round(peak, 2)}


if __name__ == "__main__":
    what, name = sys.argv[1:]
    print(json.dumps({"speed": speed, "memory": memory}[what](name)))
