"""The simulator in a Java process: games loaded, commands carried out, solutions asked for.

Its server is called directly. The package's own `step` lists all valid commands after each action,
which takes several times as long as the action.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from ...extras import needs
from ..jvm import Jvm
from .mended import mended

_OPTIONS = (
    "-Xmx1g",
    "-XX:+UseSerialGC",  # less memory and fewer threads, and a step takes no longer
)
_OPTION = re.compile(r"^(\d+):\t", re.MULTILINE)
_LIST = "objects"
_ATTEMPTS = 5
"""Solutions tried of one game."""
_LOOKS_PER_WAIT = 11
"""How often the world moves on while one waits, and it does once with a look at a thing."""
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
    `relive.envs.scienceworld.mended`.

    Raises:
        MissingExtraError: the package is not installed.
        JavaError: there is no Java, or it does not start.
    """

    def __init__(self) -> None:
        jar = _jar()
        self._jvm = Jvm([mended(jar), jar], options=_OPTIONS, game="scienceworld")
        self._asked = 0
        self._server: Any = self._call(
            self._jvm.view.scienceworld.runtime.pythonapi.PythonInterface
        )
        self._choice: Any = getattr(self._jvm.view.scala.util, "Choice$").__getattr__("MODULE$")

    @property
    def alive(self) -> bool:
        """Whether it runs, and was started by this process."""
        return self._jvm.alive

    @property
    def pid(self) -> int:
        """Process number of the JVM."""
        return self._jvm.pid

    def load(self, kind: str, variation: int) -> tuple[str, Answer]:
        """Begin a game; returns the task's description and what is seen first. Some begin with a
        few points: for a room where one has to be.

        Raises:
            ValueError: the simulator has no such game.
        """
        self._load(kind, variation)
        return str(self._call(self._server.getTaskDescription)), self.step("look around")

    def step(self, command: str) -> Answer:
        """Carry out a command, or answer the question that was asked last with a number.

        Raises:
            SimulatorError: the simulator failed.
        """
        if self._asked:
            return self._answer(command)
        if command == _LIST:  # whose answer draws from what else only `admissible` draws from
            self._call(self._choice.setSeed, 0)
        observation = str(self._call(self._server.step, command))
        self._asked = len(_OPTION.findall(observation)) if observation.startswith(_QUESTION) else 0
        return self._answered(observation)

    def admissible(self) -> list[str]:
        """Commands that would be understood now; the numbers to choose from where it has asked."""
        self._call(self._choice.setSeed, 0)
        return self._lines(self._call(self._server.getValidActionObjectCombinations))

    def solution(self, kind: str, variation: int, longest: int) -> tuple[str, ...]:
        """The simulator's own solution of a game, up to the action that solves it; up to half a
        minute of work for each try. Loads the game.

        It is looked for with other random choices when one does not win, which is rare. One that is
        longer than `longest` actions, because it looks at a slow thing hundreds of times, waits
        instead.

        Raises:
            LookupError: none was found.
        """
        for attempt in range(_ATTEMPTS):
            self._load(kind, variation, True, attempt)
            found = self._lines(self._call(self._server.getGoldActionSequence))
            for actions in (found, _hurried(found)) if len(found) > longest else (found,):
                needed = self._winning(kind, variation, actions)
                if 0 < needed <= longest:
                    return tuple(actions[:needed])
        raise LookupError(f"scienceworld finds no solution of variation {variation} of {kind!r}")

    def variations(self, kind: str) -> tuple[int, int, int]:
        """How many variations of a task there are to train, develop and test. Loads a game."""
        self._load(kind, 0)
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

    def _load(self, kind: str, variation: int, solve: bool = False, choices: int = 0) -> None:
        self._asked = 0
        self._call(self._choice.setSeed, choices)
        told = str(self._call(self._server.load, kind, variation, "", solve))
        if told:
            raise ValueError(f"scienceworld cannot make variation {variation} of {kind!r}: {told}")

    def _winning(self, kind: str, variation: int, actions: Sequence[str]) -> int:
        """How many of the actions win a game; 0 where they do not."""
        self.load(kind, variation)
        for number, action in enumerate(actions, 1):
            answer = self.step(action)
            if answer.over:
                return number if answer.score == 100 else 0
        return 0

    def _lines(self, texts: Any) -> list[str]:
        """A Java list of texts, fetched at once and not item by item."""
        joined = str(self._call(self._jvm.view.java.lang.String.join, "\n", texts))
        return joined.split("\n") if joined else []

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

        self._jvm.check_owner()
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


def _hurried(actions: Sequence[str]) -> list[str]:
    """Actions with a wait in place of each dozen looks at the same thing: about the same time."""
    shorter: list[str] = []
    for action, run in groupby(actions):
        count = len(list(run))
        waits = count // _LOOKS_PER_WAIT if action.startswith("look at ") else 0
        shorter += ["wait"] * waits + [action] * (count - waits * _LOOKS_PER_WAIT)
    return shorter


def _jar() -> Path:
    needs("scienceworld")
    found = find_spec("scienceworld")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "scienceworld.jar"
