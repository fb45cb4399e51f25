"""`relive memory browse`: a page about a memory, on this machine alone.

The server listens on the loopback address, and that is not enough: any page that a person has open
can send requests there, and a name that is bound anew can make them look like its own. So every
request must name the loopback address as its host and know a random token, which is in the address
that is printed; what changes something must also be JSON, and come from the page itself. No file is
served, so there is no path to get out of.
"""

import hmac
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from ...extras import needs
from ...memory import Memory
from .look import View
from .page import finite, render

LOOPBACK = "127.0.0.1"
LARGEST = 100_000
"""Bytes of a request at most."""


def serve(
    path: Path,
    port: int = 0,
    *,
    writable: bool = True,
    tell: Callable[[str], object] = print,
    ready: Callable[["Server"], object] = lambda server: None,
) -> None:
    """Serves the page until Ctrl-C.

    Args:
        path: folder of the memory.
        port: where; 0 for one that is free.
        writable: whether the page may rate, annotate, delete and restore. Nobody else can write to
            the memory meanwhile.
        tell: told the address.
        ready: given the server once it listens.

    Raises:
        FileNotFoundError: there is no memory.
        BlockingIOError: another process writes to it.
        OSError: the port is taken.
        MissingExtraError: Jinja2 or scikit-learn is not installed.
    """
    needs("report")
    if not (path / "memory.json").exists():
        raise FileNotFoundError(f"no memory {path}: give the folder of one")
    opened = Memory(path) if writable else Memory(path, "r")
    with opened as memory, Server(View(memory), port) as server:
        tell(server.address)
        tell("Ctrl-C stops it.")
        ready(server)
        server.serve_forever(poll_interval=0.1)


class Server(ThreadingHTTPServer):
    """The page's server.

    Args:
        view: of the memory.
        port: where to listen; 0 for one that is free.
    """

    daemon_threads = True

    def __init__(self, view: View, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.view = view
        # One at a time: what a person does is a few requests, and what is read is one state.
        self.turn = threading.Lock()
        super().__init__((LOOPBACK, port), partial(Handler))
        self.port = int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.port}/?token={self.token}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "relive"
    sys_version = ""
    timeout = 30
    hosts: ClassVar[tuple[str, ...]] = (LOOPBACK, "localhost")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the address of a request holds the token."""

    def do_GET(self) -> None:
        """The page, or what it asks."""
        try:
            address = urlsplit(self.path)
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST, "that is no address")
            return
        asked = {name: values[-1] for name, values in parse_qs(address.query).items()}
        if address.path == "/":
            if self._allowed(asked.get("token", "")):
                self._send(HTTPStatus.OK, _page(self.server.token).encode(), "text/html")
        elif self._allowed(self.headers.get("X-Relive-Token", "")):
            view = self.server.view
            reads: Mapping[str, Callable[[], Any]] = {
                "/api/memory": view.overview,
                "/api/search": lambda: view.search(json.loads(asked.get("q", "{}"))),
                "/api/episode": lambda: view.episode(asked.get("id", "")),
            }
            self._answer(reads.get(address.path))

    def do_POST(self) -> None:
        """A change."""
        if not self._allowed(self.headers.get("X-Relive-Token", "")):
            return
        origin = self.headers.get("Origin")
        own = {f"http://{host}:{self.server.port}" for host in self.hosts}
        kind = self.headers.get_content_type()
        length = self.headers.get("Content-Length", "")
        if origin is not None and origin not in own:
            self._refuse(HTTPStatus.FORBIDDEN, "changes come from the page itself")
        elif kind != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "changes are application/json")
        elif not (length.isascii() and length.isdigit() and len(length) < 9) or (
            int(length) > LARGEST
        ):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST} bytes")
        else:
            body = self.rfile.read(int(length))
            self._answer(
                lambda: self.server.view.change(
                    urlsplit(self.path).path.removeprefix("/api/"), _object(body)
                )
            )

    def _allowed(self, token: str) -> bool:
        """Whether a request is the page's; if not, it is refused."""
        host = self.headers.get("Host", "").partition(":")[0]
        if host not in self.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this server is asked by its loopback address")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that was printed: it has a token")
        else:
            return True
        return False

    def _answer(self, act: Callable[[], Any] | None) -> None:
        if act is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing of that name")
            return
        try:
            with self.server.turn:
                found = json.dumps(finite(act()))
        except Exception as error:  # whatever is asked, the server goes on
            told = error.args[0] if type(error) is KeyError and error.args else error
            self._refuse(HTTPStatus.BAD_REQUEST, str(told) or type(error).__name__)
            return
        self._send(HTTPStatus.OK, found.encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # what else was sent is not read
        self._send(status, json.dumps({"error": why}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Content-Security-Policy", "frame-ancestors 'none'"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except RecursionError:
        raise ValueError("a change is a JSON object, and not so deep") from None
    if not isinstance(told, dict):
        raise ValueError("a change is a JSON object")
    return told


def _page(token: str) -> str:
    scripts = ("d3.min.js", "plot.min.js", "common.js", "browse.js")
    return render("browse.html", {"title": "memory", "token": token}, (), scripts)
