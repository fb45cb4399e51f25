"""Names of things in a text, found by the shape of the words around them: for whoever knows nothing
of the world, such as the random policy."""

import re

_NUMBERED = re.compile(r"\b[a-z]+ \d+\b")
_AFTER_ARTICLE = re.compile(
    r"\b(?:a|an|the|some|your)\s+(?=([a-z][a-z'-]*(?:\s+[a-z][a-z'-]*){0,3}))", re.IGNORECASE
)
_ENDS = frozenset(
    "is are was were be has have had here there in on at of to from with and or that which into "
    "onto by for you it its this these next where containing contains inside under made looks "
    "seems appears can could will would a an the some your".split()
)
"""Words at which a name ends."""


def names_in(text: str) -> list[str]:
    """What a text names, sorted: "mug 2", and what follows an article ("a green door")."""
    found = set(_NUMBERED.findall(text))
    for match in _AFTER_ARTICLE.finditer(text):
        words: list[str] = []
        for word in match[1].lower().split():
            if word in _ENDS:
                break
            words.append(word)
        if words:
            found.add(" ".join(words))
    return sorted(found)
