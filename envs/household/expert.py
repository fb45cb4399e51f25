"""A scripted expert for the household: searches in a fixed order, deciding from what it has read
and nothing else.

The order of search is the listed order of places, backwards: the last one listed first, which is
kinds of places backwards through the alphabet and, within a kind, ascending numbers ("drawer 1",
"drawer 2", ...). Closed places are opened. The object is taken as soon as it is seen, treated at
the first appliance of each kind that its goal asks for, in the goal's order, and put into the first
place of the kind that its goal names. Where that does not win, it looks for another object of the
kind and does the same with that.
"""

import re
from dataclasses import dataclass

_NAME = re.compile(r"\ba ([a-z]+ \d+)")
_ARRIVED = re.compile(r"^You arrive at ([a-z]+ \d+)\.")
_CLOSED = re.compile(r"The ([a-z]+ \d+) is closed\.")
_CONTENTS = re.compile(r"(?:On the ([a-z]+ \d+)|The ([a-z]+ \d+) is open\. In it), you see (.*)\.$")
_PLACES = re.compile(r"you see (.*?)\.\s*(?:\n|$)", re.DOTALL)
_GOAL = re.compile(r"Your task is to: (.*?)\.?\s*$", re.DOTALL)
_APPLIANCES = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
_ADJECTIVES = {"clean": "clean", "hot": "heat", "cool": "cool"}
_ADJECTIVE, _VERB = "|".join(_ADJECTIVES), "|".join(_APPLIANCES)
_FORMS = (
    (
        re.compile(
            rf"put (?:a|some|two) ((?:{_ADJECTIVE})(?: and (?:{_ADJECTIVE}))*) (\w+) (?:in|on) "
            r"(\w+)"
        ),
        ("treatments", "target", "destination"),
    ),
    (
        re.compile(
            rf"((?:{_VERB})(?: and (?:{_VERB}))*) (?:some|two) (\w+) and put (?:it|them) in (\w+)"
        ),
        ("treatments", "target", "destination"),
    ),
    (re.compile(r"put two (\w+) (?:in|on) (\w+)"), ("target", "destination")),
    (re.compile(r"find two (\w+) and put them in (\w+)"), ("target", "destination")),
    (re.compile(r"put (?:a|some) (\w+) (?:in|on) (\w+)"), ("target", "destination")),
    (re.compile(r"look at (\w+) under the (\w+)"), ("target", "lamp")),
    (re.compile(r"examine the (\w+) with the (\w+)"), ("target", "lamp")),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal, read from its sentence."""

    target: str
    destination: str = ""
    verbs: tuple[str, ...] = ()
    """``clean``, ``heat`` or ``cool``, or several in their order; empty when the object is to be
    left as it is."""
    lamp: str = ""


def parse_goal(text: str) -> Goal:
    """Read a goal sentence of the household.

    Raises:
        ValueError: it is none of the known wordings.
    """
    for pattern, names in _FORMS:
        match = pattern.fullmatch(text.strip())
        if match:
            parts = dict(zip(names, match.groups(), strict=True))
            words = parts.pop("treatments", "").split(" and ")
            return Goal(**parts, verbs=tuple(_ADJECTIVES.get(word, word) for word in words if word))
    raise ValueError(
        f"the household expert does not understand the goal {text!r}: it reads ALFWorld's "
        "templates only"
    )


class HouseholdExpert:
    """Plays one episode. Deterministic: the same observations give the same actions.

    Args:
        put: how something is put somewhere; ALFWorld's older games say it in other words.
    """

    def __init__(self, put: str = "move {thing} to {place}") -> None:
        self._put = put
        self._put_verb = put.partition(" ")[0]
        self._goal: Goal | None = None
        self._places: list[str] = []
        self._pointer = 0  # next place to search
        self._here = ""
        self._closed: set[str] = set()
        self._seen: dict[
            str, str
        ] = {}  # instance of the target or the lamp -> where, in the order of sighting
        self._held = ""
        self._placed: set[str] = set()
        self._treated: set[str] = set()  # verbs that were done to what is held
        self._number = 1  # of the destination
        self._last = ""

    def act(self, observation: str) -> str:
        """The next action. The first call gets the initial observation, with the places and the
        task in it."""
        if self._goal is None:
            self._begin(observation)
        else:
            self._note(observation)
        self._last = self._decide()
        return self._last

    def _begin(self, initial_observation: str) -> None:
        places, goal = _PLACES.search(initial_observation), _GOAL.search(initial_observation)
        if places is None or goal is None:
            raise ValueError(
                "not the beginning of a household game (no places or no task in it): "
                f"{initial_observation[:120]!r}"
            )
        self._places = _NAME.findall(places.group(1))[::-1]
        self._goal = parse_goal(goal.group(1))

    def _note(self, observation: str) -> None:
        """Update what is known from the answer to the last action."""
        if arrived := _ARRIVED.match(observation):
            self._here = arrived.group(1)
        if closed := _CLOSED.search(observation):
            self._closed.add(closed.group(1))
        if contents := _CONTENTS.search(observation):
            place = contents.group(1) or contents.group(2)
            self._closed.discard(place)
            self._see(place, _NAME.findall(contents.group(3)))
        verb, _, rest = self._last.partition(" ")
        thing = " ".join(rest.split()[:2])
        if observation.strip() == "Nothing happens.":
            self._refused(verb, thing)
        elif verb == "take":
            self._held = thing
            self._seen.pop(thing, None)
        elif verb == self._put_verb:
            self._held = ""
            self._placed.add(thing)
            self._treated.clear()
        elif verb in _APPLIANCES:
            self._treated.add(verb)

    def _see(self, place: str, things: list[str]) -> None:
        assert self._goal is not None
        gone = [name for name, where in self._seen.items() if where == place and name not in things]
        for name in gone:
            del self._seen[name]
        for name in things:
            if name.split()[0] in (self._goal.target, self._goal.lamp) and name not in self._placed:
                self._seen.setdefault(name, place)

    def _refused(self, verb: str, thing: str) -> None:
        """The world did not do as expected: do something else next time rather than the same for
        ever."""
        if verb == self._put_verb:
            self._number += 1
        elif verb == "take":
            self._seen.pop(thing, None)
        elif verb in ("go", "open"):
            self._pointer += 1

    def _decide(self) -> str:
        assert self._goal is not None
        if not self._held:
            return self._find(self._goal.target, "take {thing} from {place}")
        if self._goal.lamp:
            return self._find(self._goal.lamp, "use {thing}")
        if missing := [verb for verb in self._goal.verbs if verb not in self._treated]:
            appliance = f"{_APPLIANCES[missing[0]]} 1"
            return self._at(appliance) or f"{missing[0]} {self._held} with {appliance}"
        destination = f"{self._goal.destination} {self._number}"
        if self._at(destination):
            return self._at(destination)
        return (
            f"open {destination}"
            if destination in self._closed
            else self._put.format(thing=self._held, place=destination)
        )

    def _find(self, kind: str, action: str) -> str:
        """Use something of a kind where it was seen, else search on."""
        known = [(thing, place) for thing, place in self._seen.items() if thing.split()[0] == kind]
        for thing, place in known:
            if place == self._here:
                return action.format(thing=thing, place=place)
        return self._at(known[0][1]) if known else self._search()

    def _search(self) -> str:
        """The next step through the places: go to the next one, or open it."""
        for _ in range(len(self._places) + 1):
            place = self._places[self._pointer % len(self._places)]
            if place != self._here:
                return self._at(place)
            if place in self._closed:
                return f"open {place}"
            self._pointer += 1  # its contents were read on arriving or opening
        return "look"

    def _at(self, place: str) -> str:
        """The action that leads to a place; empty when already there."""
        return "" if place == self._here else f"go to {place}"
