"""The local policy: what is in the cache and who else is asked must never change an action."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from relive.agent.conversation import Action, Conversation, Turn
from relive.agent.llm.local import ContextOverflow, LocalModel

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<unk>"]
WORDS = [f"w{number}" for number in range(90)]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_model(
    folder: Path, kind: str = "qwen3", hidden: int = 32, template: str | None = TEMPLATE
) -> Path:
    """A tiny random model whose weights are large enough that it says many different things."""
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[2:5],
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": 96, "hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 2048, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
        "tie_word_embeddings": kind == "qwen3",
    }  # fmt: skip
    model = (
        Qwen3ForCausalLM(Qwen3Config(**sizes))
        if kind == "qwen3"
        else LlamaForCausalLM(LlamaConfig(**sizes))
    )
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(
                weight, std=0.3 if "embed" not in name and "lm_head" not in name else 1.0
            )
    with torch.no_grad():
        model.lm_head.weight[1] *= 2.0  # ends its turn now and then
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only wait for each other in models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3."""
    return save_model(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with an output layer of its own."""
    return save_model(tmp_path_factory.mktemp("llama"), "llama")


def words(rng: random.Random, low: int, high: int) -> str:
    """Some random text."""
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def openings(count: int, seed: int = 0, memory: tuple[int, int] = (40, 220)) -> list[Conversation]:
    """Beginnings of episodes: a common instruction, a memory of their own, a first observation."""
    rng = random.Random(seed)
    common = words(rng, 30, 30)
    return [
        (Turn("system", f"{common} {words(rng, *memory)}"), Turn("user", words(rng, 2, 25)))
        for _ in range(count)
    ]


def play(
    act: Callable[[list[Conversation]], list[Action]],
    talks: list[Conversation],
    steps: int,
    keep: bool = True,
) -> tuple[list[list[Action]], list[Conversation]]:
    """Lets all conversations go on for some steps; what is observed does not depend on what is
    done."""
    rng = random.Random(1)
    history = []
    for _ in range(steps):
        actions = act(talks)
        history.append(actions)
        talks = [
            (
                *talk,
                Turn("assistant", action.text, action.tokens if keep else ()),
                Turn("user", words(rng, 2, 25)),
            )
            for talk, action in zip(talks, actions, strict=True)
        ]
    return history, talks


def reference(
    folder: Path, policy: LocalModel, talks: list[Conversation], adapter: Path | None = None
) -> list[Action]:
    """The oracle: transformers' own forward pass over everything, for every token, without any
    cache."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    actions = []
    for talk in talks:
        ids = policy.encoder.prompt(talk)
        tokens: list[int] = []
        while len(tokens) < policy.max_new_tokens:
            with torch.inference_mode():
                token = int(
                    model(torch.tensor([ids + tokens]), use_cache=False).logits[0, -1].argmax()
                )
            if token in policy.encoder.stop_ids:
                break
            tokens.append(token)
        actions.append(Action(policy.encoder.read(tokens)[1], tuple(tokens)))
    return actions


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["folder", "llama"])
def test_same_as_transformers(kind: str, attention: Any, request: pytest.FixtureRequest) -> None:
    """Over several steps, with everything reused, actions are those of a plain model that reads all
    of it anew."""
    model = request.getfixturevalue(kind)
    policy = LocalModel(model, attention=attention, max_new_tokens=8)
    talks = openings(5)
    for _ in range(3):
        expected = reference(model, policy, talks)
        history, talks = play(policy.act, talks, 1)
        assert history[0] == expected
    assert len({action.tokens for action in expected}) == 5  # not always the same token


@pytest.mark.parametrize("size", [1, 4, 16])
def test_batch_does_not_matter(folder: Path, size: int) -> None:
    """Actions at batch 1, 4 and 16, reused, are those of a policy that has never seen anything."""

    def in_batches(talks: list[Conversation]) -> list[Action]:
        return [
            action for i in range(0, len(talks), size) for action in policy.act(talks[i : i + size])
        ]

    policy = LocalModel(folder, max_new_tokens=8)
    history, _ = play(in_batches, openings(16), 4)
    fresh = LocalModel(folder, max_new_tokens=8)

    def anew(talks: list[Conversation]) -> list[Action]:
        actions = []
        for talk in talks:
            fresh.forget()
            actions += fresh.act([talk])
        return actions

    assert history == play(anew, openings(16), 4)[0]
    lengths = {len(action.tokens) for step in history for action in step}
    assert len(lengths) > 1, "all actions of one length: rows that end early are not tested"


def test_whoever_is_ready(folder: Path) -> None:
    """Subsets in any order, some asked twice, some steps apart: always what each gets alone."""
    rng = random.Random(5)
    policy, alone = (
        LocalModel(folder, max_new_tokens=6, slots=6),
        LocalModel(folder, max_new_tokens=6, slots=1),
    )
    talks = openings(9, seed=2)
    for _ in range(15):
        chosen = rng.sample(range(9), rng.randint(1, 9))
        asked = [talks[number] for number in chosen]
        actions = policy.act(asked)
        for number, action in zip(chosen, actions, strict=True):
            alone.forget()
            assert alone.act([talks[number]]) == [action]
            if rng.random() < 0.8:
                talks[number] += (
                    Turn("assistant", action.text, action.tokens),
                    Turn("user", words(rng, 2, 40)),
                )


def test_only_new_tokens_are_encoded(folder: Path) -> None:
    """One more step costs the end of the turn, the observation and the answer, and nothing else."""
    policy = LocalModel(folder, max_new_tokens=6)
    history, talks = play(policy.act, openings(3), 1)
    before = policy.tokens_encoded
    policy_actions = policy.act(talks)
    grown = [
        len(policy.encoder.prompt(talk)) - len(policy.encoder.prompt(talk[:2])) for talk in talks
    ]
    said = [max(1, len(action.tokens)) for action in history[0]]
    answered = sum(len(action.tokens) for action in policy_actions)
    assert policy.tokens_encoded - before <= sum(grown) - sum(said) + 3 + answered


def test_shared_prefix_is_encoded_once(folder: Path) -> None:
    """Conversations with the same memory, new in the same call: it is read once and copied."""
    policy = LocalModel(folder, max_new_tokens=4)
    rng = random.Random(0)
    memory = Turn("system", words(rng, 300, 300))
    talks: list[Conversation] = [(memory, Turn("user", words(rng, 5, 15))) for _ in range(6)]
    actions = policy.act(talks)
    assert policy.tokens_encoded < 300 + 6 * 30
    assert actions == reference(folder, policy, talks)


def test_same_conversation_twice(folder: Path) -> None:
    """The same conversation several times in one call shares no slot, and each copy can go its own
    way."""
    policy = LocalModel(folder, max_new_tokens=6)
    talk = openings(1)[0]
    first = policy.act([talk, talk, talk])
    assert first[0] == first[1] == first[2]
    branches = [(*talk, Turn("assistant", "w1"), Turn("user", f"w{number}")) for number in range(3)]
    assert policy.act(branches) == reference(folder, policy, branches)
    assert len({slot.ids.tobytes() for slot in policy._decoder._table.slots[:3]}) == 3


def test_more_conversations_than_slots(folder: Path) -> None:
    """Slots are given up, the one used longest ago first, and nothing is wrong with the actions."""
    policy = LocalModel(folder, max_new_tokens=4, slots=3)
    talks = openings(7)
    expected = reference(folder, policy, talks)
    assert policy.act(talks) == expected
    assert len(policy._decoder._table.slots) == 3
    policy.act(talks[:3])
    policy.act(talks[1:3])
    before = policy.tokens_encoded
    policy.act(talks[3:4])  # takes the slot of talks[0]
    middle = policy.tokens_encoded
    assert policy.act(talks[1:3]) == expected[1:3]
    assert policy.tokens_encoded - middle < 2 * 10 < middle - before


def test_other_action_than_sampled(folder: Path) -> None:
    """A conversation that goes on with other words than the model's own drops these from the
    cache."""
    policy = LocalModel(folder, max_new_tokens=8)
    _, talks = play(
        lambda talks: policy.act(talks) and [Action("w3 w4 w5")] * len(talks), openings(3), 3
    )
    assert policy.act(talks) == reference(folder, policy, talks)


def test_sampled_tokens_are_kept(folder: Path) -> None:
    """Ids that no text would be tokenised to (special tokens inside an action) stay in the
    conversation."""
    policy = LocalModel(folder)
    talk = openings(1)[0]
    odd = (*talk, Turn("assistant", "w1 w2", (7, 3, 8)), Turn("user", "w9"))
    plain = (*talk, Turn("assistant", "w1 w2"), Turn("user", "w9"))
    assert policy.act([odd]) == reference(folder, policy, [odd])
    ids = policy.encoder.prompt(odd)
    assert (
        policy._decoder._table.slots[0].ids[: len(ids)].tolist()
        == ids
        != policy.encoder.prompt(plain)
    )


def test_sampling_depends_on_the_seed_alone(folder: Path) -> None:
    """With a temperature, an action follows from conversation and seed, whoever else is asked."""
    policy = LocalModel(folder, temperature=1.5, max_new_tokens=6)
    talks = openings(8)
    together = policy.act(talks, list(range(8)))
    alone = LocalModel(folder, temperature=1.5, max_new_tokens=6)
    assert [alone.act([talk], [seed])[0] for seed, talk in enumerate(talks)] == together
    assert policy.act(talks[::-1], list(range(8))[::-1]) == together[::-1]
    assert len({action.tokens for action in policy.act([talks[0]] * 8, list(range(8)))}) > 4
    with pytest.raises(ValueError, match="needs one seed"):
        policy.act(talks)


def test_sampling_follows_the_distribution(folder: Path) -> None:
    """First tokens over many seeds come out as often as the model's probabilities say."""
    policy = LocalModel(folder, temperature=2.0, max_new_tokens=1)
    talk = openings(1, memory=(40, 40))[0]
    ids = policy.encoder.prompt(talk)
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, -1]
    wanted = torch.softmax(logits / 2.0, -1)
    count = torch.zeros(96)
    for first in range(0, 1600, 16):
        for action in policy.act([talk] * 16, range(first, first + 16)):
            count[action.tokens[0] if action.tokens else 1] += 1
    assert float((count / 1600 - wanted).abs().sum()) < 0.3
    top = int(wanted.argmax())
    assert abs(float(count[top] / 1600 - wanted[top])) < 4 * float(
        (wanted[top] * (1 - wanted[top]) / 1600).sqrt()
    )


def save_adapter(folder: Path, target: Path, seed: int, **options: Any) -> Path:
    """A LoRA adapter that changes something: PEFT starts with B at nought."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", **options
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(str(target))
    return target


def test_adapters(folder: Path, tmp_path: Path) -> None:
    """Changing adapters changes actions at once: nothing that another one has encoded is used."""
    one, two = save_adapter(folder, tmp_path / "v1", 1), save_adapter(folder, tmp_path / "v2", 2)
    policy = LocalModel(folder, max_new_tokens=6)
    talks = openings(4)
    base = policy.act(talks)
    hashes = [policy.weights_sha256]
    for adapter in (one, two):
        policy.set_adapter(adapter)
        assert policy.adapter == adapter.name
        assert policy.act(talks) == reference(folder, policy, talks, adapter) != base
        hashes.append(policy.weights_sha256)
    policy.set_adapter(one, "v1")  # back to what was good: the same weights under their old name
    assert policy.act(talks) == LocalModel(folder, adapter=one, max_new_tokens=6).act(talks)
    assert policy.weights_sha256 == hashes[1]
    policy.set_adapter(None)
    assert policy.adapter is None
    assert policy.act(talks) == base
    assert len(set(hashes)) == 3


def test_version_stands_for_the_same_weights(folder: Path, tmp_path: Path) -> None:
    """Other weights under an old version's name are refused, and the policy stays as it was."""
    one, two = save_adapter(folder, tmp_path / "one", 1), save_adapter(folder, tmp_path / "two", 2)
    policy = LocalModel(folder, adapter=one, adapter_version="v1")
    before = policy.act(openings(2))
    with pytest.raises(ValueError, match="'v1' has been used for other weights"):
        policy.set_adapter(two, "v1")
    assert policy.adapter == "v1"
    assert policy.act(openings(2)) == before


def test_merged_adapter_is_exact(folder: Path, tmp_path: Path) -> None:
    """Logits with the adapter merged into the weights are those of PEFT's own, within rounding."""
    adapter = save_adapter(folder, tmp_path / "v1", 1)
    policy = LocalModel(folder, adapter=adapter)
    ids = torch.tensor([policy.encoder.prompt(openings(1)[0])])
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder), str(adapter)
    ).eval()
    policy._last = None
    with torch.inference_mode():
        merged, expected = policy.model(ids).logits, plain(ids).logits
    torch.testing.assert_close(merged, expected, atol=2e-4, rtol=1e-4)


def test_weights_hash(folder: Path) -> None:
    """The hash is that of the file, so that anyone can check it with sha256sum."""
    import hashlib

    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert LocalModel(folder).weights_sha256 == expected
    assert load_file(folder / "model.safetensors")


def test_newline_ends_an_action(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that goes on after its action is stopped at the end of the line, but not before it
    said anything."""
    policy = LocalModel(folder, max_new_tokens=8)
    script = [20, 9, 20, 11]
    monkeypatch.setattr(
        policy._sampler, "_sample", lambda logits, batch: [script[len(r.tokens)] for r in batch]
    )
    spelt = {20: "\n", 9: "x", 11: "y"}
    monkeypatch.setattr(policy.encoder, "text_of", lambda ids: "".join(spelt[i] for i in ids))
    assert policy.act(openings(2))[0].tokens == (20, 9)


def test_too_long(folder: Path) -> None:
    """What does not fit is known before; asking nevertheless is one clear error, and the others are
    unharmed."""
    policy = LocalModel(folder, context=200, max_new_tokens=10)
    short, long = openings(1, memory=(40, 40))[0], openings(1, memory=(200, 200))[0]
    assert policy.fits(short)
    assert not policy.fits(long)
    assert policy.room(short) == 200 - 10 - len(policy.encoder.prompt(short))
    expected = policy.act([short])
    with pytest.raises(ContextOverflow, match=r"conversation 1 has .* show it less memory"):
        policy.act([short, long])
    assert policy.act([short]) == expected
    exact = (short[0], Turn("user", short[1].text + " w1" * policy.room(short)))
    assert policy.room(exact) == 0
    assert policy.act([exact]) == reference(folder, policy, [exact])


def test_bfloat16(folder: Path) -> None:
    """bf16 runs; it need not agree with fp32."""
    policy = LocalModel(folder, dtype="bfloat16", max_new_tokens=4)
    assert len(play(policy.act, openings(3), 2)[0]) == 2


def test_wrong_turn(folder: Path) -> None:
    """Only a conversation that ends with a user turn can be answered."""
    with pytest.raises(ValueError, match="after a user turn"):
        LocalModel(folder).act([(*openings(1)[0], Turn("assistant", "w1"))])


def test_nothing_asked(folder: Path) -> None:
    """No conversations, no actions."""
    assert LocalModel(folder).act([]) == []


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """The error's text, which must be one line and not hang on another error's traceback."""
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.__cause__ is None
    return text


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing folders and unknown names say what is missing and what to do."""
    with pytest.raises(FileNotFoundError, match=r"no model folder .*check the path") as caught:
        LocalModel(tmp_path / "missing")
    one_line(caught)
    with pytest.raises(FileNotFoundError, match=r"no config\.json") as caught:
        LocalModel(tmp_path)
    one_line(caught)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"no such folder.*check the name and the network"
    ) as caught:
        LocalModel("nobody/no-such-model")
    one_line(caught)


def test_broken_model(folder: Path, tmp_path: Path) -> None:
    """A folder that is not a usable model."""
    save_model(tmp_path / "untold", template=None)
    with pytest.raises(ValueError, match="no chat template"):
        LocalModel(tmp_path / "untold")
    save_model(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        LocalModel(tmp_path / "cut")
    one_line(caught)


def test_adapter_for_another_model(folder: Path, llama: Path, tmp_path: Path) -> None:
    """An adapter that does not fit is refused in one line, before anything is changed."""
    wide = save_model(tmp_path / "wide", hidden=64)
    adapter = save_adapter(wide, tmp_path / "adapter", 1)
    policy = LocalModel(folder)
    with pytest.raises(
        ValueError, match=r"another model \(.*wide\).* has 64 .* has 32 there"
    ) as caught:
        policy.set_adapter(adapter)
    one_line(caught)
    with pytest.raises(
        FileNotFoundError, match=r"no adapter in .*adapter_config.json is missing"
    ) as missing:
        policy.set_adapter(tmp_path / "nowhere")
    one_line(missing)
    assert policy.adapter is None
    assert policy.act(openings(1))
