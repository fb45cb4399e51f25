"""Environments by the ids under which Gymnasium knows them."""

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ..registry import UnknownSuiteError, register_gymnasium, search_here


@dataclass(frozen=True, slots=True)
class MadeById:
    """Makes one environment; worker processes get it as it is.

    It holds what was registered, and not the id alone: what a script registered is unknown in the
    processes that play for it.
    """

    spec: EnvSpec

    @classmethod
    def of(cls, identifier: str) -> "MadeById":
        """The maker of an id; see :func:`relive.envs.adapt.gymnasium_suite` for its forms and for
        what is raised."""
        if not identifier.strip():
            raise UnknownSuiteError("gymnasium: needs an id behind it, for example gymnasium:My-v0")
        module, _, name = identifier.rpartition(":")
        if name.startswith("relive/"):
            register_gymnasium()
        try:
            if module:
                search_here()
                importlib.import_module(module)
            return cls(gymnasium.spec(name))
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise  # something that the module itself needs
            raise ImportError(
                f"gymnasium:{identifier}: there is no module {error.name!r}: install it, or "
                "correct the name before the last colon"
            ) from None
        except gymnasium.error.Error as error:
            raise UnknownSuiteError(_unknown(identifier, name, error)) from None

    def __call__(self) -> Any:
        """A new environment, in Gymnasium's wrappers. Its checker is left out: it compares every
        observation with a space, and texts are free."""
        return gymnasium.make(self.spec, disable_env_checker=True)


def _unknown(identifier: str, name: str, error: gymnasium.error.Error) -> str:
    known = {_tail(i).lower(): i for i in gymnasium.registry} | {
        i.lower(): i for i in gymnasium.registry
    }
    close = [known[i] for i in difflib.get_close_matches(name.lower(), known, 5, cutoff=0.75)]
    hint = f" Close ones: {', '.join(dict.fromkeys(close))}." if close else ""
    return (
        f"Gymnasium has no environment {identifier!r} ({str(error).rstrip('. ')}).{hint} Ids are "
        "known once the module that registers them is imported: gymnasium:MODULE:ID does that"
    )


def _tail(identifier: str) -> str:
    return identifier.rpartition("/")[2]
