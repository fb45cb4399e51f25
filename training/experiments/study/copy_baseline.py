"""A scripted policy that copies the nearest demonstration, its objects replaced: a baseline for
reading experience.

What a language model does with a demonstration counts as reading only as far as it goes beyond
this. The script is the last demonstration of the system turn that is labelled Success; the two
goals say what stands for what.

Nothing here knows a domain. Names are a kind and a number (``cup 2``), as the random policy takes
them. How one moves, looks and acts is read from the suite's action templates, and which names are
places from the slot of the template that moves. Two words of English are taken for granted: a place
reported as "is closed" is opened with the look template that starts with "open".
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ....agent.conversation import Action, Conversation
from ....agent.policy import observations
from ....agent.prompt import Demonstration
from ....envs import ActionTemplate
from ....memory.episode import Actor

_NAME = re.compile(r"\b[a-z]+ \d+\b")
_SLOT = re.compile(r"\{\w+\}")
_CLOSED = re.compile(r"\b([a-z]+ \d+) is closed\b")
_HEAD = re.compile(
    r"^(Success|Failure)\. (?:Your task is to: (?P<phrase>.*)\.|Task: (?P<told>.*))$", re.MULTILINE
)
_STEP = re.compile(r"^Action: (.*)\nObservation: ((?:.|\n(?!Action: ))*)", re.MULTILINE)
_GOAL = re.compile(r"Your task is to: (.*?)\.?\s*$", re.DOTALL)


class CopyPolicy:
    """Repeats the nearest successful demonstration with its objects replaced. Stateless; meant for
    static retrieval.

    Literal (`search` False): the script's actions one after the other, names replaced as the goals
    say (`substitution`); a name that was not read gets the lowest number of its kind that was read.

    With search: the same, but an act on a thing that is not at hand first looks for one: where one
    was read before, else through the places of the initial observation, last listed first, opening
    what is reported closed. What is found stands for the script's thing from there on. The place
    where it was stands for the script's place in that act only: a script may come back to the same
    place for another reason. An act is done at the last place that it names, which is gone to, and
    opened where it is reported closed; moves and openings of the script that would change nothing,
    or lead to what was already found elsewhere, are left out.

    Without a successful demonstration, and when the script is over, it only looks.

    Args:
        templates: the suite's action forms with their kinds.
        search: whether to look for what is not at hand.

    Raises:
        ValueError: `search`, and no template moves or none opens.
    """

    def __init__(self, templates: Sequence[ActionTemplate], search: bool) -> None:
        self.search = search
        self.actor = Actor("copier-search" if search else "copier")
        self._grammar = _Grammar(templates)
        if search and not self._grammar.can_search:
            raise ValueError(
                "copying with search needs a template of kind 'move' and one of kind 'look' that "
                "starts with 'open', each "
                f"with one slot; the suite lists {', '.join(t.text for t in templates) or 'none'}"
            )

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """The next action of the copy for each conversation; `seeds` are not used."""
        return [Action(self._next(conversation)) for conversation in conversations]

    def _next(self, conversation: Conversation) -> str:
        seen = observations(conversation)
        shown = demonstrations_in(conversation[0].text) if conversation[0].role == "system" else ()
        script = next((demo for demo in reversed(shown) if demo.success), None)
        goal = _GOAL.search(seen[0])
        if script is None:
            return self._grammar.idle
        actions = [action for action, _ in script.steps if action]
        # Where goals are whole instructions, nothing says which words stand for which.
        words = substitution(script.goal, goal.group(1)) if goal else {}
        if self.search:
            copy = _Search(self._grammar, actions, words)
            return [copy.act(text) for text in seen][-1]
        if len(seen) > len(actions):
            return self._grammar.idle
        read = {name for text in seen for name in _NAME.findall(text)}
        return _NAME.sub(lambda name: adapted(name.group(), words, read), actions[len(seen) - 1])


def copiers(templates: Sequence[ActionTemplate]) -> tuple[str, ...]:
    """The copying baselines that can play a suite of these templates: looking for things needs
    templates that say how."""
    return ("copier", "copier-search") if _Grammar(templates).can_search else ("copier",)


def demonstrations_in(system: str) -> tuple[Demonstration, ...]:
    """The demonstrations of a system turn as `relive.agent.prompt.system_text` writes it, in the
    order shown (closest last)."""
    _, _, block = system.partition("\n\nExperience:\n\n")
    heads = list(_HEAD.finditer(block))
    ends = [*(head.start() for head in heads), len(block)][1:]
    return tuple(
        Demonstration(
            head["phrase"] or head["told"] or "",
            head.group(1) == "Success",
            tuple((a, o.removesuffix("\n\n")) for a, o in _STEP.findall(block[head.end() : end])),
            goal_form="phrase" if head["told"] is None else "instruction",
        )
        for head, end in zip(heads, ends, strict=True)
    )


def substitution(theirs: str, own: str) -> dict[str, str]:
    """Which word of one goal stands for which of the other; only words that differ, the first place
    counts.

    Goals of the same number of words are read side by side. Otherwise `difflib.SequenceMatcher`
    aligns their words, and what it replaces by as many words counts; a wording too far apart leaves
    words without a counterpart.
    """
    a, b = theirs.split(), own.split()
    if len(a) == len(b):
        pairs = list(zip(a, b, strict=True))
    else:
        blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        pairs = [
            pair
            for tag, i, k, j, m in blocks
            if tag == "replace" and k - i == m - j
            for pair in zip(a[i:k], b[j:m], strict=True)
        ]
    words: dict[str, str] = {}
    for word, other in pairs:
        words.setdefault(word, other)
    return {word: other for word, other in words.items() if word != other}


def adapted(name: str, words: Mapping[str, str], read: set[str]) -> str:
    """A name of the script as a name of one's own: kind replaced, and the lowest number read where
    its own was not.

    Args:
        name: kind and number.
        words: from `substitution`.
        read: all names read so far.
    """
    kind, number = name.split()
    kind = words.get(kind, kind)
    if f"{kind} {number}" in read:
        return f"{kind} {number}"
    numbers = [int(other.split()[1]) for other in read if other.split()[0] == kind]
    return f"{kind} {min(numbers, default=int(number))}"


@dataclass(frozen=True, slots=True)
class _Said:
    """An action of the script, taken apart."""

    text: str
    kind: str
    """``move``, ``look`` or ``act``."""
    names: tuple[str, ...]
    slots: tuple[str, ...]
    """What each name fills, as the template calls it; empty when no template fits."""

    def with_names(self, names: Sequence[str]) -> str:
        """The action about other names."""
        left = iter(names)
        return _NAME.sub(lambda _: next(left), self.text)


class _Grammar:
    """What the action templates say about how to act."""

    def __init__(self, templates: Sequence[ActionTemplate]) -> None:
        self._forms = [
            (
                t.kind,
                re.compile(r"([a-z]+ \d+)".join(map(re.escape, _SLOT.split(t.text)))),
                tuple(self._slots(t)),
            )
            for t in templates
        ]
        moves = [t for t in templates if t.kind == "move" and len(self._slots(t)) == 1]
        self.place = self._slots(moves[0])[0] if moves else ""
        """Name of the slot that holds places."""
        opens = [
            t
            for t in templates
            if t.text.startswith("open ") and t.kind == "look" and len(self._slots(t)) == 1
        ]
        self.can_search = bool(moves and opens)
        self._move, self._open = moves[0].text if moves else "", opens[0].text if opens else ""
        self.idle = next(
            (t.text for t in templates if t.kind == "look" and not self._slots(t)), "look"
        )
        """An action that changes nothing."""

    @staticmethod
    def _slots(template: ActionTemplate) -> list[str]:
        return [slot[1:-1] for slot in _SLOT.findall(template.text)]

    def parse(self, action: str) -> _Said:
        """An action taken apart; one that fits no template is an ``act`` without slots."""
        names = tuple(_NAME.findall(action))
        for kind, pattern, slots in self._forms:
            if pattern.fullmatch(action) and len(slots) == len(names):
                return _Said(action, kind, names, slots)
        return _Said(action, "act", names, ())

    def go(self, place: str) -> str:
        """The action that leads to a place."""
        return _SLOT.sub(place, self._move)

    def open(self, place: str) -> str:
        """The action that opens a place."""
        return _SLOT.sub(place, self._open)


class _Search:
    """One episode of copying with search, told the observations one after the other."""

    def __init__(self, grammar: _Grammar, script: Sequence[str], words: Mapping[str, str]) -> None:
        self._grammar, self._words = grammar, words
        self._script = [grammar.parse(action) for action in script]
        self._next = 0  # in the script
        self._read: set[str] = set()
        self._places: list[str] = []  # in the order of search
        self._here = ""
        self._closed: set[str] = set()
        self._done: set[str] = set()  # places that need not be searched any more
        self._barred: set[str] = set()  # places that could not be reached
        self._found: dict[
            str, str
        ] = {}  # thing -> the place where it was read, in the order of reading
        self._stands: dict[str, str] = {}  # the script's thing -> the own one
        self._last: _Said | None = None

    def act(self, observation: str) -> str:
        """The next action. The first call gets the initial observation, with the places in it."""
        self._note(observation)
        action = self._decide()
        self._last = self._grammar.parse(action)
        return action

    def _note(self, observation: str) -> None:
        """Update what is known from the answer to the last action."""
        names = _NAME.findall(observation)
        self._read.update(names)
        self._closed.update(_CLOSED.findall(observation))
        if self._last is None:
            self._places = list(
                dict.fromkeys(reversed(_NAME.findall(observation.partition("Your task is to:")[0])))
            )
            return
        if self._last.kind == "move" and self._last.names:
            place = self._last.names[0]
            if place in names:
                self._here = place
            else:
                self._barred.add(place)
                self._done.add(place)
        elif self._last.text == self._grammar.open(self._here):
            self._closed.discard(
                self._here
            )  # whatever the answer: what does not open is not tried for ever
        if self._here:
            if self._here not in self._closed:
                self._done.add(self._here)
            for name in names:
                if name not in self._places:  # what one can go to is not there to be taken
                    self._found.setdefault(name, self._here)

    def _decide(self) -> str:
        while self._next < len(self._script):
            said = self._script[self._next]
            step = self._act(said) if said.kind == "act" else self._look(said)
            if step:
                return step
            self._next += 1
        return self._grammar.idle

    def _look(self, said: _Said) -> str:
        """The script's move or look; empty when it would bring nothing new."""
        names = [self._own(name) for name in said.names]
        action = said.with_names(names)
        following = next((s for s in self._script[self._next :] if s.kind == "act"), None)
        if following and self._instance(self._unbound(following)):
            return ""
        if (
            said.kind == "move"
            and names
            and (names[0] == self._here or not self._reachable(names[0]))
        ):
            return ""
        if names and action == self._grammar.open(names[0]) and names[0] not in self._closed:
            return ""
        self._next += 1
        return action

    def _act(self, said: _Said) -> str:
        """The script's act, or what has to be done before it."""
        places = [i for i, slot in enumerate(said.slots) if slot == self._grammar.place]
        names = [self._own(name) for name in said.names]
        thing = self._unbound(said)
        instance = self._instance(thing)
        if instance:
            names[0] = instance
            for i in places:
                names[i] = self._found[instance]
        elif thing and (step := self._explore()):
            return step
        where = self._found[instance] if instance else names[places[-1]] if places else self._here
        if where != self._here and self._reachable(where):
            return self._grammar.go(where)
        if self._here in self._closed:
            return self._grammar.open(self._here)
        if instance:
            self._stands[thing] = instance
        self._next += 1
        return said.with_names(names)

    def _own(self, name: str) -> str:
        return self._stands.get(name) or adapted(name, self._words, self._read)

    def _reachable(self, place: str) -> bool:
        return place in self._places and place not in self._barred

    def _unbound(self, said: _Said) -> str:
        """The script's thing that an act is about, when nothing stands for it yet; else empty."""
        if (
            said.slots
            and said.slots[0] != self._grammar.place
            and said.names[0] not in self._stands
        ):
            return said.names[0]
        return ""

    def _instance(self, thing: str) -> str:
        """An own thing, read somewhere and not in use, that can stand for the script's: one at hand
        before others."""
        kind = thing.split()[0] if thing else ""
        kind = self._words.get(kind, kind)
        free = [n for n in self._found if n.split()[0] == kind and n not in self._stands.values()]
        return next(
            (name for name in free if self._found[name] == self._here), free[0] if free else ""
        )

    def _explore(self) -> str:
        """The next step through the places: open this one, or go to the next; empty when all were
        searched."""
        if self._here in self._closed:
            return self._grammar.open(self._here)
        for place in self._places:
            if place not in self._done:
                return self._grammar.go(place)
        return ""
