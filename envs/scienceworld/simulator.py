"""The simulator in a Java process: games loaded, commands carried out, solutions asked for.

Its server is called directly. The package's own `step` lists all valid commands after each action,
which takes several times as long as the action.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...caches import cache_folder
from ...extras import needs
from ..jvm import Jvm
from .classfile import with_hash_of

_THING = "scienceworld/struct/EnvObject.class"
_NUMBER = "uuid"
_OPTIONS = (
    "-Xmx1g",
    "-XX:+UseSerialGC",  # less memory and fewer threads, and a step takes no longer
    "--add-opens=java.base/java.util=ALL-UNNAMED",  # for the state of its random numbers
)
_SCRAMBLED = 0x5DEECE66D
"""What java.util.Random does to a seed before it keeps it, as its documentation says."""
_OPTION = re.compile(r"^(\d+):\t", re.MULTILINE)
_QUESTION = "Ambiguous request: "


@dataclass(frozen=True, slots=True)
class Answer:
    """What the simulator says to a command."""

    observation: str
    score: int
    """Points from 0 to 100; -100 when the task is lost."""
    over: bool
    """Whether the task is done or lost."""


class SimulatorError(RuntimeError):
    """The simulator met an error of its own, or its process is gone: the episode is lost."""


class Simulator:
    """A Java process with one game in it at a time. It takes a second or two to start.

    What an action leads to depends on the task and the actions before it, and on nothing else; see
    `relive.envs.scienceworld.classfile`.

    Raises:
        MissingExtraError: the package is not installed.
        JavaError: there is no Java, or it does not start.
    """

    def __init__(self) -> None:
        jar = _jar()
        self._jvm = Jvm([_mended(jar), jar], options=_OPTIONS, game="scienceworld")
        self._owner = os.getpid()
        self._asked = 0
        self._server: Any = self._call(
            self._jvm.view.scienceworld.runtime.pythonapi.PythonInterface
        )
        self._random: tuple[Any, Any] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs, and was started by this process (and not by the one it is a fork of)."""
        return self._owner == os.getpid() and self._jvm.alive

    @property
    def pid(self) -> int:
        """Process number of the JVM."""
        return self._jvm.pid

    def load(self, kind: str, variation: int) -> tuple[str, str]:
        """Begin a game; returns the task's description and what is seen first.

        Raises:
            ValueError: the simulator has no such game.
        """
        self._load(kind, variation, False)
        return str(self._call(self._server.getTaskDescription)), self.step(
            "look around"
        ).observation

    def step(self, command: str) -> Answer:
        """Carry out a command, or answer the question that was asked last with a number.

        Raises:
            SimulatorError: the simulator failed.
        """
        if self._asked:
            return self._answer(command)
        observation = str(self._call(self._server.step, command))
        self._asked = len(_OPTION.findall(observation)) if observation.startswith(_QUESTION) else 0
        return self._answered(observation)

    def admissible(self) -> list[str]:
        """Commands that would be understood now; the numbers to choose from where it has asked.

        To list them, the simulator draws random numbers. What comes later must not depend on
        whether it was asked, so their generator is put back.
        """
        if self._random is None:
            scala = self._jvm.view.scala.util
            generator = self._call(getattr(scala, "Random$").__getattr__("MODULE$").self)
            state = self._call(self._call(generator.getClass).getDeclaredField, "seed")
            self._call(state.setAccessible, True)
            self._random = generator, state
        generator, state = self._random
        before = int(self._call(state.get, generator))
        self._call(generator.setSeed, 0)
        try:
            # One text: a list would be fetched item by item.
            commands = self._call(self._server.getValidActionObjectCombinations)
            joined = str(self._call(self._jvm.view.java.lang.String.join, "\n", commands))
        finally:
            self._call(generator.setSeed, before ^ _SCRAMBLED)
        return joined.split("\n") if joined else []

    def solution(self, kind: str, variation: int) -> tuple[str, ...]:
        """The simulator's own solution of a game, up to half a minute of work. Loads the game.

        It may go on after the task is done.
        """
        self._load(kind, variation, True)
        actions = self._call(self._server.getGoldActionSequence)
        return tuple(
            str(self._call(self._jvm.view.java.lang.String.join, "\n", actions)).split("\n")
        )

    def variations(self, kind: str) -> tuple[int, int, int]:
        """How many variations of a task there are to train, develop and test. Loads a game."""
        self._load(kind, 0, False)
        server = self._server
        sets = (server.getVariationsTrain, server.getVariationsDev, server.getVariationsTest)
        train, dev, test = (int(self._call(self._call(listed).size)) for listed in sets)
        return train, dev, test

    def kinds(self) -> list[str]:
        """Names of all tasks."""
        return [str(kind) for kind in self._call(self._server.getTaskNames)]

    def moves(self) -> int:
        """How often the world has moved on since the game began."""
        return int(self._call(self._server.getNumMoves))

    def close(self) -> None:
        """End the process. Twice is fine."""
        self._jvm.close()

    def _load(self, kind: str, variation: int, solve: bool) -> None:
        self._asked = 0
        told = str(self._call(self._server.load, kind, variation, "", solve))
        if told:
            raise ValueError(f"scienceworld cannot make variation {variation} of {kind!r}: {told}")

    def _answer(self, choice: str) -> Answer:
        """An answer to "which do you mean?". To anything but one of its numbers the simulator drops
        the command and lets time pass; here, time stands still."""
        asked, self._asked = self._asked, 0
        if choice.isdecimal() and int(choice) < asked:
            return self._answered(str(self._call(self._server.step, str(int(choice)))))
        agent = self._call(self._call(self._server.agentInterface).get)
        self._call(self._call(agent.inputParser).clearAmbiguousState)
        return self._answered(f"ERROR: Unknown response ({choice}).  Action cancelled.")

    def _answered(self, observation: str) -> Answer:
        score = round(100 * float(self._call(self._server.getScore)))
        over = bool(self._call(self._server.getCompleted)) or score < 0 or score == 100
        if score < 0 or not observation:  # an error of its own looks like a task that is lost
            agent = self._call(self._call(self._server.agentInterface).get)
            if self._call(agent.isInErrorState):
                message = str(self._call(agent.getErrorStateMessage))
                raise SimulatorError(f"scienceworld met an error of its own: {message}")
        return Answer(observation, score, over)

    def _call(self, method: Callable[..., Any], *arguments: object) -> Any:
        """Call something in Java. Broken off by anything but Java's own errors (Ctrl-C, say), it
        would leave an answer that the next call takes for its own, so the process is ended then."""
        from py4j.protocol import Py4JError, Py4JJavaError

        try:
            return method(*arguments)
        except Py4JJavaError as error:
            raise SimulatorError(f"scienceworld met an error of its own: {error}") from error
        except Py4JError as error:
            self._jvm.close()
            raise SimulatorError(f"the Java process of scienceworld is gone: {error}") from error
        except BaseException:
            self._jvm.close()
            raise


def _jar() -> Path:
    needs("scienceworld")
    found = find_spec("scienceworld")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "scienceworld.jar"


def _mended(jar: Path) -> Path:
    """A folder with the class of things, mended; for the class path, before the jar."""
    with zipfile.ZipFile(jar) as archive:
        data = with_hash_of(archive.read(_THING), _NUMBER)
    folder = (
        cache_folder("scienceworld-classes") / hashlib.blake2b(data, digest_size=16).hexdigest()
    )
    target = folder / _THING
    if not (target.is_file() and target.read_bytes() == data):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(target)
    return folder
