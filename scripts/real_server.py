"""Real servers on loopback, for tests and measurements: `transformers serve`, llama.cpp's."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(model: Path, log: Path, seconds: float = 240.0) -> Iterator[str]:
    """Starts a server for a model and yields its address; ends it in any case.

    Args:
        model: a folder, for `transformers serve`; or a GGUF file, for llama.cpp's.
        log: file for what the server prints.
        seconds: within which it has to be there.

    Raises:
        RuntimeError: it did not start; the message has the end of its log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "transformers"), "serve", str(model),
        "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    health = f"http://127.0.0.1:{port}/health"
    if model.suffix == ".gguf":
        command = [
            sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "2048",
            "--host", "127.0.0.1", "--port", str(port), "--n_threads", "1",
        ]  # fmt: skip
        health = f"http://127.0.0.1:{port}/v1/models"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=offline)
    try:
        began = time.monotonic()
        while not _answers(health):
            if server.poll() is not None or time.monotonic() - began > seconds:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the server did not start: {tail}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
