"""How much faster is the cached policy than `generate` on the whole prompt each step?

Both sides replay the same recorded episodes: at every step they are given the same prompt and
generate as many tokens as the recorded action has (and its end), which is then replaced by the
recorded action.

Example: python -m scripts.bench_policy MODEL_FOLDER Without a folder, a random model of the bundled
one's size and synthetic episodes are used. The last line is JSON.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relive.agent.conversation import Conversation, Turn
from relive.agent.llm.decoding.sampling import Row
from relive.agent.llm.local import LocalModel

_WORDS = [f"word{number}" for number in range(1400)]


class _Replay(LocalModel):
    """Does all the work of acting, and then says what was recorded, so that the next step finds it
    in the cache."""

    def __init__(self, model_dir: str | Path, **options: Any) -> None:
        super().__init__(model_dir, **options)
        self._said: dict[bytes, list[int]] = {}
        self._sample = self._sampler._sample
        self._sampler._sample = self._replay  # type: ignore[method-assign]

    def record(self, conversation: Conversation) -> list[Conversation]:
        """What was asked at each step of an episode; keeps what was said."""
        asked = []
        for index, turn in enumerate(conversation):
            if turn.role == "assistant":
                asked.append(conversation[:index])
                prompt = self.encoder.prompt(conversation[:index])
                (whole,) = self.encoder.sequences(conversation[: index + 1])
                said = whole.ids[len(prompt) : len(whole.supervised)]
                said = [
                    i for i, own in zip(said, whole.supervised[len(prompt) :], strict=True) if own
                ]
                self._said[self._key(conversation[:index])] = said
        return asked

    def generate(self, conversation: Conversation) -> None:
        """The other side: transformers' own, over the whole prompt, for as many tokens as were
        said."""
        ids = torch.tensor([self.encoder.prompt(conversation)], device=self.device)
        count = len(self._said[self._key(conversation)])
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=count,
                max_new_tokens=count,
            )

    def generate_all(self, asked: Sequence[Conversation]) -> None:
        """The same for several conversations at once, padded on the left."""
        prompts = [self.encoder.prompt(conversation) for conversation in asked]
        count = max(len(self._said[self._key(conversation)]) for conversation in asked)
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            self.model.generate(
                ids, attention_mask=mask.to(self.device), do_sample=False, min_new_tokens=count,
                max_new_tokens=count,
            )  # fmt: skip

    def _replay(self, logits: torch.Tensor, batch: Sequence[Row]) -> list[int]:
        self._sample(logits, batch)
        said = (self._said[row.prompt.tobytes()] for row in batch)
        return [
            tokens[min(len(row.tokens), len(tokens) - 1)]
            for row, tokens in zip(batch, said, strict=True)
        ]

    def _key(self, conversation: Conversation) -> bytes:
        return np.array(self.encoder.prompt(conversation), dtype=np.int32).tobytes()


def measure(
    model_dir: str | Path,
    conversations: Sequence[Conversation],
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Speed-ups of `LocalModel` in fp32, greedy, over whole-prompt `generate` for one episode at a
    time.

    The three ways take turns, and the median of each one's times is used, so that a machine busy
    with something else slows all of them alike. Every round begins with an empty cache.

    Args:
        model_dir: a model folder.
        conversations: whole recorded episodes; some 48 keep a batch of 16 full for most of the
            time. Every assistant turn is one step.
        repeats: how often each way replays its episodes: one at a time the first four, in the batch
            all.
        clock: seconds; `time.process_time` on a busy machine, with one thread only (waiting threads
            spin).

    Returns:
        `cached_speedup` one episode at a time, `batch16_speedup` in a batch of 16 (actions per
        second over those of `generate`), both over whole episodes, the first encoding of the memory
        included; the same from the second step on (`…_later`), which is what long episodes tend to;
        and the seconds per action behind them.
    """
    policy = _Replay(model_dir, slots=16)
    steps = [policy.record(conversation) for conversation in conversations]
    few = steps[:4]
    one_by_one = [[step] for episode in few for step in episode]
    together = in_lanes(steps, 16)
    firsts = {id(episode[0]) for episode in steps}

    def generate(asked: list[Conversation]) -> None:
        for conversation in asked:
            policy.generate(conversation)

    ways: dict[str, tuple[Callable[[list[Conversation]], object], list[list[Conversation]]]] = {
        "generate": (generate, one_by_one),
        "cached": (policy.act, one_by_one),
        "batch16": (policy.act, together),
    }
    times: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        for name, (way, calls) in ways.items():
            policy.forget()
            spent, count = [0.0, 0.0], [0, 0]
            for asked in calls:
                later = id(asked[0]) not in firsts
                began = clock()
                way(asked)
                spent[later] += clock() - began
                count[later] += len(asked)
            if repeat:  # the first round warms up
                times.setdefault(name, []).append(sum(spent) / sum(count))
                times.setdefault(f"{name}_later", []).append(spent[1] / max(1, count[1]))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    speedups = {
        f"{name}_speedup{later}": seconds[f"generate{later}"] / seconds[f"{name}{later}"]
        for later in ("", "_later")
        for name in ("cached", "batch16")
    }
    return speedups | {f"{name}_seconds_per_action": value for name, value in seconds.items()}


def against_generate(
    model_dir: str | Path, conversations: Sequence[Conversation], batch: int, sample: int = 3
) -> dict[str, float]:
    """Seconds per decision over whole episodes, and those of `generate` on whole prompts in a batch
    of the same size.

    Ours plays every step of `batch` recorded episodes, beginning with an empty cache, three times.
    `generate` answers at `sample` of these steps only (the first, the last, and between), in turns
    with ours, since at every step it reads everything again: its mean over them stands for all.

    Returns:
        ``ours`` and ``generate``, in seconds per decision, and their ``ratio``.
    """
    policy = _Replay(model_dir, slots=batch)
    steps = [policy.record(conversation) for conversation in conversations[:batch]]
    length = min(len(episode) for episode in steps)
    calls = [[episode[number] for episode in steps] for number in range(length)]
    chosen = sorted({round(i * (length - 1) / (sample - 1)) for i in range(sample)})
    ours: list[float] = []
    theirs: dict[int, list[float]] = {}
    for repeat in range(3):
        policy.forget()
        spent = 0.0
        for number, asked in enumerate(calls):
            began = time.perf_counter()
            policy.act(asked)
            spent += time.perf_counter() - began
            if number in chosen and (repeat == 0 or batch == 1):
                began = time.perf_counter()
                policy.generate_all(asked)
                theirs.setdefault(number, []).append(time.perf_counter() - began)
        ours.append(spent / (length * batch))
    whole = statistics.mean(statistics.median(times) for times in theirs.values()) / batch
    mine = statistics.median(ours)
    return {
        "ours": round(mine, 5), "generate": round(whole, 5), "ratio": round(whole / mine, 2),
        "steps": length,
    }  # fmt: skip


def in_lanes(episodes: Sequence[Sequence[Conversation]], lanes: int) -> list[list[Conversation]]:
    """The calls of a runner that keeps so many episodes going: when one ends, the next begins in
    its place."""
    queue = list(reversed(episodes))
    playing: list[Iterator[Conversation]] = []
    calls: list[list[Conversation]] = []
    while queue or playing:
        while queue and len(playing) < lanes:
            playing.append(iter(queue.pop()))
        asked = [
            (lane, conversation)
            for lane in playing
            if (conversation := next(lane, None)) is not None
        ]
        playing = [lane for lane, _ in asked]
        if asked:
            calls.append([conversation for _, conversation in asked])
    return calls


def synthetic(
    count: int = 32, steps: int = 15, seed: int = 0, memory: int = 300
) -> list[Conversation]:
    """Made-up episodes: 100 words of instructions, `memory` or so of memory, observations of 20,
    actions of 5."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(low, high)))

    common = words(100, 100)  # instructions: the same in all episodes
    episodes = []
    for _ in range(count):
        turns = [Turn("system", f"{common} {words(memory - 100, memory + 100)}")]
        for _ in range(steps):
            turns += [Turn("user", words(15, 25)), Turn("assistant", words(4, 6))]
        episodes.append(tuple(turns))
    return episodes


def random_model(folder: Path, heads: int = 4, key_value_heads: int = 4, layers: int = 4) -> None:
    """Saves a random Qwen3 of the bundled model's size, with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<unk>"]
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(special + _WORDS)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<unk>",
        additional_special_tokens=special[2:5],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=1500, hidden_size=256, intermediate_size=704, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_value_heads, head_dim=256 // heads,
        max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="model folder (default: a random one)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--memory", type=int, default=300, help="words of memory in the synthetic episodes"
    )
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and its processor time: for a busy machine",
    )
    arguments = parser.parse_args()
    if arguments.threads or arguments.cpu_time:
        torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.model is None:
            random_model(Path(temporary))
        result = measure(
            arguments.model or temporary,
            synthetic(memory=arguments.memory),
            arguments.repeats,
            clock,
        )
    for name, value in result.items():
        print(f"{name:32} {value:.4g}")
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
