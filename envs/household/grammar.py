"""The text side of the engine: facts, queries over them, and TextWorld's context-sensitive grammar
rendered to text.

TextWorld parses its grammars well but renders them by copying its whole context for every symbol
and by re-parsing every query, which is where 95 % of a stock step goes. Here the parsed rules are
walked directly over plain data. Transcripts are identical to TextWorld's (golden transcripts in the
tests).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType
from typing import Any

Variable = tuple[str, str]
"""A placeholder: its name and its type, as in ``r:receptacle``."""


@dataclass(slots=True)
class Entity:
    """What the grammar's expressions can see of a thing; the attribute names are TextWorld's."""

    id: str
    name: str
    definite: str = "the"
    indefinite: str = "a"

    def __str__(self) -> str:
        return self.name


class Facts:
    """The ground facts that hold now, per predicate, listed in the order of their arguments."""

    def __init__(self, facts: Iterable[tuple[str, ...]] = ()) -> None:
        self._facts: dict[str, set[tuple[str, ...]]] = {}
        self._sorted: dict[str, list[tuple[str, ...]]] = {}
        for predicate, *arguments in facts:
            self._facts.setdefault(predicate, set()).add(tuple(arguments))

    def set(self, predicate: str, arguments: tuple[str, ...]) -> None:
        """Make a fact hold. The negation of ``p`` is the predicate ``not_p``, and the two replace
        each other."""
        opposite = predicate[4:] if predicate.startswith("not_") else f"not_{predicate}"
        self._facts.get(opposite, set()).discard(arguments)
        self._facts.setdefault(predicate, set()).add(arguments)
        self._sorted.pop(opposite, None)
        self._sorted.pop(predicate, None)

    def listed(self, predicate: str) -> list[tuple[str, ...]]:
        """Arguments of all facts of a predicate, sorted: the order in which things are listed in
        the text."""
        if predicate not in self._sorted:
            self._sorted[predicate] = sorted(self._facts.get(predicate, ()))
        return self._sorted[predicate]

    def match(
        self, query: Sequence["Condition"], binding: Mapping[Variable, str]
    ) -> Iterator[dict[Variable, str]]:
        """Every way to bind the query's placeholders beyond `binding`; distinct placeholders bind
        distinctly."""
        if not query:
            yield dict(binding)
            return
        first, rest = query[0], query[1:]
        for arguments in self.listed(first.predicate):
            extended = dict(binding)
            for variable, value in zip(first.variables, arguments, strict=True):
                if variable in extended:
                    if extended[variable] != value:
                        break
                elif value in extended.values():
                    break
                else:
                    extended[variable] = value
            else:
                yield from self.match(rest, extended)


@dataclass(frozen=True, slots=True)
class Condition:
    """One predicate of a query, for example ``inreceptacle(o:object, r:receptacle)``."""

    predicate: str
    variables: tuple[Variable, ...]


@lru_cache(maxsize=4096)
def parse_query(text: str) -> tuple[Condition, ...]:
    """Parse ``p(a:t, b:u) & q(b:u)``.

    Raises:
        ValueError: the text is not a conjunction of predicates.
    """
    conditions = []
    for part in text.split("&"):
        predicate, parenthesis, rest = part.strip().partition("(")
        if not parenthesis or not rest.endswith(")"):
            raise ValueError(f"not a query of TextWorld's grammar: {text!r} (at {part.strip()!r})")
        variables = []
        for argument in filter(None, (a.strip() for a in rest[:-1].split(","))):
            name, colon, kind = argument.partition(":")
            variables.append((name.strip(), kind.strip() if colon else name.strip()))
        conditions.append(Condition(predicate.strip(), tuple(variables)))
    return tuple(conditions)


@lru_cache(maxsize=4096)
def _compiled(expression: str) -> CodeType:
    return compile(expression.strip(), "<grammar>", "eval")


@dataclass(slots=True)
class Scope:
    """What a piece of grammar is rendered in."""

    facts: Facts
    entities: Mapping[str, Entity]
    binding: dict[Variable, str] = field(default_factory=dict)

    def extended(self, query: str) -> Iterator["Scope"]:
        """One scope per answer to a query; without a query, this one."""
        if not query:
            yield self
            return
        for binding in self.facts.match(parse_query(query), self.binding):
            yield Scope(self.facts, self.entities, binding)

    def evaluate(self, expression: str) -> str:
        """Value of an expression such as ``o.indefinite + ' ' + o.name``, as text."""
        names = {name: self.entities[value] for (name, _), value in self.binding.items()}
        # The expression comes with the game file, as in TextWorld; without builtins it can name
        # entities only.
        return str(eval(_compiled(expression), {"__builtins__": {}}, names))


class Renderer:
    """Renders the rules of a parsed `textworld` grammar.

    Args:
        rules: rule name -> productions, as `ContextSensitiveGrammar` holds them after parsing.
    """

    def __init__(self, rules: Mapping[str, Sequence[Any]]) -> None:
        self._rules = {name: list(productions) for name, productions in rules.items()}

    def text(self, template: str, scope: Scope) -> str:
        """Render a template such as ``#intro#`` or ``take {o} from {r}``."""
        return "".join(self._render(symbol, scope) for symbol in _parse_template(template))

    def _render(self, symbol: Any, scope: Scope) -> str:
        return "".join(self._pieces(symbol, scope))

    def _pieces(self, symbol: Any, scope: Scope) -> list[str]:
        """A symbol's text, as a list with one entry per answer to its query (which `ListSymbol`
        separates)."""
        match type(symbol).__name__:
            case "TerminalSymbol":
                return [str(symbol.symbol)]
            case "EvalSymbol":
                return [scope.evaluate(symbol.expression)]
            case "NonterminalSymbol":
                return [
                    "".join(
                        self._render(part, scope)
                        for part in self._production(str(symbol.symbol), scope)
                    )
                ]
            case "ConditionalSymbol":
                return [
                    self._render(symbol.expression, inner)
                    for inner in scope.extended(symbol.given or "")
                ]
            case "ListSymbol":
                return [self._listed(self._pieces(symbol.symbol, scope), scope)]
            case other:
                raise ValueError(
                    f"grammar symbol {other} is not known to this engine (textworld changed?)"
                )

    def _production(self, name: str, scope: Scope) -> Sequence[Any]:
        """Right-hand side of the first production of a rule whose condition holds."""
        for rule in self._rules.get(name, ()):
            if (
                not rule.condition
                or next(scope.facts.match(parse_query(rule.condition), scope.binding), None)
                is not None
            ):
                rhs: Sequence[Any] = rule.rhs
                return rhs
        raise ValueError(
            f"the game's grammar has no rule that applies for #{name}#: the game file is incomplete"
        )

    def _listed(self, pieces: list[str], scope: Scope) -> str:
        if not pieces:
            return self.text("#list_empty#", scope)
        if len(pieces) == 1:
            return pieces[0]
        last = self.text("#list_last_separator#", scope)
        return self.text("#list_separator#", scope).join(pieces[:-1]) + last + pieces[-1]


@lru_cache(maxsize=4096)
def _parse_template(template: str) -> tuple[Any, ...]:
    from textworld.envs.pddl import textgen

    return tuple(textgen._parse_and_convert(template, rule_name="symbols"))
