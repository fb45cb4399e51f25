"""LoRA adapters on a server: loaded and unloaded under names that are never used again.

The two addresses are vLLM's (``/v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``, with
``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``); other servers have taken them over.
"""

import uuid
from pathlib import Path
from typing import Any

from ...extras import needs

with needs("server"):
    import openai


class ServerAdapters:
    """Adapters that one client has loaded.

    Args:
        client: of the openai package.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        # A server may outlive this process, and remember what a name stood for.
        self._run = uuid.uuid4().hex[:6]
        self._count = 0
        self.loaded: list[str] = []
        """Names on the server, oldest first."""

    def load(self, folder: Path, version: str) -> str:
        """Loads an adapter and returns the name that it has on the server.

        Raises:
            ValueError: the server does not take it.
        """
        self._count += 1
        name = f"{version}-{self._run}-{self._count}"
        self._post(
            "/load_lora_adapter", {"lora_name": name, "lora_path": str(folder.resolve())},
            f"adapter {folder}",
        )  # fmt: skip
        self.loaded.append(name)
        return name

    def unload_all_but(self, name: str) -> None:
        """Takes the others off the server; what it does not let go is tried again next time."""
        for other in [known for known in self.loaded if known != name]:
            try:
                self._post("/unload_lora_adapter", {"lora_name": other}, f"adapter {other}")
            except ValueError:  # nothing uses it any more
                continue
            self.loaded.remove(other)

    def _post(self, path: str, body: dict[str, str], what: str) -> None:
        try:
            self._client.post(path, body=body, cast_to=str)
        except openai.OpenAIError as error:
            raise ValueError(
                f"the server at {self._client.base_url} does not take {what} "
                f"({' '.join(str(error).split())[:200]}); vLLM needs --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and must see the folder"
            ) from None
