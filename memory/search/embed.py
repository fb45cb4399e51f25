"""From texts to unit vectors: the protocol of embedders, and one that needs no model.

The hashed embedder is made for goals and instructions. What has to be found again is the
*procedure*, and what tells procedures apart is the frame of a sentence (verbs, modifiers, numbers,
function words and their order), not the things it happens to be about: "put a hot cup in the
fridge" is done like "put a hot mug in the cabinet", not like "put a clean cup in the fridge". So a
text is cut into noun phrases by a closed list of English function words, and the last word of each
phrase (its head: the thing) counts little, all others much. It knows no vocabulary of any
environment.
"""

import hashlib
import math
import operator
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Rows of unit length, shape (n, dimension)."""


class Embedder(Protocol):
    """Turns texts into unit vectors; the same text always into the same vector."""

    @property
    def identity(self) -> str:
        """Names everything the vectors depend on; vectors of different identities are never
        compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 rows of unit length, shape (len(texts), dimension)."""
        ...


class AbsentEmbedder:
    """Stands for an embedder that a memory was made with and that nobody has given: all that needs
    no new vectors goes on.

    Args:
        identity: of the embedder.
        dimension: of its vectors.
    """

    def __init__(self, identity: str, dimension: int) -> None:
        self.identity, self.dimension = identity, dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Says what to do.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"this memory was embedded with {self.identity}, which is not here: open it with "
            "Memory(path, embedder=...), or give it another embedder for good (relive memory "
            "rebuild --embedder hashed)"
        )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words(
    "a an the some any this that these those my your our his her its their no every another"
)
_NUMBERS = _words("one two three four five six seven eight nine ten both all each several many few")
_PREPOSITIONS = _words(
    "in on at to from with without under over into onto inside of off out up down by for near "
    "behind between through "
    "around next using via about against above below upon"
)
_LINKS = _words("and or then but so if when while after before until which who where")
_PRONOUNS = _words("it them they he she we you i me him us there here itself themselves something")
_AUXILIARIES = _words(
    "is are was were be been do does did can could will would should must may has have had"
)
_FUNCTION = _DETERMINERS | _NUMBERS | _PREPOSITIONS | _LINKS | _PRONOUNS | _AUXILIARIES
_COMMON = _words(
    "put get take go move place give make let use look see find bring turn set keep pick your task "
    "goal please try "
    "need want not new good first last"
)
"""Content words that occur in instructions of every kind, and so say little about which one it
is."""
_FOLDED = {
    **dict.fromkeys(_words("a an some any this that these those"), "the"),
    **dict.fromkeys(_words("on into onto inside upon"), "in"),
}
"""Function words that stand for each other in instructions: "in" a drawer and "on" a shelf are the
same act."""

_VOWELS = re.compile("[aeiou]+")
_TOKEN = re.compile(r"[^\W_]+|[.,;:!?]")

# Weights, chosen on made-up goals (tests/memory/test_embed.py), not on any environment's.
_HEAD = 0.25
_FUNCTION_WORD = 0.3
_COMMON_WORD = 0.6
_CONTENT_WORD = 2.4
_ROOT = 1.6
_NUMBER = 2.4
_PAIR = 0.3
_SKELETON = 0.6


class HashedEmbedder:
    """Deterministic, stateless, no download; some tens of microseconds per goal.

    Features of a text (weighted words, pairs of neighbouring frame words, the frame of each
    sentence) are hashed with signs into ``dimension`` buckets. Hashes do not depend on
    ``PYTHONHASHSEED``.

    Raises:
        TypeError: the dimension is no integer.
        ValueError: it is too small.
    """

    def __init__(self, dimension: int = 384) -> None:
        try:
            dimension = operator.index(dimension)
        except TypeError:
            raise TypeError(
                f"the dimension of a hashed embedder is a whole number, not {dimension!r}: use 64 "
                "or more (default 384)"
            ) from None
        if dimension < 8:
            raise ValueError(
                f"dimension {dimension} is too small to tell texts apart; use 64 or more (default "
                "384)"
            )
        self._dimension = dimension

    @property
    def identity(self) -> str:
        """``hashed-<version of the features>-<dimension>``."""
        return f"hashed-1-{self._dimension}"

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 rows of unit length, shape (len(texts), dimension)."""
        rows = np.zeros((len(texts), self._dimension), dtype=np.float64)
        for row, text in zip(rows, texts, strict=True):
            # Sorted, so that sums come out the same to the last bit in whatever order the features
            # were met.
            for feature, weight in sorted(features(text).items()):
                for bucket, sign in _buckets(feature, self._dimension):
                    row[bucket] += sign * weight
            norm = math.sqrt(float(row @ row))
            if norm > 0:
                row /= norm
            else:
                row[0] = 1.0  # an empty text must be a unit row too
        return rows.astype(np.float32)


def features(text: str) -> dict[str, float]:
    """Features of ``text`` and their weights, before hashing: what the embedder sees."""
    counts: dict[str, float] = {}
    weights: dict[str, float] = {}

    def add(feature: str, weight: float) -> None:
        counts[feature] = counts.get(feature, 0.0) + 1.0
        weights[feature] = weight

    for words in _sentences(text):
        frame = _frame(words)
        for word, is_head in frame:
            if is_head:
                add(f"head {_stem(word)}", _HEAD)
                continue
            add(f"word {_FOLDED.get(word, _stem(word))}", _weight(word))
            if not _is_function(word) and word not in _COMMON:
                add(f"root {_root(word)}", _ROOT)
        slots = ["_" if is_head else _FOLDED.get(word, _stem(word)) for word, is_head in frame]
        for left, right in zip(["^", *slots], [*slots, "$"], strict=True):
            add(f"pair {left} {right}", _PAIR)
        add(f"frame {' '.join(slots)}", _SKELETON)
    # Words that recur in a long text must not drown the others.
    return {
        feature: weights[feature] * (1.0 + math.log(count)) for feature, count in counts.items()
    }


def _sentences(text: str) -> list[list[str]]:
    """Lower-case words of each sentence; numbers that follow a word ("cup 3") name an instance and
    are dropped."""
    sentences: list[list[str]] = [[]]
    for token in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()):
        words = sentences[-1]
        if token in ".!?;:":
            sentences.append([])
        elif token == "," or (
            token.isdigit() and words and words[-1] not in _FUNCTION and words[-1] not in _COMMON
        ):
            continue
        else:
            words.append(token)
    return [words for words in sentences if words]


def _frame(words: Sequence[str]) -> list[tuple[str, bool]]:
    """Each word, and whether it is the head of a noun phrase.

    A run of content words is a noun phrase when a determiner, number or preposition stands before
    it; at the start of a clause its first word is the verb and the rest the phrase. The last word
    of a phrase is its head.
    """
    marked: list[tuple[str, bool]] = []
    start = 0
    while start < len(words):
        if _is_function(words[start]):
            marked.append((words[start], False))
            start += 1
            continue
        stop = start
        while stop < len(words) and not _is_function(words[stop]):
            stop += 1
        before = words[start - 1] if start else ""
        opens_clause = not (before in _DETERMINERS or before in _PREPOSITIONS or _is_number(before))
        has_head = stop - start > 1 or not opens_clause
        marked.extend(
            (word, has_head and place == stop - 1)
            for place, word in enumerate(words[start:stop], start)
        )
        start = stop
    return marked


def _is_number(word: str) -> bool:
    return word in _NUMBERS or word.isdigit()


def _is_function(word: str) -> bool:
    return word in _FUNCTION or word.isdigit()


def _weight(word: str) -> float:
    """How much a word of the frame says, after what is known of English in general (no corpus is
    counted)."""
    if _is_number(word):
        return _NUMBER
    if word in _FUNCTION:
        return _FUNCTION_WORD
    return _COMMON_WORD if word in _COMMON else _CONTENT_WORD


def _stem(word: str) -> str:
    """Fold the commonest endings: cups, cooling, heated."""
    if len(word) > 5 and word.endswith("ing"):
        return word[:-3]
    if len(word) > 4 and word.endswith("ed"):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _root(word: str) -> str:
    """The consonants of a word: English derives by changing vowels (hot and heat, sing and song,
    break and broke)."""
    return _VOWELS.sub("", _stem(word)) or word


@lru_cache(maxsize=2**16)
def _buckets(feature: str, dimension: int) -> tuple[tuple[int, float], ...]:
    """Four (bucket, sign) pairs: spread over several, two features that share one bucket still
    differ in the others."""
    digest = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    numbers = [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4)]
    return tuple((number // 2 % dimension, 1.0 if number % 2 else -1.0) for number in numbers)
