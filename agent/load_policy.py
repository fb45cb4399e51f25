"""From settings to a policy: what the command line and the scripts have in common."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..envs import Suite
from .conversation import Policy
from .policy import ExpertPolicy, RandomPolicy

if TYPE_CHECKING:
    from .llm.local import LocalModel

POLICIES = ("local", "expert", "random")


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Who acts."""

    kind: str = "local"
    """``local`` (a language model), ``expert`` or ``random``."""
    model: str = "bundled"
    """``bundled``, a transformers folder, or a hub name."""
    adapter: str = ""
    """Folder of a PEFT adapter; empty for none."""
    temperature: float = 0.0
    """0 is greedy."""
    dtype: str = "float32"
    """``float32`` (the same actions at any batch size) or ``bfloat16``."""
    device: str = ""
    """Empty for the best there is."""

    def __post_init__(self) -> None:
        if self.kind not in POLICIES:
            raise ValueError(f"unknown policy {self.kind!r}: use one of {', '.join(POLICIES)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"unknown dtype {self.dtype!r}: use float32 or bfloat16")


def load_policy(settings: PolicySettings, suite: Suite, slots: int = 16) -> Policy:
    """Makes a policy.

    Args:
        settings: which.
        suite: whose expert or templates a scripted policy uses.
        slots: conversations that a model keeps in its cache: as many as run at once.

    Raises:
        ValueError: a model that cannot be used.
        FileNotFoundError: no such model or adapter.
    """
    if settings.kind == "expert":
        return ExpertPolicy(suite)
    if settings.kind == "random":
        return RandomPolicy([t.text for t in suite.templates])
    return load_model(settings, slots)


def load_model(settings: PolicySettings, slots: int = 16) -> "LocalModel":
    """Loads a language model.

    Args:
        settings: which.
        slots: conversations that it keeps in its cache: as many as run at once.

    Raises:
        ValueError: the settings name no language model, or one that cannot be used.
        FileNotFoundError: no such model or adapter.
    """
    if settings.kind != "local":
        raise ValueError(
            f"policy {settings.kind!r} has no weights to fine-tune: use policy.kind = 'local'"
        )
    from .llm.local import LocalModel  # takes seconds: torch and transformers

    return LocalModel(
        settings.model,
        adapter=settings.adapter or None,
        device=settings.device or None,
        dtype="float32" if settings.dtype == "float32" else "bfloat16",
        temperature=settings.temperature,
        slots=slots,
    )
