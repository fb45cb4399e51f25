"""The bundled model's tokenizer: one token per name, one per fixed phrase of the grammar, bytes for
everything else.

On two cores tokens are what pretraining costs. "cabinet 12" as one token makes going to the next
place in the list a single step of induction, and a phrase such as "You arrive at" as one token
halves the length of an episode. Any text can be encoded without loss (byte fallback); text of other
domains just takes a token per byte.
"""

import re

from ...extras import needs

with needs("llm"):
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )
    from transformers import PreTrainedTokenizerFast

from . import lexicon as lex

PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

PHRASES: tuple[str, ...] = (
    f" {lex.INSTRUCTIONS}",
    " You are in the middle of a room. Looking quickly around you, you see a",
    " You are carrying: a",
    "\n\nYour task is to:",
    " Your task is to:",
    "\n\nExperience:",
    "\n\nSuccess. Your task is to:",
    "\n\nFailure. Your task is to:",
    "\nAction:",
    "\nObservation:",
    "\nActions:",
    *(f", {text}" for text, _ in lex.TEMPLATES),
    " go to {receptacle}",
    " {object} with {receptacle}",
    " {object}",
    ", and a",
    ", a",
    ". On the",
    ". The",
    " is closed.",
    " is open. In it, you see",
    ", you see",
    " nothing.",
    " You arrive at",
    " You open the",
    " You pick up the",
    " You move the",
    " You turn on the",
    " from the",
    " to the",
    " using the",
    " Nothing happens.",
    " go to",
    " and put it in",
    " under the",
    " with the",
)  # fmt: skip


def _names() -> list[tuple[str, int]]:
    """(kind, highest number) of everything that carries a number."""
    kinds = dict.fromkeys((*lex.OBJECTS, *lex.DEVICES), 4) | dict.fromkeys(lex.APPLIANCES, 3)
    return sorted((kinds | lex.PLACES).items())


def vocabulary() -> list[str]:
    """All tokens but the bytes, in id order; spaces are written as they are."""
    words = {
        *"a an the some put two find them in on at look examine it and open close take move from "
        "with to use inventory".split(),
        *lex.ADJECTIVES, *lex.VERBS, *lex.ROUTINES, *(kind for kind, _ in _names()), *lex.CLOSED,
        *"You The On In Success Failure task goal done slice nothing you see are is closed".split(),
    }  # fmt: skip
    numbers = [f" {i}" for i in range(31)]
    names = [f" {kind} {i}" for kind, most in _names() for i in range(1, most + 1)]
    special = [PAD, SYSTEM, USER, ASSISTANT, END]
    return [
        *special,
        *dict.fromkeys(
            (*PHRASES, *numbers, *(f" {w}" for w in sorted(words)), *names, *" .,:;!?'\n>-")
        ),
    ]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Makes the tokenizer from the lexicon; the same lexicon always gives the same ids."""
    tokens = [token.replace(" ", "▁") for token in vocabulary()]
    vocab = {token: i for i, token in enumerate([*tokens, *(f"<0x{b:02X}>" for b in range(256))])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=[], byte_fallback=True, ignore_merges=True)
    )
    # A space belongs to the word behind it, and every segment between special tokens starts with
    # one, so that a word has one id wherever it stands.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    phrases = "|".join(
        re.escape(p.replace(" ", "▁")) for p in sorted(PHRASES, key=len, reverse=True)
    )
    kinds = "|".join(sorted((kind for kind, _ in _names()), key=len, reverse=True))
    pattern = rf"{phrases}|▁(?:{kinds})▁[0-9]+(?![0-9A-Za-z])|▁?[A-Za-z]+|▁?[0-9]+|[^A-Za-z0-9]"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in (PAD, SYSTEM, USER, ASSISTANT, END)]
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' own is untyped
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
