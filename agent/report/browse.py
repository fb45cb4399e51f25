"""`relive memory browse`: a page about a memory, on this machine alone.

The server listens on the loopback address, and that is not enough: any page that a person has open
can send requests there, and a name that is bound anew can make them look like its own. So every
request must name the loopback address as its host and know a random token, which is in the address
the tab that was opened by the address that is printed; what changes something must also be JSON,
and come from the page itself. The address opens one tab, and another one is printed for the next,
so what a browser keeps of it in its history opens nothing. No file is served, so there is no path
to get out of.
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
        ValueError: there is no such port.
        BlockingIOError: another process writes to it.
        OSError: the port is taken.
        MissingExtraError: Jinja2 or scikit-learn is not installed.
    """
    needs("report")
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is a number from 0 to 65535, not {port}")
    opened = Memory(path) if writable else Memory(path, "r")
    with opened as memory, Server(View(memory), port, tell) as server:
        tell(server.address)
        tell("Ctrl-C stops it.")
        ready(server)
        server.serve_forever(poll_interval=0.1)


class Server(ThreadingHTTPServer):
    """The page's server.

    Args:
        view: of the memory.
        port: where to listen; 0 for one that is free.
        tell: told the next address once one is used.
    """

    daemon_threads = True

    def __init__(
        self, view: View, port: int = 0, tell: Callable[[str], object] = lambda text: None
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        """What a tab knows once it is open."""
        self.ticket = secrets.token_urlsafe(24)
        """What opens the next tab, once."""
        self.view, self.tell = view, tell
        # One at a time: what a person does is a few requests, and what is read is one state.
        self.turn = threading.Lock()
        super().__init__((LOOPBACK, port), partial(Handler))
        self.port = int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.port}/#{self.ticket}"

    def open(self, ticket: str) -> dict[str, str]:
        """The token, for a ticket that was not used before.

        Raises:
            PermissionError: it was, or is none.
        """
        if not hmac.compare_digest(ticket.encode("utf-8", "replace"), self.ticket.encode()):
            raise PermissionError("this address was used: open the one that was printed last")
        self.ticket = secrets.token_urlsafe(24)
        self.tell(f"opened; for another tab: {self.address}")
        return {"token": self.token}


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
        if address.path == "/":  # which says nothing of the memory
            if self._named():
                self._send(HTTPStatus.OK, _page().encode(), "text/html")
        elif self._allowed():
            view = self.server.view
            reads: Mapping[str, Callable[[], Any]] = {
                "/api/memory": view.overview,
                "/api/search": lambda: view.search(json.loads(asked.get("q", "{}"))),
                "/api/episode": lambda: view.episode(asked.get("id", "")),
            }
            self._answer(reads.get(address.path))

    def do_POST(self) -> None:
        """A change."""
        what = urlsplit(self.path).path.removeprefix("/api/")
        if not (self._named() if what == "open" else self._allowed()):
            return
        origin = self.headers.get("Origin")
        own = f"http://{self.headers.get('Host', '')}"  # be it through a tunnel
        kind = self.headers.get_content_type()
        length = self.headers.get("Content-Length", "")
        if origin is not None and origin != own:
            self._refuse(HTTPStatus.FORBIDDEN, "changes come from the page itself")
        elif kind != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "changes are application/json")
        elif not (length.isascii() and length.isdigit() and len(length) < 9) or (
            int(length) > LARGEST
        ):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST} bytes")
        else:
            body = self.rfile.read(int(length))
            if what == "open":
                self._answer(lambda: self.server.open(str(_object(body).get("ticket", ""))))
            else:
                self._answer(lambda: self.server.view.change(what, _object(body)))

    def _named(self) -> bool:
        """Whether a request names the loopback address as its host; if not, it is refused."""
        if self.headers.get("Host", "").partition(":")[0] in self.hosts:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this server is asked by its loopback address")
        return False

    def _allowed(self) -> bool:
        """Whether a request is an open tab's; if not, it is refused."""
        if not self._named():
            return False
        token = self.headers.get("X-Relive-Token", "")
        if hmac.compare_digest(token.encode(), self.server.token.encode()):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "open the address that was printed last")
        return False

    def _answer(self, act: Callable[[], Any] | None) -> None:
        if act is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing of that name")
            return
        try:
            with self.server.turn:
                found = json.dumps(finite(act()))
        except PermissionError as error:
            self._refuse(HTTPStatus.FORBIDDEN, str(error))
            return
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


def _page() -> str:
    scripts = ("d3.min.js", "plot.min.js", "common.js", "browse.js")
    return render("browse.html", {"title": "memory"}, (), scripts)
