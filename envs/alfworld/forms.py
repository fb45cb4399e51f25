"""Action forms as a game's own grammar has them.

Every ``game.tw-pddl`` file brings its grammar, and files of different years say some actions in
other words: "put apple 1 in/on fridge 1" in json_2.1.1, "move apple 1 to fridge 1" since
json_2.1.2. So forms are read, not known.
"""

import re
from collections.abc import Mapping

from ..base import ActionTemplate

_ACTION = re.compile(r'\baction\s+(\w+)\s*\{\s*template\s*::\s*"((?:[^"\\]|\\.)*)"')
_LOOKED_UP = re.compile(r"\[\{(\w+)\.[^\]]*\}\]")
"""As in ``go to [{r.name | receptacleatlocation(r:receptacle, lend:location)}]``."""
_BLANK = re.compile(r"\{(\w+)\}")

PUT = "PutObject"
_SHOWN = (
    ("GotoLocation", "move"),
    ("OpenObject", "look"),
    ("CloseObject", "look"),
    ("examineObject", "look"),
    ("look", "look"),
    ("inventory", "look"),
    ("PickupObject", "act"),
    (PUT, "act"),
    ("SliceObject", "act"),
    ("ToggleObject", "act"),
    ("CleanObject", "act"),
    ("HeatObject", "act"),
    ("CoolObject", "act"),
)
"""The actions that prompts list, with their kinds, in the household's order. The others say the
same words, put things into things, which the domain does not allow, or print a help that the
prompt makes superfluous."""

_DIALECTS = {"put {object} in/on {receptacle}": "put", "move {object} to {receptacle}": "move"}


def forms_of(grammar: str) -> dict[str, str]:
    """Action -> its form with ``{object}`` and ``{receptacle}`` for the blanks, for the actions
    that prompts list.

    Raises:
        ValueError: the grammar says of none of them how it is said.
    """
    said = {name.lower(): template for name, template in _ACTION.findall(grammar)}
    forms = {name: _form(said[name.lower()]) for name, _ in _SHOWN if name.lower() in said}
    if not forms:
        raise ValueError(
            'the grammar has no action with a template (action GotoLocation { template :: "…")'
        )
    return forms


def templates_of(forms: Mapping[str, str]) -> tuple[ActionTemplate, ...]:
    """The forms as a suite lists them."""
    return tuple(ActionTemplate(forms[name], kind) for name, kind in _SHOWN if name in forms)


def dialect_named(forms: Mapping[str, str]) -> str:
    """``put`` or ``move``, and for a grammar of neither kind its own first word of putting."""
    form = forms.get(PUT, "")
    return _DIALECTS.get(form) or form.partition(" ")[0] or "none"


def _form(template: str) -> str:
    plain = _LOOKED_UP.sub(r"{\1}", template)
    return _BLANK.sub(lambda match: "{receptacle}" if match[1] == "r" else "{object}", plain)
