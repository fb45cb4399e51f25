"""The chat encoder: turn by turn must be what the template says, and only ever grow."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from relive.agent.conversation import Conversation, Turn
from relive.agent.llm.chat import ChatEncoder
from relive.agent.llm.template import TODAY
from tests.agent.made_tokenizer import make_tokenizer

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ '<s>' }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim "
    "}}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% "
    "endif %}"
    "{% for m in messages %}<start>{{ m.role }}\n{{ m.content }}<stop>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
TEMPLATES = {"plain": PLAIN, "chatml": CHATML, "llama": LLAMA, "no system": NO_SYSTEM}
ENDS = {"plain": "<|end|>", "chatml": "<|im_end|>", "llama": "<|eot|>", "no system": "<stop>"}
TALK: Conversation = (
    Turn("system", "You live in a house."),
    Turn("user", "You are in a kitchen.\n\nYour task: heat an egg."),
    Turn("assistant", "go to the microwave 1"),
    Turn("user", " The microwave 1 is closed. "),
    Turn("assistant", "open the microwave 1"),
    Turn("user", "It is open."),
)


def whole(tokenizer: Any, talk: Conversation, prompt: bool) -> list[int]:
    """What the template gives for everything at once."""
    messages = [{"role": turn.role, "content": turn.text} for turn in talk]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("name", ["plain", "chatml", "llama"])
@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_same_as_template(name: str, length: int) -> None:
    """Turn by turn gives the ids of the whole conversation rendered at once."""
    tokenizer = make_tokenizer(TEMPLATES[name])
    encoder = ChatEncoder(tokenizer)
    asked = TALK[length - 1].role == "user"
    if asked:
        assert encoder.prompt(TALK[:length]) == whole(tokenizer, TALK[:length], True)
    else:
        assert encoder.sequences(TALK[:length])[0].ids == whole(tokenizer, TALK[:length], False)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_conversations_grow_at_the_end(name: str) -> None:
    """Ids of a conversation, asked or not, are a prefix of those of the conversation that goes
    on."""
    encoder = ChatEncoder(make_tokenizer(TEMPLATES[name]))
    assert not encoder.looks_back
    longest = encoder.prompt(TALK)
    for length in range(2, len(TALK) + 1):
        if TALK[length - 1].role == "user":
            ids = encoder.prompt(TALK[:length])
        else:
            ids = encoder.sequences(TALK[:length])[0].ids
        assert longest[: len(ids)] == ids
        assert length == len(TALK) or len(ids) < len(longest)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_sampled_ids_are_kept(name: str) -> None:
    """An assistant turn with ids is read as these, even where its text would be tokenised
    differently."""
    tokenizer = make_tokenizer(TEMPLATES[name])
    encoder = ChatEncoder(tokenizer)
    word = "microwave"
    letters = tuple(tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in word)
    assert list(letters) != tokenizer(word, add_special_tokens=False)["input_ids"]
    asked = encoder.prompt(TALK[:2])
    said = (*TALK[:2], Turn("assistant", word, letters), *TALK[3:])
    ids = encoder.prompt(said)
    assert ids[: len(asked)] == asked
    assert tuple(ids[len(asked) : len(asked) + len(word)]) == letters
    # What follows is what the template puts there, whatever was said.
    as_text = encoder.prompt((*TALK[:2], Turn("assistant", word), *TALK[3:]))
    tail = ids[len(asked) + len(word) :]
    assert as_text[-len(tail) :] == tail
    assert tail[0] == tokenizer.convert_tokens_to_ids(ENDS[name])


@pytest.mark.parametrize("name", list(TEMPLATES))
@pytest.mark.parametrize("sampled", [False, True])
def test_supervised(name: str, sampled: bool) -> None:
    """Supervised: the assistants' text and the one token that ends the turn, nothing else."""
    tokenizer = make_tokenizer(TEMPLATES[name])
    encoder = ChatEncoder(tokenizer)
    tokens = tuple(tokenizer("go up", add_special_tokens=False)["input_ids"]) if sampled else ()
    talk = (*TALK[:2], Turn("assistant", "go up", tokens), *TALK[3:])
    (encoded,) = encoder.sequences(talk)
    assert len(encoded.ids) == len(encoded.supervised)
    own = [token for token, is_own in zip(encoded.ids, encoded.supervised, strict=True) if is_own]
    assert tokenizer.decode(own) == f"go up{ENDS[name]}open the microwave 1{ENDS[name]}"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_stop_ids(name: str) -> None:
    """The end of a turn is found in the template; more come from the model's settings."""
    tokenizer = make_tokenizer(TEMPLATES[name])
    assert ChatEncoder(tokenizer, eos_ids=[7]).stop_ids == {
        tokenizer.convert_tokens_to_ids(ENDS[name]),
        7,
    }


def test_system_text_is_folded() -> None:
    """A template without a system role gets the system text at the head of the first user turn."""
    tokenizer = make_tokenizer(NO_SYSTEM)
    folded = (Turn("user", f"{TALK[0].text}\n\n{TALK[1].text}"), *TALK[2:])
    encoder = ChatEncoder(tokenizer)
    assert encoder.prompt(TALK) == whole(tokenizer, folded, True)
    assert encoder.prompt(TALK) == encoder.prompt(folded)
    assert encoder.sequences(TALK) == encoder.sequences(folded)


def test_turns_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation that was encoded before costs no tokenising, one more turn costs that turn."""
    encoder = ChatEncoder(make_tokenizer(PLAIN))
    encoder.prompt(TALK)
    seen: list[str] = []
    tokenize = PreTrainedTokenizerFast.__call__

    def watched(tokenizer: PreTrainedTokenizerFast, text: str, **options: Any) -> Any:
        seen.append(text)
        return tokenize(tokenizer, text, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", watched)
    encoder.prompt(TALK)
    assert seen == []
    encoder.prompt((*TALK, Turn("assistant", "wait"), Turn("user", "Time passes.")))
    assert len(seen) == 2


# Only the last reply keeps its thoughts, as in Qwen3.
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    "template", [THINKS, CHATML.replace("{{ m.role }}", "{{ m.role }} {{ loop.revindex }}")]
)
def test_templates_that_look_back(template: str) -> None:
    """Each answer is learnt under exactly what is read before it, however the past is rewritten."""
    tokenizer = make_tokenizer(template)
    encoder = ChatEncoder(tokenizer)
    assert encoder.looks_back
    sequences = encoder.sequences(TALK)
    assert len(sequences) == 2
    for length, (ids, learnt) in zip((2, 4), sequences, strict=True):
        prompt = encoder.prompt(TALK[:length])
        assert prompt == whole(tokenizer, TALK[:length], True)
        fed = [*prompt, *encoder.opening_ids]
        assert ids[: len(fed)] == fed
        assert learnt == [False] * len(fed) + [True] * (len(ids) - len(fed))
        assert tokenizer.decode(ids[len(fed) :]) == f"{TALK[length].text}<|im_end|>"


def test_refused_answers_are_no_targets_there_either() -> None:
    (only,) = ChatEncoder(make_tokenizer(THINKS)).sequences(TALK, masked={0})
    assert only.supervised.count(True) > 1
    assert ChatEncoder(make_tokenizer(THINKS)).sequences(TALK, masked={0, 1}) == []
    assert ChatEncoder(make_tokenizer(PLAIN)).sequences(TALK, masked={0, 1}) == []


def test_ids_of_another_tokenizer_are_not_taken() -> None:
    """An episode may have been played by another model: its ids mean something else here."""
    for template in (CHATML, THINKS):
        encoder = ChatEncoder(make_tokenizer(template))
        for tokens in ((10, 11, 12), (99_999,), (-5,)):
            other = (*TALK[:2], Turn("assistant", TALK[2].text, tokens), *TALK[3:])
            assert encoder.prompt(other) == encoder.prompt(TALK)


def test_the_date_is_always_the_same() -> None:
    encoder = ChatEncoder(make_tokenizer("{{ strftime_now('%d %b %Y') }}" + CHATML))
    assert encoder.template.render(TALK).startswith(TODAY.strftime("%d %b %Y"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("", "has no chat template"),
        (PLAIN.replace("<|end|>", " ."), "special token"),
        (CHATML.replace("m.content", "'x'"), "leaves out"),
        (CHATML.replace("m.content", "m.content.images.first"), "cannot write a conversation"),
        ("{% for", "cannot write a conversation"),
    ],
)
def test_unfit_templates(template: str | None, message: str) -> None:
    """Templates that cannot work are refused when the encoder is made, with what to do."""
    with pytest.raises(ValueError, match=message) as caught:
        ChatEncoder(make_tokenizer(template))
    assert "\n" not in str(caught.value)
    assert "chat_template=" in str(caught.value) or "add one" in str(caught.value)


def test_own_template_instead() -> None:
    """A template can be given in place of the tokenizer's."""
    tokenizer = make_tokenizer(None)
    assert ChatEncoder(tokenizer, chat_template=PLAIN).prompt(TALK) == whole(
        make_tokenizer(PLAIN), TALK, True
    )


@pytest.mark.parametrize(
    ("talk", "prompt", "message"),
    [
        ((), False, "at least one turn"),
        (TALK[:1], False, "needs a user turn"),
        ((TALK[0], TALK[2]), False, "turn 1 is a assistant turn where a user"),
        ((*TALK, TALK[5]), False, "turn 6 is a user turn where a assistant"),
        ((*TALK[:2], TALK[0]), False, "turn 2 is a system turn"),
        (TALK[:3], True, "after a user turn"),
        ((Turn("user", "hello", (1, 2)),), False, "only assistants sample"),
    ],
)
def test_order_of_turns(talk: Conversation, prompt: bool, message: str) -> None:
    """Turns in another order are an error that says which turn."""
    encoder = ChatEncoder(make_tokenizer(PLAIN))
    encode: Any = encoder.prompt if prompt else encoder.sequences
    with pytest.raises(ValueError, match=message):
        encode(talk)


@pytest.mark.parametrize("template", [CHATML, THINKS])
def test_thoughts_of_another_time_are_not_read_with_thinking_off(template: str) -> None:
    """Sampled with thinking on, learnt and shown with thinking off: the answer's own ids only."""
    tokenizer = make_tokenizer(template)
    encoder = ChatEncoder(tokenizer)
    tokens = tuple(
        tokenizer("<think>\nI go.\n</think>\n\ngo", add_special_tokens=False)["input_ids"]
    )
    thought = Turn("assistant", "go", tokens, "I go.")
    for conversation in ((*TALK[:2], thought, TALK[3]), (*TALK[:2], thought)):
        plain = tuple(replace(t, tokens=(), reasoning="") for t in conversation)
        if conversation[-1].role == "user":
            assert encoder.prompt(conversation) == encoder.prompt(plain)
        assert encoder.sequences(conversation) == encoder.sequences(plain)


def test_all_of_the_end_of_a_turn_is_learnt() -> None:
    """Whatever stands between an answer and the token that ends it; nothing twice."""
    tokenizer = make_tokenizer(PLAIN.replace("<|end|>", "\n<|end|>"))
    (one,) = ChatEncoder(tokenizer).sequences(TALK[:3])
    own = [i for i, learnt in zip(*one, strict=True) if learnt]
    assert tokenizer.decode(own) == f"{TALK[2].text}\n<|end|>"
    spaced = "{% for m in messages %}<|{{ m.role }}|>{{ ' ' + m.content + ' ' }}<|end|>{% endfor %}"
    tokenizer.chat_template = spaced + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    encoder = ChatEncoder(tokenizer)
    sampled = tuple(tokenizer(" go ", add_special_tokens=False)["input_ids"])
    (one,) = encoder.sequences((*TALK[:2], Turn("assistant", "go", sampled)))
    own = [i for i, learnt in zip(*one, strict=True) if learnt]
    assert tokenizer.decode(own) == " go <|end|>"


def test_a_turn_that_the_next_one_ends() -> None:
    """As GLM's: the marker of the next turn is what ends an answer, and it is learnt."""
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = make_tokenizer(template)
    encoder = ChatEncoder(tokenizer)
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    assert user in encoder.stop_ids
    sequences = encoder.sequences(TALK)
    assert all(len(one.ids) == len(one.supervised) for one in sequences)
    own = [i for one in sequences for i, learnt in zip(*one, strict=True) if learnt]
    assert tokenizer.decode(own) == f"{TALK[2].text}<|user|>{TALK[4].text}<|user|>"


def test_templates_that_show_the_last_turns_only() -> None:
    template = CHATML.replace("messages %}", "messages[-7:] %}", 1)
    tokenizer = make_tokenizer(template)
    encoder = ChatEncoder(tokenizer)
    long = (*TALK, *TALK[2:4], *TALK[2:4])
    assert encoder.looks_back
    assert encoder.prompt(long) == whole(tokenizer, long, True)


@pytest.mark.parametrize("call", ["strftime_now('%d %b %Y')", "strftime_now(f)"])
def test_dates_are_fixed_however_they_are_asked_for(call: str) -> None:
    template = "{% set f = '%A %d %B %Y %H:%M' %}{{ " + call + " }}" + CHATML
    text = ChatEncoder(make_tokenizer(template)).template.render(TALK)
    assert text.startswith((TODAY.strftime("%d %b %Y"), TODAY.strftime("%A %d %B %Y %H:%M")))


@pytest.mark.parametrize("name", ["plain", "no system"])
def test_half_a_character_is_read_as_one_that_there_is(name: str) -> None:
    """A model may sample one; no tokenizer takes it."""
    encoder = ChatEncoder(make_tokenizer(TEMPLATES[name]))
    half, whole = (
        (
            Turn("system", f"fry {end}"), Turn("user", f"a {end}"),
            Turn("assistant", f"b {end}"), Turn("user", end),
        )
        for end in ("\ud83d", "\ufffd")
    )  # fmt: skip
    assert encoder.prompt(half) == encoder.prompt(whole)
    assert encoder.count("fry \ud83d") == encoder.count("fry \ufffd")
    learnt = encoder.sequences((*half, Turn("assistant", "c \ude00")))
    assert learnt == encoder.sequences((*whole, Turn("assistant", "c \ufffd")))
