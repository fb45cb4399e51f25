"""From names to a policy: what the command line, learning and scripts have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..envs import Suite
from ..memory.episode import Actor
from .conversation import Policy
from .policy import ExpertPolicy, RandomPolicy
from .prompt import PROMPT_VERSION
from .tokens import words

if TYPE_CHECKING:
    from .llm.local import LocalPolicy

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


@dataclass(frozen=True, slots=True)
class Assembled:
    """A policy, the record of it, and how it counts tokens."""

    policy: Policy
    actor: Actor
    count: Callable[[str], int]
    local: "LocalPolicy | None" = None


def assemble(
    settings: PolicySettings,
    suite: Suite,
    slots: int = 16,
    record: Mapping[str, str | int | float | bool] | None = None,
) -> Assembled:
    """Makes a policy.

    Args:
        settings: which.
        suite: whose expert or templates a scripted policy uses.
        slots: conversations that a model keeps in its cache: as many as run at once.
        record: further settings for the episode's record.

    Raises:
        ValueError: unknown kind, or a model that cannot be used.
        FileNotFoundError: no such model or adapter.
    """
    noted = {"temperature": settings.temperature, "dtype": settings.dtype, **(record or {})}
    if settings.kind == "expert":
        return Assembled(
            ExpertPolicy(suite),
            Actor("expert", prompt=PROMPT_VERSION, settings=dict(record or {})),
            words,
        )
    if settings.kind == "random":
        policy = RandomPolicy([t.text for t in suite.templates])
        return Assembled(
            policy, Actor("random", prompt=PROMPT_VERSION, settings=dict(record or {})), words
        )
    if settings.kind != "local":
        raise ValueError(f"unknown policy {settings.kind!r}: use one of {', '.join(POLICIES)}")
    from .llm.local import LocalPolicy  # takes seconds: torch and transformers

    if settings.dtype not in ("float32", "bfloat16"):
        raise ValueError(f"unknown dtype {settings.dtype!r}: use float32 or bfloat16")
    local = LocalPolicy(
        settings.model,
        adapter=settings.adapter or None,
        device=settings.device or None,
        dtype="float32" if settings.dtype == "float32" else "bfloat16",
        temperature=settings.temperature,
        slots=slots,
    )
    return Assembled(local, actor_of(local, settings.model, noted), local.encoder.count, local)


def actor_of(
    local: "LocalPolicy", model: str, settings: Mapping[str, str | int | float | bool]
) -> Actor:
    """The record of a language-model policy as it is now."""
    return Actor(
        "local", model, local.weights_sha256, local.adapter or "", PROMPT_VERSION, dict(settings)
    )
