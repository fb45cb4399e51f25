"""What the bundled model rehearses while it is fine-tuned: the worlds that it was pretrained on."""

import itertools
from collections.abc import Iterator

from ..examples import Example
from . import corpus


def rehearsal(seed: int) -> Iterator[Example]:
    """Endless examples whose procedures are bound afresh each time; the same for the same seed.

    Without them, easy tasks (whose procedures are always the same) teach the answer by heart, and
    reading it from memory is unlearnt.
    """
    for number in itertools.count():
        sample = corpus.draw(seed, number, 1.0)
        yield Example(sample.conversation, sample.injected_errors)
