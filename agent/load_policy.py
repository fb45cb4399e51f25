"""From settings to a policy: what the command line and the scripts have in common."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..envs import Suite, entry
from ..envs.base import has_expert
from ..envs.registry import search_here
from ..memory.episode import Actor
from .action_format import format_of
from .conversation import AnyPolicy
from .policy import CallablePolicy, ExpertPolicy, RandomPolicy, as_policy

if TYPE_CHECKING:
    from .llm.local import LocalModel
    from .server.model import ServerModel

POLICIES = ("local", "server", "expert", "random")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server is asked. The key comes from ``$OPENAI_API_KEY``, never from settings."""

    base_url: str = ""
    """Address of the API, for example ``http://127.0.0.1:8000/v1``; several, of servers that share
    the work, with commas between them."""
    concurrency: int = 16
    """Requests at once, over all servers; as many episodes must run at once (``run.batch``)."""
    timeout: float = 120.0
    """Seconds for one request."""
    patience: float = 600.0
    """Seconds for which a request is tried again after errors of the moment."""
    budget_tokens: int = 0
    """Tokens after which the run stops; 0 for no limit."""
    budget_money: float = 0.0
    """Money after which the run stops; 0 for no limit."""
    price_prompt: float = 0.0
    """Money for a million tokens that are read."""
    price_completion: float = 0.0
    """Money for a million tokens that are written."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request."""
    keep_messages: str = ""
    """File that gets every request and its answer; empty for none."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Who acts."""

    kind: str = "local"
    """``local`` (a language model in this process), ``server``, ``expert`` or ``random``; or
    ``module:object``, a policy of one's own: a function from messages to text, an object that acts,
    or a class of such objects, made without arguments."""
    model: str = "bundled"
    """``bundled``, a transformers folder, a GGUF file, or a hub name; the name on a server."""
    adapter: str = ""
    """Folder of a PEFT adapter; empty for none."""
    temperature: float = 0.0
    """0 is greedy."""
    max_new_tokens: int = 0
    """Tokens of an answer at most, thoughts not counted; 0 for what the action format needs."""
    action_format: str = "plain"
    """How an action is written: ``plain``, ``react`` or ``tagged``."""
    thinking: str = ""
    """``off`` or ``on``: whether the model thinks before it answers. Empty: off for a local model,
    and whatever the server does for one on a server."""
    thinking_tokens: int = 512
    """Tokens of thoughts at most."""
    chat_template: str = ""
    """File with a chat template to use instead of the model's."""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the chat template."""
    context: int = 0
    """Tokens of a conversation and its answer at most; 0 for what the model was made for."""
    dtype: str = "float32"
    """``float32`` (the same actions at any batch size), ``bfloat16`` or ``4bit`` (bitsandbytes)."""
    device: str = ""
    """Empty for the best there is."""
    server: ServerSettings = field(default_factory=ServerSettings)

    def __post_init__(self) -> None:
        if self.kind not in POLICIES and not all(self.kind.partition(":")):
            raise ValueError(
                f"unknown policy {self.kind!r}: use one of {', '.join(POLICIES)}, or "
                "module:object for one of your own"
            )
        if self.dtype not in ("float32", "bfloat16", "4bit"):
            raise ValueError(f"unknown dtype {self.dtype!r}: use float32, bfloat16 or 4bit")
        format_of(self.action_format)
        if self.thinking not in ("", "off", "on"):
            raise ValueError(f"policy.thinking is {self.thinking!r}: use off or on")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"policy.temperature is {self.temperature}; it must not be negative")
        if self.max_new_tokens < 0 or self.thinking_tokens < 1 or self.context < 0:
            raise ValueError(
                "policy.max_new_tokens and policy.context must not be negative, and "
                "policy.thinking_tokens must be at least 1"
            )


def load_policy(settings: PolicySettings, suite: Suite, slots: int = 16) -> AnyPolicy:
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
        if not has_expert(suite):
            raise ValueError(f"suite {suite.name!r} has no expert: use another policy")
        return ExpertPolicy(suite)
    if settings.kind == "random":
        return RandomPolicy(suite)
    if settings.kind == "server":
        return load_server(settings)
    if ":" in settings.kind:
        told = [one.name for one in fields(settings) if one.name != "kind"]
        usual = PolicySettings()
        ignored = [name for name in told if getattr(settings, name) != getattr(usual, name)]
        if ignored:
            raise ValueError(
                f"policy.{ignored[0]} is for models that relive loads; {settings.kind} has its own "
                "settings"
            )
        return own_policy(settings.kind)
    return load_model(settings, slots)


def own_policy(target: str) -> AnyPolicy:
    """The policy behind ``module:object``; the current folder is searched, too.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
        ValueError: it cannot be made, or cannot act.
    """
    search_here()
    found = entry(target, "of a policy")
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(f"{target} cannot be made without arguments: {error}") from error
    try:
        policy = as_policy(found)
    except TypeError as error:
        raise ValueError(f"{target}: {error}") from error
    known = getattr(policy, "actor", None)
    if not isinstance(known, Actor) or isinstance(policy, CallablePolicy):
        # Its name tells its episodes from those of another one.
        told = known if isinstance(known, Actor) else Actor("", model=type(policy).__qualname__)
        with suppress(AttributeError):  # an object that takes no attributes
            policy.actor = replace(told, policy=target)  # type: ignore[union-attr]
    return policy


def load_server(settings: PolicySettings) -> "ServerModel":
    """A model on a server.

    Raises:
        ValueError: the settings do not say where, or which, or ask for what no server does.
    """
    where = settings.server
    if not where.base_url or settings.model == "bundled":
        raise ValueError(
            "policy 'server' needs an address and a model: --base-url http://127.0.0.1:8000/v1 "
            "--model NAME"
        )
    ignored = [
        name
        for name in ("chat_template", "template_arguments", "context", "device")
        if getattr(settings, name)
    ]
    ignored += ["dtype"] if settings.dtype != "float32" else []
    if ignored:
        raise ValueError(
            f"policy.{ignored[0]} is for models of this process: a server has its own (fields of "
            "its requests go into policy.server.extra_body)"
        )
    from .server.budget import Budget, Prices
    from .server.model import ServerModel

    model = ServerModel(
        [address.strip() for address in where.base_url.split(",") if address.strip()],
        settings.model,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens or None,
        action_format=settings.action_format,
        thinking=cast(Any, settings.thinking or None),
        concurrency=where.concurrency,
        timeout=where.timeout,
        patience=where.patience,
        budget=Budget(where.budget_tokens, where.budget_money),
        prices=Prices(where.price_prompt, where.price_completion),
        extra_body=where.extra_body,
        keep_messages=where.keep_messages or None,
    )
    if settings.adapter:
        model.set_adapter(settings.adapter)
    return model


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
        dtype=cast(Any, settings.dtype),
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens or None,
        slots=slots,
        context=settings.context or None,
        chat_template=Path(settings.chat_template) if settings.chat_template else None,
        template_arguments=settings.template_arguments,
        thinking=cast(Any, settings.thinking or "off"),
        thinking_tokens=settings.thinking_tokens,
        action_format=settings.action_format,
    )
