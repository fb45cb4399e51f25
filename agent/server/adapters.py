"""LoRA adapters on servers: loaded on all of them, and unloaded, under names that are never used
again.

The two addresses are vLLM's (``/v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``, with
``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``); other servers have taken them over. A server that cannot
be reached when an adapter is rolled out, or that has forgotten it (it was started again), gets it
before it gets requests.
"""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...extras import needs

with needs("server"):
    import openai

from .replicas import PASSING, Replica, Replicas

_UNKNOWN = {400, 404}
"""What servers answer that are to unload what they do not have."""


class ServerAdapters:
    """Adapters that one client has loaded.

    Args:
        replicas: the servers.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        replicas.on_return = self.equip
        # A server may outlive this process, and remember what a name stood for.
        self._run = uuid.uuid4().hex[:6]
        self._count = 0
        self._lock = threading.Lock()
        self._current: tuple[str, Path] | None = None  # name and folder of the adapter in force

    def load(self, folder: Path, version: str) -> str:
        """Loads an adapter on every server and returns the name that it has there. Those that
        cannot be reached get no requests until they have it.

        Raises:
            ValueError: one does not take it, or none can be reached; the adapter before stays in
                force.
        """
        with self._lock:
            self._count += 1
            name = f"{version}-{self._run}-{self._count}"
            with ThreadPoolExecutor(len(self._replicas)) as pool:
                asked = {one: pool.submit(self._load, one, name, folder) for one in self._replicas}
                errors = {one: done.result() for one, done in asked.items()}
            refused = {o: e for o, e in errors.items() if e is not None and not _passes(e)}
            if refused or all(errors.values()):
                for replica in self._replicas:
                    self._unload_all_but(replica, self._current[0] if self._current else "")
                one, error = next(iter((refused or errors).items()))
                assert error is not None
                raise _not_taken(one, f"adapter {folder}", error)
            self._current = name, folder
        for replica, error in errors.items():
            if error is not None:
                self._replicas.put_down(replica, f"has not got adapter {name}: {_said(error)}")
        return name

    def equip(self, replica: Replica) -> bool:
        """Whether a server has the adapter in force, which is loaded on it again."""
        with self._lock:
            if self._current is None:
                return True
            return self._load(replica, *self._current) is None

    def restore(self, replica: Replica) -> bool:
        """Whether there is an adapter in force, and a server that does not know it has taken it
        now."""
        return self._current is not None and self.equip(replica)

    def unload_all_but(self, name: str) -> None:
        """Takes the others off the servers; what one does not let go is tried again next time."""
        with self._lock:
            if self._current and self._current[0] != name:
                self._current = None
            for replica in self._replicas:
                self._unload_all_but(replica, name)

    def _unload_all_but(self, replica: Replica, name: str) -> None:
        for other in [known for known in replica.adapters if known != name]:
            try:
                self._post(replica, "/unload_lora_adapter", {"lora_name": other})
            except openai.APIStatusError as error:
                if error.status_code not in _UNKNOWN:
                    continue  # nothing uses it any more
            except openai.OpenAIError:
                continue
            replica.adapters.remove(other)

    def _load(self, replica: Replica, name: str, folder: Path) -> openai.OpenAIError | None:
        """What went wrong; None where the server has the adapter now."""
        try:
            self._post(
                replica, "/load_lora_adapter",
                {"lora_name": name, "lora_path": str(folder.resolve())},
            )  # fmt: skip
        except openai.OpenAIError as error:
            if "already" not in str(error):
                return error
        if name not in replica.adapters:
            replica.adapters.append(name)
        return None

    def _post(self, replica: Replica, path: str, body: dict[str, str]) -> None:
        replica.client.post(path, body=body, cast_to=str)


def _passes(error: openai.OpenAIError) -> bool:
    """Whether it is of the moment."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in PASSING
    return isinstance(error, openai.APIConnectionError)


def _not_taken(replica: Replica, what: str, error: openai.OpenAIError) -> ValueError:
    return ValueError(
        f"the server at {replica.url} does not take {what} ({_said(error)}); vLLM needs "
        "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and must see the folder"
    )


def _said(error: openai.OpenAIError) -> str:
    return " ".join(str(error).split())[:200]
