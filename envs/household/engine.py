"""Plays a household game: ALFWorld's logic in Fast Downward's library, its grammar, and no planner.

Same answers as TextWorld's `PddlEnv` with ALFWorld's names (`tests.envs.stock`), at a
small part of the cost. An engine plays any number of games one after the other, and any number of
engines can play side by side in one process, though not in several threads.
"""

import gzip
import json
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import assets
from .generator import Game, display_names
from .grammar import Entity, Facts, Renderer, Scope, Variable
from .translate import Translation, translate

SUPPORTED_TEXTWORLD = "1.7.0"
REFUSED = "Nothing happens."
"""The engine's answer to a command that it does not know or that does not apply."""

_TASK_SENTENCE = "Your task is to: "


def read_game(path: str | Path) -> Game:
    """Read a ``game.tw-pddl`` file as ALFWorld distributes them, gzip-compressed or not.

    Raises:
        ValueError: the file is not such a game.
    """
    return read_game_file(path)[0]


def read_game_file(path: str | Path) -> tuple[Game, Mapping[str, Any]]:
    """The game in a ``game.tw-pddl`` file, and everything that the file says, for example whether
    the game was found ``solvable``. Raises like `read_game`."""
    raw = Path(path).read_bytes()
    try:
        data = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        domain, grammar, problem = data["pddl_domain"], data["grammar"], data["pddl_problem"]
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is not a game.tw-pddl file ({type(error).__name__}: {error}): "
            "expected a JSON object with pddl_domain, grammar and pddl_problem"
        ) from error
    # Put the placeholder back, so that games that share a grammar share its parse.
    before, sentence, after = grammar.partition(_TASK_SENTENCE)
    goal, quote, rest = after.partition('"')
    if not sentence or not quote:
        raise ValueError(
            f"{path}: the grammar has no sentence {_TASK_SENTENCE!r}, so the game has no readable "
            "goal"
        )
    stop = "." if goal.endswith(".") else ""
    template = before + sentence + assets.GOAL_PLACEHOLDER + stop + quote + rest
    return Game(domain, template, problem, goal.removesuffix(".")), data


@lru_cache(maxsize=32)
def _logic(domain: str, grammar: str) -> tuple[Renderer, dict[str, tuple[str, str]]]:
    """The parsed grammar and, per action, its command template and the rule of its feedback."""
    import textworld

    if textworld.__version__ != SUPPORTED_TEXTWORLD:
        raise ImportError(
            "suite 'household' reads grammars through internals of textworld "
            f"{SUPPORTED_TEXTWORLD}, but "
            f"{textworld.__version__} is installed: pip install textworld=={SUPPORTED_TEXTWORLD}"
        )
    from textworld.envs.pddl import logic as textworld_logic

    parsed: Any = textworld_logic.GameLogic(domain=domain, grammar=grammar)
    actions = {
        name: (action.template, action.feedback_rule) for name, action in parsed.actions.items()
    }
    return Renderer(parsed.grammar._rules), actions


# Each engine needs a copy of the C library for itself, for it holds one game in global variables. A
# copy once loaded is never unloaded but kept for the next engine: closing two copies crashes the
# process at its end (their C++ runtimes share symbols), and dropping them leaks 2.6 MB each.
_spare_libraries: list[Any] = []


def _borrow_library() -> Any:
    import fast_downward

    return _spare_libraries.pop() if _spare_libraries else fast_downward.load_lib()


class Engine:
    """One player of household games.

    `load` a game, then `reset` and `step` at will; `reset` starts the loaded game again.
    """

    def __init__(self) -> None:
        self._library: Any = _borrow_library()
        self._return_library = weakref.finalize(self, _spare_libraries.append, self._library)
        self._game: Game | None = None
        self._translation: Translation
        self._entities: dict[str, Entity]
        self._facts: Facts
        self._operators: dict[str, tuple[Any, str, dict[Variable, str]]] | None = None
        self._commands: dict[str, str] = {}
        self._atom_values: dict[str, tuple[str, ...]] = {}

    def load(self, game: Game) -> None:
        """Take up a game. 0.2-0.4 s the first time a game is met, a few milliseconds later.

        Raises:
            ValueError: the game's PDDL cannot be translated.
            ImportError: textworld is missing or of another version.
        """
        self._renderer, self._actions = _logic(game.domain, game.grammar)
        self._translation = translate(game.domain, game.problem)
        self._game = game
        self._commands = {}

    def reset(self) -> str:
        """Start the loaded game; returns its opening text, ALFWorld's banner line included."""
        if self._game is None:
            raise RuntimeError("Engine.reset before Engine.load: load a game first")
        import fast_downward

        self._library.load_sas(self._translation.sas.encode())
        atoms = (fast_downward.Atom * self._library.get_state_size())()
        self._library.get_state(atoms)
        state = [fact for fact in map(self._fact, atoms) if not fact[0].startswith("not_")]
        self._facts = Facts([*self._translation.facts, *state])
        symbols = {argument for fact in (*self._translation.facts, *state) for argument in fact[1:]}
        self._entities = {
            id: Entity(id, name) for id, name in display_names(sorted(symbols)).items()
        }
        self._operators = None
        intro = self._renderer.text("#intro#", Scope(self._facts, self._entities))
        return intro.replace(assets.GOAL_PLACEHOLDER, self._game.goal)

    def step(self, command: str) -> str:
        """Carry out a command; returns the feedback, which is `REFUSED` for what cannot be done
        now."""
        found = self._applicable().get(command.strip())
        if found is None:
            return REFUSED
        operator, action, binding = found
        import fast_downward

        effects = (fast_downward.Atom * operator.nb_effect_atoms)()
        self._library.apply_operator(operator.id, effects)
        for effect in effects:
            predicate, *arguments = self._fact(effect)
            self._facts.set(predicate, tuple(arguments))
        self._operators = None
        return self._renderer.text(
            self._actions[action][1], Scope(self._facts, self._entities, binding)
        )

    def won(self) -> bool:
        """Whether the goal holds now."""
        return bool(self._library.check_goal())

    def admissible(self) -> list[str]:
        """All commands that would be carried out now, sorted."""
        return sorted(self._applicable())

    def close(self) -> None:
        """Hand the C library on to the next engine. This one cannot be used afterwards; closing
        twice is allowed."""
        self._return_library()
        self._library, self._game = None, None

    def _applicable(self) -> dict[str, tuple[Any, str, dict[Variable, str]]]:
        """Command -> (operator, action, what its parameters are bound to); the first operator of a
        command counts."""
        if self._operators is not None:
            return self._operators
        import fast_downward

        operators = (fast_downward.Operator * self._library.get_applicable_operators_count())()
        self._library.get_applicable_operators(operators)
        found: dict[str, tuple[Any, str, dict[Variable, str]]] = {}
        for operator in operators:
            name = operator.name
            action, *arguments = name.split()
            binding = dict(zip(self._translation.parameters[action], arguments, strict=False))
            # Command templates query nothing that an action changes (`go to` asks where a
            # receptacle stands), so an operator's command is the same in every state of a game.
            command = self._commands.get(name)
            if command is None:
                scope = Scope(self._facts, self._entities, binding)
                command = self._commands[name] = self._renderer.text(
                    self._actions[action][0], scope
                )
            found.setdefault(command, (operator, action, binding))
        self._operators = found
        return found

    def _fact(self, atom: Any) -> tuple[str, ...]:
        """``NegatedAtom p(a, b)`` as ``("not_p", "a", "b")``."""
        text = atom.name
        fact = self._atom_values.get(text)
        if fact is None:
            kind, _, rest = text.partition(" ")
            predicate, _, arguments = rest.partition("(")
            if kind == "NegatedAtom":
                predicate = f"not_{predicate}"
            fact = self._atom_values[text] = (predicate, *filter(None, arguments[:-1].split(", ")))
        return fact
