"""A Java process with the games of TextWorldExpress in it, for one who plays one at a time.

The package keeps things in static fields: a game that is generated takes the objects of another of
the same seed away, even while that one is being played. So an environment has a process for itself,
and solutions are looked for in another.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...extras import needs
from ..jvm import Jvm

_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Games are small and short: Java would take all memory, and compile what is run once."""
_ATTEMPTS = 50
"""Random walks tried for a solution."""
_WALKERS = {"twc": "TWCGoldAgent", "coin": "CoinGoldAgent"}
"""Games whose solutions the package draws by the clock, and who walks there."""


class JavaGames:
    """The process, and the game that is played in it. It takes a second to start.

    Raises:
        MissingExtraError: the package is not installed.
        JavaError: there is no Java, or it does not start.
    """

    def __init__(self) -> None:
        needs("textworld-express")
        found = find_spec("textworld_express")
        assert found is not None
        assert found.origin is not None
        folder = Path(found.origin).parent
        jar = folder / "textworld-express.jar"
        # Its program looks for its data where it runs.
        self._jvm = Jvm([jar], _OPTIONS, game="textworld-express", folder=folder)
        self._players: dict[str, Any] = {}

    @property
    def alive(self) -> bool:
        """Whether it runs, and was started by this process."""
        return self._jvm.alive

    @property
    def pid(self) -> int:
        """Process number of the JVM."""
        return self._jvm.pid

    def start(self, game: str, split: str, seed: int) -> dict[str, Any]:
        """Begin a game; returns what it says, with its task as ``taskDescription``."""
        player = self._player(game)
        told = _read(self._call(player.generateNewGameJSON, seed, split, False))
        return {**told, "taskDescription": str(self._call(player.getTaskDescription))}

    def step(self, game: str, command: str) -> dict[str, Any]:
        """Carry out a command in the game that was started last; returns what it says."""
        return _read(self._call(self._player(game).stepJSON, command))

    def solution(self, game: str, split: str, seed: int) -> tuple[str, ...]:
        """Commands that win a game: what the package calls its gold path. Ends the game played.

        For two games it is a random walk that the package draws by the clock. Here it is drawn by
        the game's seed, and otherwise made as there: the first walk that wins.

        Raises:
            LookupError: none was found.
        """
        player = self._player(game)
        if game not in _WALKERS:
            told = _read(self._call(player.generateNewGameJSON, seed, split, True))
            path = tuple(map(str, self._call(player.getGoldActionSequence)))
            if told["tasksuccess"] or path:
                return path
        else:
            java = self._jvm.view
            rng = self._call(java.scala.util.Random, seed)
            for _ in range(_ATTEMPTS):
                self._call(player.generateNewGameJSON, seed, split, False)
                agent = getattr(java.textworldexpress.goldagent, _WALKERS[game])
                walker = self._call(agent, self._call(player.game))
                found = self._call(walker.mkGoldPath, rng)  # a pair, as Scala has them
                if self._call(found._1):
                    return tuple(map(str, self._call(found._2)))
        raise LookupError(f"TextWorldExpress finds no solution of {game} {seed} ({split})")

    def close(self) -> None:
        """End the process. Twice is fine."""
        self._jvm.close()

    def _player(self, game: str) -> Any:
        if game not in self._players:
            player = self._call(self._jvm.view.textworldexpress.runtime.PythonInterface)
            told = self._call(player.load, game, "")
            if told:
                raise ValueError(f"TextWorldExpress cannot make {game!r}: {told}")
            self._players[game] = player
        return self._players[game]

    def _call(self, method: Any, *arguments: Any) -> Any:
        """Call something in Java. Broken off by anything but Java's own errors (Ctrl-C, say), it
        would leave an answer that the next call takes for its own, so the process is ended then."""
        from py4j.protocol import Py4JJavaError

        self._jvm.check_owner()
        try:
            return method(*arguments)
        except Py4JJavaError:
            raise
        except BaseException as error:
            self._jvm.close()
            if not isinstance(error, Exception):
                raise
            raise RuntimeError(
                f"the Java process of TextWorldExpress has ended ({type(error).__name__}): call "
                "reset, which starts another"
            ) from error


def _read(answer: str) -> dict[str, Any]:
    told = json.loads(answer)
    if not isinstance(told, dict) or "tasksuccess" not in told:
        raise ValueError(f"TextWorldExpress answered {answer:.200}")
    return told
