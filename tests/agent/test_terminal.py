"""Nothing that a terminal would obey is printed, whatever a memory, a world or a file name
holds."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from relive.agent.cli import main
from relive.agent.evaluation.terminal import visible
from relive.memory import (
    Actor,
    Episode,
    Memory,
    Outcome,
    Retrieved,
    Step,
    StopReason,
    Task,
)

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eabc\u2066 over\rnext\x08 [bold red]x :smile: \u2028"
)
SHOWN = r"\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eabc\u2066 over\rnext\x08 [bold red]x :smile: \u2028"
FORGED = "\nrelive memory: all is well"
ESCAPED = r"\nrelive memory: all is well"


def raw(text: str) -> list[str]:
    """What of the hostile text has come through."""
    return [c for c in HOSTILE if not c.isprintable() and c in text]


def hostile(number: int) -> Episode:
    """An episode whose every text is a command to a terminal."""
    text = HOSTILE + FORGED
    task = Task("toy", f"{text}{number}", text, "train", text, number, "1", f"put a mug {text}")
    step = Step(text, text, retrieved=(Retrieved(text, 0.5),))
    outcome = Outcome(True, 1.0, StopReason.SOLVED, text)
    actor = Actor(text, text, text)
    return Episode(f"{number}{text}", task, (step,), text, outcome, actor, started=1000.0 * number)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A memory of hostile episodes in a folder with a hostile name."""
    folder = tmp_path / (HOSTILE + FORGED)
    with Memory(folder) as opened:
        opened.add_many([hostile(number) for number in range(3)])
        opened.annotate(hostile(1).id, HOSTILE + FORGED)
        opened.rate(hostile(1).id, HOSTILE, 1.0)
    return folder


@dataclass(frozen=True)
class Ran:
    """What a command did, as a terminal would get it."""

    status: int
    out: str
    error: str


def relive(*argv: object, env: Mapping[str, str] = {}, to: Path | None = None) -> Ran:
    """Runs a command in a process of its own; output goes to a pipe, or to a file."""
    command = [sys.executable, "-m", "relive.agent.cli", *map(str, argv)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    if to is None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, env=settings)
        out = done.stdout
    else:
        with to.open("wb") as file:
            done = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, env=settings
            )
        out = to.read_bytes()
    return Ran(done.returncode, out.decode(), done.stderr.decode())


def shell(command: str, **env: str) -> Ran:
    """Runs a line of shell in which ``relive`` is the program."""
    program = f"{sys.executable} -m relive.agent.cli"
    done = subprocess.run(
        ["sh", "-c", command.replace("relive", program)],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def on_a_terminal(argv: list[str]) -> str:
    """What a process shows on a terminal, both streams together."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "400"}
    process = subprocess.Popen(argv, cwd=ROOT, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 1 << 16):
            shown += data
    except OSError:  # how the end of a terminal is told
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_what_a_terminal_obeys_is_shown_as_text() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible(HOSTILE, lines=True) == SHOWN
    assert visible("\ud800 \x00 \x7f \ufeff \U000e0041") == r"\ud800 \x00 \x7f \ufeff \U000e0041"


def test_what_is_only_text_stays_as_it_is() -> None:
    """Every script, joiners, and the spaces that typography knows."""
    for text in ("naïve — “ok” 猫", "می\u200cخواهم", "👩\u200d🚀", "5\u00a0kg\u3000x", "e\u0301"):
        assert visible(text) == text
    assert visible("a\tb\nc", lines=True) == "a\tb\nc"
    assert visible("a\tb\nc") == r"a\tb\nc"


def test_no_character_that_moves_or_hides_is_taken_for_text() -> None:
    """All of Unicode's controls, C0 and C1 and those of direction."""
    commands = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    commands += [0x200E, 0x200F, 0x061C, 0x2028, 0x2029]
    assert [hex(c) for c in commands if not visible(chr(c)).startswith("\\")] == []


@pytest.mark.parametrize("env", [{}, {"LANG": "C", "LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_memorys_texts_command_no_terminal(
    memory: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    """Every text of every command that reads, to a pipe and to a file, in any locale."""
    for argv, times in (
        (["stats"], 3),  # the folder, and counts by type and by policy
        (["search", "put a mug"], 9),  # three times id, policy and goal
        (["show", "1"], 13),
    ):
        for to in (None, tmp_path / "out"):
            ran = relive("memory", *argv, "--memory", memory, env=env, to=to)
            assert (ran.status, ran.error) == (0, "")
            assert raw(ran.out) == []
            assert ran.out.count(SHOWN) == times
            assert "x :smile:" in ran.out
    lines = relive("memory", "search", "put a mug", "--memory", memory, env=env).out.splitlines()
    assert len(lines) == 9  # no text makes a line of its own


def test_changes_to_a_memory_show_ids_as_text(memory: Path) -> None:
    for argv in (
        ["rate", "1", HOSTILE, "1"],
        ["annotate", "1", HOSTILE],
        ["delete", "1"],
        ["evict", "--capacity", "1", "--keep-per-type", "1"],
    ):
        ran = relive("memory", *argv, "--memory", memory)
        assert (ran.status, ran.error) == (0, "")
        assert raw(ran.out) == []
        assert SHOWN + ESCAPED in ran.out


def test_mistakes_show_what_they_name_as_text(memory: Path, tmp_path: Path) -> None:
    """Arguments, folders and files; one line, whatever line ends they hold."""
    settings = tmp_path / f"{HOSTILE}.toml"
    settings.write_text("= 3")
    for argv in (
        ["memory", "show", HOSTILE, "--memory", str(memory)],
        ["memory", "stats", "--memory", str(tmp_path / HOSTILE)],
        ["memory", "import", str(tmp_path / HOSTILE), "--memory", str(memory)],
        ["learn", "--out", str(tmp_path / "run"), "--config", str(settings)],
    ):
        ran = relive(*argv)
        assert (ran.status, ran.out) == (2, "")
        assert raw(ran.error) == []
        assert r"\x1b[2J\x1b]0;owned\x07" in ran.error
        assert len(ran.error.splitlines()) == 1
    ran = relive("memory", "stats", HOSTILE, "--memory", memory)
    assert ran.status == 2
    assert raw(ran.error) == []
    assert SHOWN in ran.error


def test_an_import_that_goes_wrong_shows_ids_and_names_as_text(
    memory: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"{HOSTILE}.jsonl"
    assert relive("memory", "export", file, "--memory", memory).error.count(SHOWN) == 1
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace('"steps":[', '"steps":["\\u001b[2J",')
    file.write_text("\n".join(lines))
    ran = relive("memory", "import", file, "--memory", tmp_path / "copy")
    assert ran.status == 1
    assert raw(ran.error) == []
    assert f"{SHOWN}.jsonl, line 2" in ran.error


def test_an_export_is_bytes_in_a_pipe_and_text_on_a_terminal(memory: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "relive.agent.cli",
        "memory",
        "export",
        "-",
        "--memory",
        str(memory),
    ]
    piped = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    assert "\u202e" in piped  # what is imported again is what was there
    shown = on_a_terminal(argv)
    assert r"\u202e" in shown
    assert [c for c in raw(shown) if c != "\r"] == []  # a terminal puts one before each line end


def test_on_a_terminal_a_memorys_texts_are_text(memory: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "relive.agent.cli",
        "memory",
        "search",
        "mug",
        "--memory",
        str(memory),
    ]
    shown = on_a_terminal(argv)
    assert shown.count(SHOWN) == 9
    assert [c for c in raw(shown) if c != "\r"] == []


def test_progress_and_tables_show_texts_as_text() -> None:
    """They colour and move, and nobody else does."""
    code = (
        "from relive.agent.events import JobEnded, Phase, TasksPlanned\n"
        "from relive.agent.evaluation.metrics import Row; from relive.agent.evaluation.report "
        "import console, results_table\nfrom relive.agent.evaluation.live import LiveProgress\n"
        f"text = {HOSTILE!r}\n"
        "with LiveProgress() as live:\n"
        "    live.on_event(Phase(text))\n"
        "    live.on_event(TasksPlanned(3))\n"
        "    live.on_event(JobEnded('a', text, 1, 2, 3.0))\n"
        "rows = [Row(text, 8, 4, 0.2, 0.8, 9.5, 0.25, None, 0)]\n"
        "console().print(results_table(rows, text))\n"
        "console().print(text)\n"
    )
    shown = on_a_terminal([sys.executable, "-c", code])
    for command in ("\x1b[2J", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u2066", "\x08", "over\rnext"):
        assert command not in shown
    assert shown.count(r"\x1b[2J\x1b]0;owned\x07") >= 5  # phase, job, title, cell, text
    assert shown.count("[bold red]x :smile:") >= 5


def test_a_world_commands_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Observations may have lines, and admissible actions are other people's text too."""
    from relive.envs.toy import ToyEnv

    reset, said = ToyEnv.reset, iter(["help!", "sing"])

    def first(env: ToyEnv, **options: object) -> object:
        seen, info = reset(env, **options)  # type: ignore[arg-type]
        return f"{HOSTILE}\n{seen}", info

    def step(*_: object) -> object:
        return HOSTILE, 1.0, True, False, {"success": True}

    monkeypatch.setattr(ToyEnv, "reset", first)
    monkeypatch.setattr(ToyEnv, "step", step)
    monkeypatch.setattr(ToyEnv, "admissible", lambda _: [HOSTILE, "look"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    assert main(["envs", "play", "toy"]) == 0
    out = capfd.readouterr().out
    assert raw(out) == []
    assert out.count(SHOWN) == 3
    assert f"{SHOWN}\nYou are in" in out
    assert f"{SHOWN}, look\n" in out


def test_a_bug_shows_its_traceback_as_text(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> None:
        raise AssertionError(HOSTILE)

    monkeypatch.setattr("relive.envs.get_suite", broken)
    assert main(["envs", "check", "toy"]) == 1
    error = capfd.readouterr().err
    assert error.startswith("Traceback")
    assert f"AssertionError: {SHOWN}" in error
    assert raw(error) == []


@pytest.mark.parametrize("command", ["memory stats", "memory search mug", "memory show 1"])
def test_closed_output_is_one_line(memory: Path, command: str) -> None:
    """Whoever asked for it has to know that it is lost."""
    ran = shell(f'relive {command} --memory "$folder" >&-', folder=str(memory))
    assert (ran.status, ran.out) == (2, "")
    (line,) = ran.error.splitlines()
    assert line.startswith("relive memory: standard output is closed")


def test_closed_output_stops_no_work(tmp_path: Path) -> None:
    """A run is played to its end, and what is opened meanwhile gets nothing that was printed."""
    play = "relive run --suite toy --policy expert --tasks 6 --memory"
    ran = shell(f'{play} "$folder" >&-', folder=str(tmp_path / "m"))
    assert ran.status == 2
    assert "Traceback" not in ran.error
    assert ran.error.splitlines()[-1].startswith("relive run: standard output is closed")
    with Memory(tmp_path / "m", "r") as opened:
        assert len(opened) == 6
        assert not opened.verify()


def test_all_streams_closed(memory: Path) -> None:
    """Nobody can be told, but the exit status still says it."""
    assert shell("relive envs list >&- 2>&-") == Ran(2, "", "")
    assert shell("relive envs play toy <&-").status == 0
    ran = shell('relive memory stats --memory "$folder" 2>&- <&-', folder=str(memory))
    assert ran.status == 0
    assert "3 episodes" in ran.out
    assert shell("relive memory stats --memory nowhere 2>&-") == Ran(2, "", "")
    assert shell("relive --no-such-option 2>&-") == Ran(2, "", "")


def test_an_export_to_a_closed_output_is_refused(memory: Path) -> None:
    ran = shell('relive memory export - --memory "$folder" >&-', folder=str(memory))
    assert ran.status == 2
    (line,) = ran.error.splitlines()
    assert line == "relive memory: standard output is closed: give the name of a file"


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """`relive … | head`: more is printed than a pipe holds."""
    with Memory(tmp_path / "m") as opened:
        long = replace(hostile(1), id="long", final_observation="a long tale\n" * 20_000)
        opened.add(long)
    ran = shell(
        'relive memory show long --memory "$folder" | head -n 1', folder=str(tmp_path / "m")
    )
    assert ran.error == ""
    assert ran.out.startswith("long: put a mug")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_the_output_is_one_line() -> None:
    ran = shell("relive envs list >/dev/full")
    assert ran.status == 2
    (line,) = ran.error.splitlines()
    assert line.startswith("relive envs: ")
    assert "No space left" in line
