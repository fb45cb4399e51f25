"""Suites by name. Nothing is imported until a suite is asked for.

A name may have an argument: ``textworld:PATH`` plays game files, ``gymnasium:ID`` an environment
that Gymnasium knows.

A package adds its own suite through the entry-point group ``relive.envs``, in its
``pyproject.toml``::

    [project.entry-points."relive.envs"]
    garden = "my_garden.suite:GardenSuite"
"""

import difflib
import importlib
import os
import sys
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from .base import Suite, TextEnv

ENTRY_POINT_GROUP = "relive.envs"

_targets: dict[str, str] = {
    "household": "relive.envs.household.suite:HouseholdSuite",
    "household-renamed": "relive.envs.drift:household_renamed",
    "alfworld": "relive.envs.alfworld.suite:AlfworldSuite",
    "scienceworld": "relive.envs.scienceworld.suite:ScienceWorldSuite",
    "tales": "relive.envs.tales.suite:TalesSuite",
    "textworld": "relive.envs.textworld.suite:TextWorldSuite",
    "textworld-express": "relive.envs.textworld_express.suite:TextWorldExpressSuite",
    "toy": "relive.envs.toy:ToySuite",
}
_with_argument: dict[str, str] = {
    "gymnasium": "relive.envs.adapt:gymnasium_suite",
    "textworld": "relive.envs.textworld.files:suite_of",
}
"""Functions that make a suite of what follows the colon."""
_loaded: dict[str, Suite] = {}


def register(name: str, target: str) -> None:
    """Add a suite, or replace one of the same name.

    Args:
        name: what users call it.
        target: ``module:attribute`` of a class or function without arguments that makes the suite.
            A string, because workers in other processes import it too.

    Raises:
        TypeError: one of them is no text.
        ValueError: `target` is not of that form.
    """
    if not isinstance(name, str) or not isinstance(target, str):
        raise TypeError(
            f"suite {name!r}: give the text 'module:attribute', not {target!r}; an object can be "
            "passed wherever a suite is asked for, and needs no name"
        )
    module, colon, attribute = target.partition(":")
    if not module or not colon or not attribute:
        raise ValueError(
            f"suite {name!r}: {target!r} is not of the form 'module:attribute', e.g. "
            "'garden.suite:Garden'"
        )
    _targets[name] = target
    _loaded.clear()


def suite_names() -> tuple[str, ...]:
    """Names of all suites, plug-ins included, sorted."""
    return tuple(sorted({*_targets, *plugins()}))


def suite_target(name: str) -> str:
    """``module:attribute`` behind a name, or ``module:attribute:argument``.

    Raises:
        KeyError: no suite of that name; the message names the closest one.
    """
    known = _targets.get(name) or plugins().get(name)
    if known is not None:
        return known
    kind, _, argument = name.partition(":")
    if argument and kind in _with_argument:
        return f"{_with_argument[kind]}:{argument}"
    names = suite_names()
    close = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownSuiteError(
        f"there is no suite {name!r}.{hint} Registered: {', '.join(names)}; besides, "
        "textworld:PATH plays game files, and gymnasium:ID text environments that Gymnasium knows"
    )


def registered_target(suite: Suite) -> str:
    """``module:attribute`` behind a suite that `get_suite` gave; empty for any other, and for one
    that was made of an argument, which may mean nothing in another process (an id that a script
    has registered with Gymnasium)."""
    found = next((target for target, known in _loaded.items() if known is suite), "")
    return found if found.count(":") == 1 else ""


def get_suite(name: str) -> Suite:
    """The suite of a name, one instance per process.

    Raises:
        UnknownSuiteError: no suite of that name; the message names the closest one.
        ImportError: the suite needs a package that is not installed, or its entry does not exist.
    """
    return load_suite(suite_target(name))


def load_suite(target: str) -> Suite:
    """Make the suite behind ``module:attribute`` or ``module:attribute:argument``."""
    if target not in _loaded:
        module, _, rest = target.partition(":")
        attribute, _, argument = rest.partition(":")
        maker = entry(f"{module}:{attribute}", "of a suite")
        suite = maker(argument) if argument else maker()
        if not isinstance(suite, Suite):
            raise TypeError(
                f"the entry {target!r} makes {suite!r:.80}, which is no suite: inherit from "
                "relive.envs.Suite"
            )
        _loaded[target] = suite
    return _loaded[target]


def search_here() -> None:
    """Lets modules in the current folder be imported by name, as ``python`` does and an installed
    command does not."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def entry(target: str, of: str) -> Any:
    """The object behind ``module:attribute``.

    Args:
        target: the two names.
        of: what it is the entry of, for the message.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
    """
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself needs
        raise ImportError(
            f"there is no module {error.name!r}, which the entry {target!r} {of} names: "
            "install it, or correct the entry"
        ) from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ImportError(
            f"{module.__name__} ({module.__file__}) has no {attribute!r}: correct the entry "
            f"{target!r}"
        ) from None


class UnknownSuiteError(KeyError):
    """No suite of that name is registered."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show it in quotes


@lru_cache(maxsize=1)
def plugins() -> dict[str, str]:
    """Targets of the suites that other packages add, by name; looked up once per process."""
    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}


def register_gymnasium() -> None:
    """Make every suite known to Gymnasium as ``relive/<name>-v0``, for `gymnasium.make`.

    Named as an entry point of the group ``gymnasium.envs``, it runs when Gymnasium is imported.
    """
    import gymnasium

    for name in suite_names():
        identifier = f"relive/{name}-v0"
        if identifier not in gymnasium.registry:
            # Observations are free text: Gymnasium's checker would compare them with the space on
            # each step.
            gymnasium.register(identifier, entry_point=_Maker(name), disable_env_checker=True)


class _Maker:
    """Makes one suite's environment, for Gymnasium."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, **_: Any) -> TextEnv:
        return get_suite(self._name).make()
