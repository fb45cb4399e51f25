"""Actors of Ray, as far as they are needed here: where one is put, and what its calls answer.

Ray's own types say nothing of an actor's methods, so handles and references are `Any` here.
"""

import os
from collections.abc import Mapping
from typing import Any

from ...extras import needs

# Read when Ray is imported: what its parts say about lost nodes, twenty lines each, would go to the
# standard output, between tables and progress.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
with needs("ray"):
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


_ray: Any = ray  # whose types know few of its options


class ActorLostError(RuntimeError):
    """An actor cannot answer any more: its process or its node has ended."""


def start(kind: type, *arguments: object, **options: Any) -> Any:
    """Starts an actor of a class; its handle.

    Args:
        kind: the class; nothing of it is special.
        arguments: of its constructor.
        options: of `ray.remote`.
    """
    return _ray.remote(**options)(kind).remote(*arguments)


def nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster, as `ray.nodes` lists them."""
    listed: list[dict[str, Any]] = _ray.nodes()
    return listed


def free_resources() -> dict[str, float]:
    """What nobody was promised, by name."""
    free: dict[str, float] = _ray.available_resources()
    return {name: round(amount, 2) for name, amount in sorted(free.items()) if amount}


def answer(reference: Any) -> Any:
    """What a call came to, once it is there.

    Raises:
        ActorLostError: whoever was asked is gone.
        Exception: what the method raised, as it was raised there.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, Exception) else error from None
    except RayError as error:
        raise ActorLostError(" ".join(str(error).split())) from error


def spread(amounts: Mapping[str, float]) -> dict[str, Any]:
    """Options of an actor that goes where there is room, away from its like.

    Args:
        amounts: what it takes, by Ray's names.
    """
    others = {name: value for name, value in amounts.items() if name not in ("CPU", "GPU")}
    memory = others.pop("memory", 0)
    return {
        "num_cpus": amounts.get("CPU", 0),
        "num_gpus": amounts.get("GPU", 0),
        "resources": others,
        "scheduling_strategy": "SPREAD",
        **({"memory": int(memory)} if memory else {}),
    }


def beside_driver() -> dict[str, Any]:
    """Options of an actor that runs on the node of this process and takes no part of it: it has to
    do with files that are here."""
    node = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
    }
