"""A Java process of our own: found, started, talked to through py4j, and surely ended.

Games written for the JVM are driven from Python over a socket. Three things must hold for them:

* Without Java there is one clear error, and it has the line that installs it.
* No Java process outlives the process that started it, however that one ends. The JVM reads its
  standard input and leaves when it closes, which the kernel sees to: after Ctrl-C, after a crash
  and after SIGKILL alike. Children that are forked from here close their copy of that pipe, or
  they would keep the JVM alive.
* Ctrl-C is for Python to handle, so the JVM is in a process group of its own.
"""

import logging
import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..caches import made_cache_folder

_STARTUP_SECONDS = 60.0
_CLOSING_SECONDS = 5.0
_OLDEST_JAVA = 11  # java.io.OutputStream.nullOutputStream
_NO_JAVA = (
    "{game} runs on Java, and there is none: `java` is neither in $JAVA_HOME/bin nor on the PATH. "
    "On Debian and Ubuntu: apt install default-jre-headless"
)

_pipes: set[int] = set()
"""Our ends of the pipes on which JVMs wait for our end."""


def _forget_pipes() -> None:
    for pipe in _pipes:
        with suppress(OSError):
            os.close(pipe)
    _pipes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pipes)
# A JVM that is gone is met as an exception; without a handler py4j would also print it, at length.
logging.getLogger("py4j").addHandler(logging.NullHandler())


class JavaError(RuntimeError):
    """There is no Java, or it did not start; the message says what to do."""


def find_java(game: str = "this environment") -> str:
    """Path of the `java` command: the one in ``$JAVA_HOME``, else the one on the PATH.

    Args:
        game: what needs it, for the message.

    Raises:
        JavaError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if not found:
        raise JavaError(_NO_JAVA.format(game=game))
    return found


def check_java(game: str) -> None:
    """Raises where a `Jvm` cannot be started.

    Raises:
        JavaError: there is no Java.
        OSError: there is no place for what it leaves behind.
    """
    find_java(game)
    made_cache_folder("java")


class Jvm:
    """One Java process with a py4j gateway in it, silent and reachable by this process alone.

    It ends with `close`, when the object is collected, and when this process ends. It is for one
    thread at a time. A call that was broken off (by Ctrl-C, say) leaves an answer in the socket
    that the next call would take for its own: close the JVM then.

    Args:
        classpath: jar files and folders; earlier ones hide later ones.
        options: for the `java` command, for example ``-Xmx512m``.
        game: what it is for, in messages.
        folder: where it runs, for programs that look for their files there; by default a folder of
            the cache, since some leave files of their own.

    Raises:
        JavaError: no Java, one that is too old, or one that did not start.
    """

    def __init__(
        self,
        classpath: Sequence[str | Path],
        options: Sequence[str] = (),
        game: str = "this game",
        folder: Path | None = None,
    ) -> None:
        from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path

        self._owner = os.getpid()
        java = find_java(game)
        path = os.pathsep.join(map(os.path.abspath, [find_jar_path(), *classpath]))
        command = [java, *options, "-classpath", path, "py4j.GatewayServer"]
        if folder is None:
            folder = made_cache_folder("java")
        with tempfile.TemporaryFile() as errors:  # a pipe would fill up
            process = subprocess.Popen(
                [*command, "--die-on-broken-pipe", "--enable-auth", "0"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                process_group=0,
                cwd=folder,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            _pipes.add(process.stdin.fileno())
            clients: list[Any] = []
            self._end = weakref.finalize(self, _end, process, clients, os.getpid())
            try:
                port, token = _greeting(process.stdout, time.monotonic() + _STARTUP_SECONDS)
            except BaseException as error:
                self.close()
                if not isinstance(error, ValueError):
                    raise
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip() or "it said nothing"
                raise JavaError(f"{game}: {java} did not start: {said[-500:]}") from error
        self._process: subprocess.Popen[bytes] = process
        try:
            parameters = GatewayParameters(port=port, auth_token=token)
            gateway = JavaGateway(gateway_parameters=parameters)
            clients.append(gateway._gateway_client)
            self.view: Any = gateway.jvm
            """Java's packages as attributes: ``view.java.lang.System``."""
            self._silence(java, game)
        except BaseException:
            self.close()
            raise
        # Silent from here on; a pipe that nobody reads could only fill up.
        process.stdout.close()

    @property
    def pid(self) -> int:
        """Process number of the JVM."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, and was started by this process (and not by the one it is a fork of)."""
        return self._owner == os.getpid() and self._end.alive and self._process.poll() is None

    def check_owner(self) -> None:
        """Raises in a fork of the process that started it: two on one socket take each other's
        answers.

        Raises:
            RuntimeError: this is one.
        """
        if self._owner != os.getpid():
            raise RuntimeError(
                "this process is a fork of the one that plays the game: make an environment here"
            )

    def close(self) -> None:
        """End the JVM: it is asked to, and killed if it takes too long. Twice is fine."""
        self._end()

    def __enter__(self) -> "Jvm":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _silence(self, java: str, game: str) -> None:
        """Simulators print at every step; nobody reads that, and writing it takes time."""
        lang, io = self.view.java.lang, self.view.java.io
        version = str(lang.System.getProperty("java.specification.version"))
        if int(version.split(".")[0]) < _OLDEST_JAVA:
            raise JavaError(
                f"{game} needs Java {_OLDEST_JAVA} or newer, and {java} is Java {version}. "
                "On Debian and Ubuntu: apt install default-jre-headless"
            )
        nothing = io.PrintStream(io.OutputStream.nullOutputStream())
        lang.System.setOut(nothing)
        lang.System.setErr(nothing)


def _greeting(stdout: IO[bytes], deadline: float) -> tuple[int, str]:
    """Port and password, the two lines that a gateway begins with. `ValueError` without them."""
    said = b""
    while said.count(b"\n") < 2:
        if os.name == "posix":  # elsewhere there is no waiting for a pipe
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ValueError("too late")
        part = os.read(stdout.fileno(), 4096)
        if not part:
            raise ValueError("ended")
        said += part
    port, token = said.decode().split()[:2]
    return int(port), token


def _end(process: "subprocess.Popen[bytes]", clients: list[Any], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that started it, which has closed its copy of the pipe
    for client in clients:
        client.is_connected = False  # objects that are collected later send no farewell
        client.close()
    assert process.stdin is not None
    assert process.stdout is not None
    _pipes.discard(process.stdin.fileno())
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            stream.close()
    try:
        process.wait(_CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
