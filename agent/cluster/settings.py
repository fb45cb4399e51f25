"""How a cluster is used; nothing here may change a result."""

from collections.abc import Mapping
from dataclasses import dataclass, field

KIND = "ray"
"""What ``--on`` begins with."""
_CLIENT_PORT = ":10001"
"""Where Ray's client server listens, unless somebody moved it."""


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Who plays on a cluster, and what each of them takes. Amounts are Ray's: what an actor is
    promised, not what it is held to."""

    workers: int = 0
    """Actors that play, each with its environments (``run.batch`` episodes at once) and a policy of
    its own; 0 for as many as there is room for."""
    cpus: float = 1.0
    """CPUs of one of them."""
    gpus: float = 0.0
    """GPUs of one of them; parts of one are shared. Local models want some."""
    memory: float = 0.0
    """GiB of memory of one of them; 0 for no promise."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """What else one of them takes, by the names that the nodes were started with."""
    patience: float = 120.0
    """Seconds to wait for a first worker to find a place, or to find another after all were
    lost."""
    losses: int = 10
    """How often a worker may be lost without finishing an episode in between, or with the same
    task, before the run ends with an error."""
    copies: str = ""
    """Folder on each node for the copy of the memory; empty for the system's temporary one."""
    working_dir: str = ""
    """Folder that is sent to every node and imported from there, for policies and suites of one's
    own; empty for none."""

    def __post_init__(self) -> None:
        amounts = (self.cpus, self.gpus, self.memory, *self.resources.values())
        if self.workers < 0 or self.losses < 0 or min(amounts) < 0 or self.patience <= 0:
            raise ValueError(
                "ray settings need workers, losses, cpus, gpus, memory and resources >= 0 and "
                f"patience > 0, got {self}"
            )

    @property
    def amounts(self) -> dict[str, float]:
        """What one worker takes, by Ray's names; bytes of memory."""
        known = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 2**30}
        return {name: value for name, value in {**known, **self.resources}.items() if value}


def address_of(on: str) -> str:
    """The address of a cluster as Ray takes it, from what was given to ``--on``.

    ``ray`` starts a cluster of this machine and stops it in the end (``local``); ``ray://auto`` is
    the one that this machine is a node of; ``ray://HOST:PORT`` the one whose head listens there,
    which this machine is a node of as well.

    Raises:
        ValueError: it is none of these.
    """
    kind, separator, address = on.partition("://")
    if kind != KIND or bool(separator) != bool(address):
        raise ValueError(
            f"--on {on!r}: write ray (a cluster of this machine), ray://auto (the one that this "
            "machine is a node of) or ray://HOST:PORT"
        )
    if address.endswith(_CLIENT_PORT):
        raise ValueError(
            f"--on {on!r}: port {_CLIENT_PORT[1:]} is that of Ray's client server, which has no "
            "place for a run that resumes: make this machine a node (ray start --address=HOST:6379)"
            " and give --on ray://HOST:6379, or run the command on a node"
        )
    return address or "local"
