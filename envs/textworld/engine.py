"""Plays a file of the Z-machine, TextWorld's or any other that Jericho's interpreter runs.

TextWorld's own environment does the same through four wrappers, of which one parses the game's
description at every load; answers are equal (tests compare them), this is several times faster, and
needs nothing but the file. Games by TextWorld say themselves what score they give, how many there
are, and, asked to trace, whether an action succeeded. What is known of other games is told by
Jericho where it supports them, and otherwise read off their text.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = tuple(f".z{version}" for version in range(1, 9))
"""How the files are called."""
GLULX = (".ulx", ".gblorb", ".blb")
"""How files are called that are played no more."""

LONGEST = 190
"""Bytes of a command; the interpreter would cut off what comes behind."""
_SEED = 20181  # of the interpreter's dice, which would follow the clock
_NOT_UNDERSTOOD = "That's not a verb I recognise."
_SILENCE = "I beg your pardon?"

# Commands about the program rather than the world: they would leave the game, wait for a yes or no,
# write files, put one of these in place of a mistyped word, or are TextWorld's own back doors.
_FORBIDDEN = frozenset(
    "restart restore save quit q undo script unscript transcript verify version record replay "
    "recording oops o".split()
)
_SEPARATORS = re.compile(r"[.;,!?\"]|\bthen\b", re.IGNORECASE)

_BANNER = re.compile(r"\A(?:[^\w\n]|_)*\n(?:(?:[^\w\n]|_)*\n)+")
"""Leading lines without a letter or a digit: TextWorld's name, drawn with dollar signs."""
_STATUS = re.compile(r"(?<=\S)[ ]{20,}\S[^\n]*\Z")
"""The line at the top of the screen, which comes last here."""
_AFTERWARDS = re.compile(r"\n+Would you like to RESTART.*\Z", re.DOTALL)
_TAGS = re.compile(r"<(score|moves|description|inventory)>\n(.*?)\n?</\1>", re.DOTALL)
_TRACED = re.compile(r"^\[([^\n]*) - (succeeded|failed[^\n\]]*|ended without result)\]$", re.M)
_POSSIBLE = re.compile(
    r"\bscored?\b\D{0,20}?(-?\d+)(?:[^\d\n]{0,10}(?:out of|total of|maximum)[^\d\n]{0,20}(\d+))?",
    re.I,
)
"""Points and possible points: "You have so far scored 1 out of a possible 3, in 7 turns."."""
_STARRED = re.compile(r"\*\*\*\s*(\w.*?)\s*\*\*\*")
_GOOD_END = re.compile(r"\bwon\b|\bwin\b|the end\b|victor|congratulations", re.IGNORECASE)
_BAD_END = re.compile(r"\blost\b|\blose\b|\bdied\b|\bdead\b|killed|game over|failed", re.IGNORECASE)
_REFUSED = re.compile(
    r"\A\W*(?:That's not (?:a verb|something)|I beg your pardon|You can't see any|You can't go that"
    r"|I don't (?:understand|know)|I only understood|You seem to (?:have|want)|I didn't understand"
    r"|You excepted something|You must (?:name|supply)|That (?:noun|verb|sentence)"
    r"|You (?:used the word|can't (?:use|begin))|There (?:was|were) no|Sorry, I|It isn't something"
    r"|You aren't holding|You haven't got|You don't have that|Nothing to do|Your interpreter)",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"^(?:What|Which|Who|Whom|Where)\b[^\n]*\?$", re.MULTILINE)


class UnplayableError(ValueError):
    """A file is no game that can be played here; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a game said to a command."""

    text: str
    refused: bool
    """It was not understood, or did not work."""
    score: int | None
    """Points so far; None where the game does not tell."""
    won: bool
    over: bool


class Engine:
    """One player of one file.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        UnplayableError: it is no game of the Z-machine.
    """

    def __init__(self, path: str | Path) -> None:
        check_playable(path)
        self.path = str(path)
        self._game = _interpreter(self.path)
        self._tells = False  # whether it says score and success itself: TextWorld's games do
        self._asked = False  # whether it answers `score`
        self.max_score: int | None = None
        """Points that can be had; None where the game does not tell."""
        self.sent: list[str] = []
        """Commands that the game was given since it began."""

    def reset(self) -> Answer:
        """Begin, and read the opening."""
        opening = self._game.reset()[0]
        self.sent = []
        self._tells = "<score>" in self._game.step("tw-extra-infos score")[0]
        score: int | None = 0
        if self._tells:
            self._game.step("tw-extra-infos moves")
            self._game.step("tw-trace-actions")
            score, self.max_score = _points(self._game.step("score")[0])
        else:
            opening = self._game.reset()[0]  # as if it had not been asked
            if self._game.is_fully_supported:
                score, self.max_score = self._game.get_score(), self._game.get_max_score()
            else:
                score, self.max_score = self._ask()
                self._asked = score is not None
        return Answer(_BANNER.sub("", _plain(opening)).strip(), False, score, False, False)

    def step(self, command: str) -> Answer:
        """Carry out a command. What would not reach the world is refused here."""
        command = clean(command)
        if not command:
            return self._refused(_SILENCE)
        if len(command) > LONGEST or _forbidden(command):
            return self._refused(_NOT_UNDERSTOOD)
        self.sent.append(command)
        raw = str(self._game.step(command)[0])
        return self._told(raw) if self._tells else self._guessed(raw)

    def close(self) -> None:
        """Release the interpreter."""
        self._game = None

    def _refused(self, text: str) -> Answer:
        return Answer(text, True, None, False, False)

    def _told(self, raw: str) -> Answer:
        """An answer of one of TextWorld's games."""
        tags = {name: value.strip() for name, value in _TAGS.findall(raw)}
        text = _TAGS.sub("", raw)
        done = _TRACED.findall(text)
        traces = {f"[{action}]" for action, _ in done}
        text = _TRACED.sub("", text)
        text = "\n".join(line for line in text.split("\n") if line not in traces)
        won = "*** The End ***" in text
        worked = any(result == "succeeded" for _, result in done)
        return Answer(
            _plain(_AFTERWARDS.sub("", text)),
            not worked and not (not done and _QUESTION.search(text) and not _REFUSED.match(text)),
            int(tags["score"]) if "score" in tags else None,
            won,
            won or "*** You lost! ***" in text or bool(self._game._emulator_halted()),
        )

    def _guessed(self, raw: str) -> Answer:
        """An answer of any other game."""
        text = _plain(raw)
        ends = [str(end) for end in _STARRED.findall(text)]
        game = self._game
        if game.is_fully_supported:
            score, won = game.get_score(), game.victory()
            over = won or game.game_over()
        else:
            won = any(_GOOD_END.search(end) and not _BAD_END.search(end) for end in ends)
            over = won or any(_BAD_END.search(end) for end in ends)
            score = None if over or not self._asked else self._ask()[0]
            if score is None and over:
                score = _points(text)[0]
        over = over or game._emulator_halted()
        return Answer(
            _AFTERWARDS.sub("", text).strip(), bool(_REFUSED.match(text)), score, won, over
        )

    def _ask(self) -> tuple[int | None, int | None]:
        """Ask for the score, and turn time back."""
        state = self._game.get_state()
        said = str(self._game.step("score")[0])
        self._game.set_state(state)
        return _points(said)


def check_playable(path: str | Path) -> None:
    """Whether a file can be a game.

    Raises:
        FileNotFoundError: there is no such file.
        UnplayableError: it is none, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no game file {path}: give a file ending in .z1 to .z8")
    suffix = path.suffix.lower()
    if suffix in GLULX:
        raise UnplayableError(
            f"{path} is a Glulx game, which neither TextWorld (since 1.7.0) nor Jericho plays: "
            "compile it for the Z-machine (.z8)"
        )
    data = path.read_bytes()
    if suffix not in SUFFIXES or len(data) < 64 or data[0] != int(suffix[2:]):
        raise UnplayableError(
            f"{path} is no game for the Z-machine: a file .z1 to .z8 begins with a byte of that "
            f"number, and this one with {data[:1].hex() or 'nothing'}"
        )
    length = int.from_bytes(data[26:28], "big") * (2 if data[0] < 4 else 4 if data[0] < 6 else 8)
    checksum = int.from_bytes(data[28:30], "big")
    if length and checksum and checksum != _sum(data[64:length]):
        raise UnplayableError(
            f"{path} is damaged: its checksum is wrong. Fetch it, or make it, once more"
        )


def _sum(data: bytes) -> int:
    return int(np.frombuffer(data, np.uint8).sum(dtype=np.uint64)) % 0x10000


def clean(command: str) -> str:
    """A command as one line of printable ASCII: a line break would be a second command, and what
    is left of it would be taken for the next one."""
    text = command.encode("ascii", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _forbidden(command: str) -> bool:
    firsts = (part.split()[0].lower() for part in _SEPARATORS.split(command) if part.split())
    return any(word in _FORBIDDEN or word.startswith("tw-") for word in firsts)


def _points(text: str) -> tuple[int | None, int | None]:
    """Score and highest score of what `score` says."""
    found = _POSSIBLE.search(text)
    if not found:
        return None, None
    return int(found[1]), int(found[2]) if found[2] else None


def _plain(text: str) -> str:
    """Without the status line, the prompt, and blanks around it."""
    text = _STATUS.sub("", text.rstrip())
    text = re.sub(r"\n*>\s*\Z|\A\s*>[ \t]*\n", "", text)
    text = re.sub(r"[ \t]+\n|\n[ \t]+(?=\*\*\*)", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _interpreter(path: str) -> Any:
    import jericho

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not know a game is no news
        game = jericho.FrotzEnv(path)
        seed = game.bindings.get("seed") or _SEED  # the walk-through's, where it has one
        game.seed(seed)
    return game
