"""Writes memory/confusables.txt: which characters look like an ASCII one.

    python -m venv /tmp/v && /tmp/v/bin/pip install confusable-homoglyphs==3.3.1
    /tmp/v/bin/python scripts/make_confusables.py

The library carries the table of Unicode's Technical Standard 39 (confusables.txt). Of its pairs
those are kept that `relive.memory.normal` asks for: characters that are left over after
compatibility decomposition, case folding and the removal of marks, and that look like one ASCII
character: letters and symbols like a letter or digit, punctuation like punctuation. The library is
needed here only, and relive is not.
"""

import importlib.metadata
import json
import textwrap
import unicodedata
from pathlib import Path

PACKAGE = "confusable-homoglyphs"
OUT = Path(__file__).resolve().parent.parent / "memory" / "confusables.txt"
HEADER = """\
# Characters that look like an ASCII one: first that, then the code points of the characters.
# Written by scripts/make_confusables.py from {package} {version} (MIT licence), which carries
# the confusables of Unicode Technical Standard 39, data version 15.1. Copyright 1991-2023 Unicode,
# Inc.; Unicode License v3, see https://www.unicode.org/license.txt
"""


def looks() -> dict[str, list[str]]:
    """What each character looks like: the pairs of Unicode's table, in both directions."""
    (file,) = (f for f in importlib.metadata.files(PACKAGE) or () if f.name == "confusables.json")
    raw = json.loads(file.read_text(encoding="utf-8"))
    # Letters that are written from right to left stand between marks of direction there.
    found: dict[str, list[str]] = {}
    for key, others in raw.items():
        found.setdefault(key.strip("\u200e"), []).extend(o["c"].strip("\u200e") for o in others)
    return {key: others for key, others in found.items() if len(key) == 1}


def without_marks(text: str) -> str:
    """Compatibility decomposition without its combining marks."""
    apart = unicodedata.normalize("NFKD", text)
    return "".join(c for c in apart if not unicodedata.category(c).startswith("M"))


def ascii_look(character: str, pairs: dict[str, list[str]], marked: bool) -> str | None:
    """The ASCII character, in lower case, that a character looks like (marks aside)."""
    punctuation = unicodedata.category(character).startswith("P")
    for other in pairs.get(character, ()):
        text = {"rn": "m", "''": '"'}.get(other, other)  # what the table has for m and " themselves
        text = (without_marks(text) if marked else text).casefold()
        if len(text) == 1 and text.isascii() and text.isalnum() != punctuation:
            return text
    return None


def is_left_over(character: str) -> bool:
    """Whether `relive.memory.normal` leaves a character as it is before it folds look-alikes."""
    category = unicodedata.category(character)
    unchanged = unicodedata.normalize("NFKD", character) == character == character.casefold()
    return unchanged and not character.isascii() and category[0] in "LNPS" and category != "Nd"


def folded() -> dict[str, str]:
    """ASCII character by the character that looks like it.

    By the look of the character itself; failing that, of its capital (small ve looks like no letter
    of ours, but capital ve like a B, and case must not count); failing that, of a character with
    the same look.
    """
    pairs = looks()
    wanted = [character for character in pairs if is_left_over(character)]
    found: dict[str, str] = {}
    for marked in (False, True):
        for form in (str, str.upper):
            here = {c: look for c in wanted if (look := ascii_look(form(c), pairs, marked))}
            found = here | found
    left = {c: pairs[c] for c in wanted if c not in found}
    while alike := {c: found[o] for c, others in left.items() for o in others if o in found}:
        found |= alike
        left = {c: others for c, others in left.items() if c not in found}
    return found


def main() -> None:
    """Writes the file."""
    by_look: dict[str, list[str]] = {}
    for character, look in sorted(folded().items()):
        by_look.setdefault(look, []).append(f"{ord(character):04X}")
    text = HEADER.format(package=PACKAGE, version=importlib.metadata.version(PACKAGE))
    for look, codes in sorted(by_look.items()):
        text += "".join(f"{look} {line}\n" for line in textwrap.wrap(" ".join(codes), 96))
    OUT.write_text(text, encoding="ascii")
    print(f"wrote {OUT}: {sum(map(len, by_look.values()))} characters")


if __name__ == "__main__":
    main()
