"""One normal form for goals, rooms and identities: two spellings are the same if this is the same.

Texts that read alike must not count as different ones, or whatever is kept apart by them (the same
task, the same room and goal) is got round by a change of spelling, by accident or not. What does
not count:

* case, width, and other ways to write a character that Unicode calls compatible: ``Ｍｕｇ`` is
  ``mug``, ``ﬁ`` is ``fi``;
* combining marks (``é`` is ``e``), vowel signs of Indic scripts and voicing marks of kana included;
* what cannot be seen: zero-width characters, soft hyphens, controls of direction, variation
  selectors, fillers, control characters;
* which script a character is of, if it looks like an ASCII letter, digit or punctuation mark
  (``confusables.txt``, from Unicode's table). Decimal digits of other scripts count by their value;
* how much white space there is, of what kind, and whether there is any at either end.

In goals only words count: punctuation, symbols and underscores are as good as a space, and the
articles a, an, the are left out. A goal without words is compared as a room is; a goal that is
nothing but articles keeps them.

What is still let through: ASCII characters that look alike (0 and o, 1 and l, rn and m), letters
that look like two of ours (æ, ю), capitals that look like another letter than their small ones do
(Greek Ν folds like ν, to v), look-alikes that Unicode does not list, a space within a word, other
words for the same thing, another order of words. What is taken for the same though it is not: words
of other scripts that differ in marks only, or in letters with one look; goals that differ in
symbols only. The error is on the side of keeping back.

ASCII text without capitals and controls stays as it is but for its white space, and so do
identities that are hashes. The tables are those of this Python's Unicode; characters that a later
version adds are left as they are.
"""

import re
import unicodedata
from functools import cache
from pathlib import Path

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+")
_BLANK = frozenset("\u2800\U0001d159\U00013441\U00013442")
"""Symbols and letters that are drawn as a space."""
_UNSEEN = frozenset("\u115f\u1160\ufffc")
"""Fillers of Hangul, which are letters, and the mark for an object that is not there."""
_IGNORED = (range(0x2065, 0x2066), range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000))
"""Code points that are drawn as nothing, whatever they will be assigned to."""
MOST = 1 << 15
"""Characters whose normal form is kept at hand."""


def normal_text(text: str) -> str:
    """The normal form of a room or an identity; empty where nothing can be seen."""
    return " ".join(_folded(text).split())


def normal_goal(text: str) -> str:
    """The normal form of a goal: its words, without articles."""
    words = _WORD.findall(_folded(text))
    return " ".join([word for word in words if word not in _ARTICLES] or words) or normal_text(text)


def _folded(text: str) -> str:
    """The text with each character in its normal form; white space is not collapsed yet."""
    if text.isascii() and text.isprintable():
        return text.lower()
    return text.translate(_forms)


class Forms(dict[int, str]):
    """Normal forms by code point, made when they are asked for."""

    def __missing__(self, code: int) -> str:
        if len(self) >= MOST:
            self.clear()
        form = self[code] = character_form(chr(code))
        return form


_forms = Forms()


def character_form(character: str) -> str:
    """The normal form of one character; each character of it is its own normal form."""
    # One character at a time, to the end: steps on whole texts would have to be repeated, as each
    # can bring out what an earlier one would have changed.
    apart = unicodedata.normalize("NFKD", character)
    if apart != character:
        return "".join(map(character_form, apart))
    if character.isspace() or character in _BLANK:
        return " "
    if _is_unseen(character):
        return ""
    small = character.casefold()
    if small != character:
        return "".join(map(character_form, small))
    digit = unicodedata.decimal(character, None)
    return look_alikes().get(character, character) if digit is None else str(digit)


def _is_unseen(character: str) -> bool:
    """Whether a character is drawn as nothing, or as a mark on the one before it."""
    category, code = unicodedata.category(character), ord(character)
    return (
        category[0] == "M"
        or category in ("Cc", "Cf")
        or character in _UNSEEN
        or any(code in ignored for ignored in _IGNORED)
    )


@cache
def look_alikes() -> dict[str, str]:
    """ASCII character by the character that looks like it."""
    lines = Path(__file__).with_name("confusables.txt").read_text(encoding="ascii").splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return {chr(int(code, 16)): look for look, *codes in pairs for code in codes}
