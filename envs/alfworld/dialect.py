"""ALFWorld's two dialects: which one a text speaks, and the same in the other.

Games of json_2.1.1 say ``put`` (most published agents, logs and prompts do, too), those since
json_2.1.2 say ``move``. The differences are all that the official patch of the games changed:

==============  =======================================  ====================================
what            ``put``                                  ``move``
==============  =======================================  ====================================
putting         put mug 1 in/on desk 1                   move mug 1 to desk 1
its answer      You put the mug 1 in/on the desk 1.      You move the mug 1 to the desk 1.
arriving        You arrive at loc 12. On the desk 1, …   You arrive at desk 1. On the desk 1, …
``help``        Nothing happens.                         a list of the commands
==============  =======================================  ====================================

Logs of the old dialect often lack the sentence of arriving altogether. Translating to ``move``
writes it, translating to ``put`` leaves it out, since nobody knows the number of the spot. Nothing
else changes, and translating twice changes no more than translating once.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Dialect = Literal["put", "move"]
DIALECTS: tuple[Dialect, ...] = ("put", "move")
Step = tuple[str, str]
"""An action and its answer; the action is empty for an observation that answers none."""

_REFUSED = "Nothing happens."
_NAME = r"[a-z]+ \d+"
_PUT = re.compile(rf"^put ({_NAME}) in/on ({_NAME})$")
_MOVE = re.compile(rf"^move ({_NAME}) to ({_NAME})$")
_DID_PUT = re.compile(rf"\bYou put the ({_NAME}) in/on the ({_NAME})\.")
_DID_MOVE = re.compile(rf"\bYou move the ({_NAME}) to the ({_NAME})\.")
_AT_SPOT = re.compile(r"^You arrive at loc \d+\.\s*")
_AT_PLACE = re.compile(rf"^You arrive at (?!loc \d){_NAME}\.\s*")
_SHOWN = re.compile(rf"^(?:On the ({_NAME}), you see|The ({_NAME}) is (?:open|closed)\.)")
"""What is said of a place after going to it."""
_GO = re.compile(rf"^go to ({_NAME})$")


def dialect_of(steps: Iterable[Step]) -> Dialect | Literal[""]:
    """The dialect of the world that an episode was played in; empty where nothing tells, or where
    as much speaks for the one as for the other.

    What the world said counts, and actions that it did not refuse: agents try the words of the
    other dialect, too. Where nothing of this tells, arriving without the sentence of arriving does:
    it is only ever taken out where it has a number.

    Args:
        steps: (action, answer) pairs in any number; an answer that is not known is "".
    """
    score, without = 0, False
    for action, answer in steps:
        if answer.strip() != _REFUSED:
            score += bool(_MOVE.match(action)) - bool(_PUT.match(action))
        score += bool(_DID_MOVE.search(answer)) - bool(_DID_PUT.search(answer))
        score += bool(_AT_PLACE.match(answer)) - bool(_AT_SPOT.match(answer))
        gone, shown = _GO.match(action), _SHOWN.match(answer)
        without |= bool(gone and shown and gone[1] in shown.groups())
    if score == 0:
        return "put" if without else ""
    return "move" if score > 0 else "put"


def translate_action(text: str, to: Dialect) -> str:
    """An action in a dialect. What is the same in both, or in neither, stays as it is."""
    if to == "move":
        return _PUT.sub(r"move \1 to \2", text)
    return _MOVE.sub(r"put \1 in/on \2", text)


def translate_observation(text: str, to: Dialect, action: str = "") -> str:
    """An answer in a dialect.

    Args:
        text: the answer.
        to: the dialect.
        action: what it answers, in either dialect. Without it the sentence of arriving is named
            after the place that the rest of the answer is about, and is not added where there is
            none.
    """
    if to == "move":
        text = _DID_PUT.sub(r"You move the \1 to the \2.", text)
        return _with_arrival(text, action)
    text = _DID_MOVE.sub(r"You put the \1 in/on the \2.", text)
    return _AT_PLACE.sub("", text)


def translate_steps(steps: Sequence[Step], to: Dialect) -> list[Step]:
    """An episode in a dialect; one that speaks it already comes back as it is.

    An action that was refused because it was said in the words of `to`, which the world did not
    know, is said in the other's, so that it is still one that is refused for its words.
    """
    own = dialect_of(steps)
    if own == to:
        return list(steps)
    translated = []
    for action, answer in steps:
        said = translate_action(action, to)
        if own and answer.strip() == _REFUSED:
            in_own = translate_action(action, own)
            said = in_own if in_own != action else said
        translated.append((said, translate_observation(answer, to, action)))
    return translated


def _with_arrival(text: str, action: str) -> str:
    """With "You arrive at desk 1." before what is said of the desk, where the agent went there."""
    spot = _AT_SPOT.match(text)
    rest = text[spot.end() :] if spot else text
    shown, gone = _SHOWN.match(rest), _GO.match(action)
    shown_place, gone_to = shown and (shown[1] or shown[2]), gone and gone[1]
    # Without the sentence of arriving, only an answer to "go to" gets one.
    place = (shown_place or gone_to) if spot else (shown_place == gone_to and gone_to)
    return f"You arrive at {place}. {rest}".rstrip() if place else text
