"""What can be left out of an installation, and what to say where it is missing.

The core is the memory, the environments' contract, the agent and the command line. Everything
heavier is an extra, and a module that cannot do without one says so before it imports it::

    with needs("llm"):
        import torch

Only whether the packages are there is asked, and nothing is imported for that. An error inside of a
package, or inside of a user's own module, stays what it is.
"""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Literal

Extra = Literal[
    "llm",
    "server",
    "household",
    "scienceworld",
    "textworld",
    "textworld-express",
    "plots",
    "minari",
    "tensorboard",
    "trackio",
    "wandb",
    "report",
    "lancedb",
    "ray",
]

PACKAGES: dict[Extra, tuple[str, ...]] = {
    "llm": ("torch", "transformers", "peft"),
    "server": ("openai",),
    "household": ("textworld", "alfworld"),
    "scienceworld": ("scienceworld",),
    "textworld": ("textworld",),
    "textworld-express": ("textworld_express",),
    "plots": ("matplotlib",),
    "minari": ("minari", "h5py"),
    "tensorboard": ("tensorboardX",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "report": ("jinja2", "sklearn"),
    "lancedb": ("lancedb", "pyarrow"),
    "ray": ("ray",),
}
"""The packages of each extra, by the names they are imported under; see `pyproject.toml`."""

_PURPOSES: dict[Extra, str] = {
    "llm": "running and training language models",
    "server": "a model behind a server",
    "household": "suite 'household'",
    "scienceworld": "suite 'scienceworld'",
    "textworld": "suite 'textworld'",
    "textworld-express": "suite 'textworld-express'",
    "plots": "drawing pictures",
    "minari": "a Minari data set",
    "tensorboard": "logging to TensorBoard",
    "trackio": "logging to trackio",
    "wandb": "logging to Weights & Biases",
    "report": "making pages",
    "lancedb": "an index in LanceDB",
    "ray": "running on a cluster",
}


class MissingExtraError(ImportError):
    """Packages of an extra are not installed; the message has the line that installs them."""

    def __init__(self, extra: Extra, missing: tuple[str, ...]) -> None:
        self.extra, self.missing = extra, missing
        self.install = f"pip install 'relive[{extra}]'"
        """The line for the shell."""
        are = "are" if len(missing) > 1 else "is"
        super().__init__(
            f"{_PURPOSES[extra]} needs {', '.join(missing)}, which {are} not installed: "
            f"{self.install}",
            name=missing[0],
        )

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[Extra, tuple[str, ...]]]:
        return MissingExtraError, (self.extra, self.missing)  # it crosses processes


def needs(extra: Extra) -> AbstractContextManager[None]:
    """Checks that an extra is installed; a statement by itself, or around the imports it is for.

    Raises:
        MissingExtraError: a package of it is not there.
    """
    missing = tuple(package for package in PACKAGES[extra] if not _is_there(package))
    if missing:
        raise MissingExtraError(extra, missing)
    return nullcontext()


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # from a finder that refuses it by name
        return False
    except ValueError:  # imported, by something that gave it no spec
        return True
