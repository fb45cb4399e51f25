"""A server that speaks what vLLM's does, without a model: chat, health, models, and LoRA adapters
at run time. It answers what it is told to, knows the adapters that were loaded on it, and forgets
them when it is started again, as vLLM does."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BASE = "m"
"""Name of the model without an adapter."""


class StandIn:
    """One server on a port of its own.

    Args:
        say: from the name of the model that is asked to the answer.
        seconds: that an answer takes.
    """

    def __init__(
        self, say: Callable[[str], str] = lambda model: "look", seconds: float = 0.0
    ) -> None:
        self.say, self.seconds = say, seconds
        self.asked: list[dict[str, Any]] = []
        """Bodies of the chat requests that were answered."""
        self.loads: list[str] = []
        """Names of adapters in the order in which they were loaded, over all lives."""
        self.adapters: dict[str, str] = {}
        """Folder of each adapter that is loaded now."""
        self.health = 200
        self.fault: int | None = None
        """Status with which every chat request is refused."""
        self.refuses_adapters = False
        self.lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Starts it, again at the same port, knowing nothing."""
        self.adapters = {}
        ThreadingHTTPServer.allow_reuse_address = True
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.http.daemon_threads = True
        self.port = self.http.server_port
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def stop(self) -> None:
        """From now on nobody listens there."""
        self.http.shutdown()
        self.http.server_close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        if path == "/health":
            return self.health, {}
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in (BASE, *self.adapters)]}
        if method == "POST" and path == "/v1/load_lora_adapter":
            return self._load(body["lora_name"], body["lora_path"])
        if method == "POST" and path == "/v1/unload_lora_adapter":
            if self.adapters.pop(body["lora_name"], None) is None:
                return 404, _error(f"The lora adapter '{body['lora_name']}' cannot be found.")
            return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
        if method == "POST" and path == "/v1/chat/completions":
            return self._chat(body)
        return 404, _error("Not Found")

    def _load(self, name: str, folder: str) -> tuple[int, Any]:
        if self.refuses_adapters:
            return 400, _error("LoRA is not enabled.")
        if name in self.adapters:
            return 400, _error(f"The lora adapter '{name}' has already been loaded.")
        if not (Path(folder) / "adapter_config.json").exists():
            return 404, _error(f"Loading lora {name} failed: No adapter found for {folder}")
        self.adapters[name] = folder
        self.loads.append(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _chat(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.fault is not None:
            return self.fault, _error("no")
        model = body["model"]
        if model != BASE and model not in self.adapters:
            return 404, _error(f"The model `{model}` does not exist.")
        time.sleep(self.seconds)
        with self.lock:
            self.asked.append(body)
        message = {"role": "assistant", "content": self.say(model)}
        return 200, {
            "id": "x", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
        }  # fmt: skip

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(*outer.answer("GET", self.path, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.reply(*outer.answer("POST", self.path, body))

            def reply(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        return Handler


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "code": 0}}
