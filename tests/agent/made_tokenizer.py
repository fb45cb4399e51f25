"""A small tokenizer with many special tokens, for tests of chat templates."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>",
    "<s>", "<|head|>", "<|/head|>", "<|eot|>", "<start>", "<stop>",
]  # fmt: skip
TEXTS = (
    "You live in a house.",
    "You are in a kitchen.\n\nYour task: heat an egg.",
    "go to the microwave 1",
    " The microwave 1 is closed. ",
    "open the microwave 1",
    "It is open.",
)
"""What it is trained on."""


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a few merges, trained on a few sentences."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<|pad|>", additional_special_tokens=SPECIAL[1:]
    )
    tokenizer.chat_template = template
    return tokenizer
