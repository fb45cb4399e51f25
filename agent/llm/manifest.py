"""An adapter's manifest: what it was made of. The trainer fills it in, and who loads the adapter
checks it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from ...memory.plain import Mode, decode, stored_name
from ...memory.storage.payload import Unfit
from ..settings import as_stored, json_of

FILE = "manifest.json"
"""In an adapter's folder, beside PEFT's files."""


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """What an adapter is and how it came about.

    Stored as one flat object; what an experiment notes besides (`extra`) stands beside the fields.
    """

    version: str
    """What it is called; an adapter is never made again under an old name."""
    base_model: str
    """Model folder, hub name or ``bundled``."""
    base_sha256: str
    """Hash of the weights that it was trained on, the only ones that it fits."""
    parent: str = ""
    """Version of the adapter that acted before; empty for the bare model."""
    memory_position: int | None = None
    """Log position of the memory that it learnt from."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """How often the memory block was left out, or beside the point."""
    retrieval: Mapping[str, Any] = field(default_factory=dict, metadata={"stored": "recall"})
    """Retrieval settings of its training contexts."""
    tasks: tuple[str, ...] = ()
    """Identities of the tasks that it learnt from."""
    episodes: tuple[str, ...] = ()
    """Ids of the episodes that it learnt from."""
    lora: Mapping[str, Any] = field(default_factory=dict)
    """Training settings."""
    started_from: str = ""
    """Hash of the adapter that training went on from; empty for a fresh one."""
    examples: int = 0
    too_long: int = 0
    """Sequences that were left out because they do not fit into the model's context."""
    cut: int = 0
    """Examples that were learnt in several parts, because they do not fit in one."""
    without_target: int = 0
    """Examples in which nothing was to be learnt."""
    contexts: Mapping[str, int] = field(default_factory=dict)
    """Examples by what their memory block was."""
    supervised_tokens: int = 0
    """Tokens that were learnt, repeats included."""
    loss_first: float | None = None
    """Mean loss of the first ten steps."""
    loss_last: float | None = None
    """Mean loss of the last ten steps."""
    adapter_sha256: str = ""
    """Hash of the adapter's own weights."""
    seconds: float = 0.0
    """Wall time of training."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the experiment that made it notes besides."""

    @property
    def plain(self) -> dict[str, Any]:
        """As it is stored."""
        values = as_stored(self)
        return {**values.pop("extra"), **values}

    @classmethod
    def read(cls, folder: Path) -> "AdapterManifest | None":
        """The manifest in an adapter's folder; None where there is none (PEFT writes none).

        Raises:
            ValueError: the file is damaged, or says nothing about the base model.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        values = json_of(file, "adapter's manifest")
        if not isinstance(values, dict):
            raise ValueError(f"adapter's manifest {file} is damaged: it is no JSON object")
        lacking = sorted(name for name in _NEEDED if not isinstance(values.get(name), str))
        if lacking:
            raise ValueError(
                f"adapter's manifest {file} does not say {', '.join(lacking)}, so nobody knows "
                "which weights the adapter fits: train it again, or delete the file to use it as "
                "PEFT's own"
            )
        known = {stored_name(one) for one in fields(cls) if one.name != "extra"}
        rest = {name: value for name, value in values.items() if name not in known}
        try:
            return cast(AdapterManifest, decode(cls, {**values, "extra": rest}, Mode(stored=True)))
        except Unfit as error:
            raise ValueError(
                f"adapter's manifest {file} is damaged: {error.path[1:]} {error}"
            ) from None


_NEEDED = ("version", "base_model", "base_sha256")
