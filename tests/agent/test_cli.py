"""The command line as a new user meets it: instant help, and one clear line for every mistake."""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from relive import envs
from relive.agent.cli import build_parser, main
from relive.envs import get_suite
from relive.envs.toy import ToySuite
from relive.memory import HashedEmbedder, Memory

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--suite", "toy", "--policy", "expert", "--tasks", "6"]


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a mistake brings."""
    assert main(argv) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("relive ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    return lines[0]


def relive(*argv: str) -> list[str]:
    return [sys.executable, "-m", "relive.agent.cli", *argv]


def heed_ctrl_c() -> None:
    """In a child: a shell's background job ignores SIGINT, and passes that on to whatever it
    starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, relive.agent.cli; relive.agent.cli.build_parser(); print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = eval(done.stdout)
    for heavy in (
        "torch",
        "transformers",
        "textworld",
        "gymnasium",
        "numpy",
        "hnswlib",
        "matplotlib",
        "rich",
    ):
        assert heavy not in loaded
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(relive("--help"), capture_output=True, cwd=ROOT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time, not wall time: a busy machine is not the command's fault.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.3


def test_import_memory_without_torch() -> None:
    code = (
        "import sys, relive.memory, relive.envs, relive.agent; assert not {'torch', "
        "'textworld', 'hnswlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_command_has_help() -> None:
    text = build_parser().format_help()
    for command in ("run", "eval", "learn", "train", "memory", "envs"):
        assert command in text
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])


@pytest.mark.parametrize("command", ["run", "eval", "learn", "train", "study", "stream"])
def test_settings_are_listed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--settings"])
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == 'suite = "household"'
    assert {"retrieval.k = 2", "run.seed = 0"} <= set(listed)
    assert ('split = "train"' in listed) == (command == "run")


def test_the_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line; without an installed package it says where to look."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"relive {metadata.version('relive')}\n"

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    (line,) = capsys.readouterr().out.splitlines()
    assert "pyproject.toml" in line


def test_run_then_look_into_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory = str(tmp_path / "m")
    assert main(["run", *TOY, "--memory", memory]) == 0
    assert "6 episodes added" in capsys.readouterr().out
    assert main(["run", *TOY, "--memory", memory]) == 0
    assert (
        "0 episodes added" in capsys.readouterr().out
    )  # the same command goes on where it stopped: at the end
    assert main(["memory", "stats", "--memory", memory]) == 0
    assert "6 episodes, 6 successes" in capsys.readouterr().out
    with Memory(memory, "r") as opened:
        goal, first = (
            next(iter(opened.iterate())).task.goal,
            next(iter(opened.entries())).episode_id,
        )
    assert main(["memory", "search", goal, "--memory", memory, "--k", "2"]) == 0
    assert goal in capsys.readouterr().out
    assert main(["memory", "show", first[:10], "--memory", memory]) == 0
    shown = capsys.readouterr().out
    assert goal in shown
    assert "\n> " in shown


def test_tables_name_folders_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The caption of a table, whose own lines and colours stay."""
    folder, shown = tmp_path / "\x1b[2J\u202e", "\\x1b[2J\\u202e"
    assert main(["run", *TOY, "--memory", str(folder)]) == 0
    out = capsys.readouterr().out
    assert shown in out.replace("\n", "")
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "│ all" in out


def test_eval_writes_a_run_directory_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["eval", *TOY, "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["suite"] == "toy"
    assert record["versions"]["torch"]
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert rows[-1]["n"] == 6
    assert main(["eval", *TOY, "--out", str(out)]) == 0
    with Memory(out / "episodes", "r") as results:
        assert len(results) == 6  # nothing was played twice
    assert "other settings" in complaint(capsys, "eval", *TOY, "--seed", "5", "--out", str(out))


def test_a_resumed_eval_reads_the_memory_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory, out = str(tmp_path / "m"), str(tmp_path / "run")
    assert main(["run", *TOY, "--memory", memory]) == 0
    assert main(["eval", *TOY, "--memory", memory, "--out", out]) == 0
    assert main(["run", *TOY, "--start", "20", "--memory", memory]) == 0
    assert main(["eval", *TOY, "--memory", memory, "--out", out]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["position"] == 6


def test_eval_reads_the_memory_as_it_was_at_a_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = str(tmp_path / "m")
    assert main(["run", *TOY, "--memory", memory]) == 0
    assert main(["eval", *TOY, "--memory", memory, "--out", str(tmp_path / "then")]) == 0
    assert main(["run", *TOY, "--start", "20", "--memory", memory]) == 0
    assert (
        main(["eval", *TOY, "--memory", memory, "--at", "6", "--out", str(tmp_path / "again")]) == 0
    )

    def seen(name: str) -> list[tuple[str, bool, tuple[str, ...]]]:
        with Memory(tmp_path / name / "episodes", "r") as results:
            return [
                (
                    e.task.identity,
                    e.outcome.success,
                    tuple(hit.episode for step in e.steps for hit in step.retrieved),
                )
                for e in results.iterate()
            ]

    assert seen("then") == seen("again")
    assert any(shown for *_, shown in seen("again"))
    out = str(tmp_path / "other")
    assert "no log position" in complaint(
        capsys, "eval", *TOY, "--memory", memory, "--at", "99", "--out", out
    )
    assert "no log position" in complaint(capsys, "eval", *TOY, "--at", "3", "--out", out)


def test_play_lets_a_person_be_the_policy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(["help!", "sing", "quit!"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    assert main(["envs", "play", "toy"]) == 0
    assert capsys.readouterr().out.count("\n") > 3


def test_lists_and_checks_suites(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "list"]) == 0
    listed = capsys.readouterr().out
    assert "household" in listed
    assert "toy" in listed
    assert main(["envs", "check", "toy"]) == 0


def test_a_suite_that_breaks_the_contract_is_something_found_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [envs.Finding("it answers", False, "it does not")]
    monkeypatch.setattr(envs, "check_env", lambda *_: found)
    assert main(["envs", "check", "toy"]) == 1
    assert capsys.readouterr().err == (
        "relive envs: suite 'toy' does not keep the contract, see above\n"
    )


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("check toy --per-type 0", "--per-type must be at least 1, not 0"),
        ("play toy --number -1", "--number -1: the tasks of fetch in split 'train' are numbered"),
        ("play toy --number 99999999", "--number 99999999: toy has fewer than 500,000 tasks"),
        ("play household --number 99999999", "--number 99999999: household has fewer than"),
        ("play counted --number 7", "--number must be below 7, not 7: counted has 7 tasks of"),
    ],
)
def test_numbers_that_no_suite_has_are_named(
    argv: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counted(ToySuite):
        name = "counted"

        def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
            return 7

    monkeypatch.setattr(
        envs, "get_suite", lambda name: Counted() if name == "counted" else get_suite(name)
    )
    assert complaint(capsys, "envs", *argv.split()).startswith(f"relive envs: {told}")


def test_mistakes_get_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = str(tmp_path / "m")
    assert "Did you mean" in complaint(capsys, "envs", "check", "housold")
    assert "no memory" in complaint(capsys, "memory", "stats", "--memory", str(tmp_path / "none"))
    assert "train" in complaint(capsys, "run", *TOY, "--split", "dev", "--memory", memory)
    Memory(tmp_path / "empty").close()
    assert "nothing of the split under evaluation is ever retrieved" in complaint(
        capsys, "eval", *TOY, "--split", "train", "--memory", str(tmp_path / "empty"), "--out",
        str(tmp_path / "e"),
    )  # fmt: skip
    assert "unknown policy" in complaint(
        capsys, "run", "--suite", "toy", "--policy", "wizard", "--memory", memory
    )
    assert "no model folder" in complaint(
        capsys, "run", "--suite", "toy", "--model", "./nowhere", "--memory", memory
    )
    assert "Did you mean 'retrieval.k'" in complaint(
        capsys, "learn", "--out", str(tmp_path / "l"), "--set", "retrieval.kk=3"
    )
    assert "begins with 'zzz'" in _on_memory(tmp_path, capsys)
    file = tmp_path / "a file"
    file.touch()
    expected = f"relive eval: {file} is a file: give a folder, for example {file}-run"
    assert complaint(capsys, "eval", *TOY, "--out", str(file)) == expected


@pytest.mark.parametrize(
    ("argv", "command", "told"),
    [
        ("run --memory m --k x", "relive run", "argument --k: invalid int value: 'x'"),
        ("run --memory m --nonsense", "relive run", "unrecognized arguments: --nonsense"),
        ("memory stats --memory m x", "relive memory stats", "unrecognized arguments: x"),
        ("--nonsense envs list", "relive", "unrecognized arguments: --nonsense"),
        ("run --memory m --tasks -1", "relive run", "it must be at least 1, or 'all', not -1"),
        ("run --memory m --tasks 0", "relive run", "it must be at least 1, or 'all', not 0"),
        ("run --memory m --tasks few", "relive run", "'few' is neither a number nor 'all'"),
    ],
)
def test_wrong_arguments_get_two_lines(
    argv: str, command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv.split())
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{command}: error: ")
    assert first.endswith(told)
    assert second == f"see {command} --help"


def test_a_settings_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(b'policy.model = "caf\xe9"')
    argv = ("learn", "--out", str(tmp_path / "run"), "--config", str(file))
    expected = f"relive learn: settings file {file} is not UTF-8 text (byte 19)"
    assert complaint(capsys, *argv) == expected
    assert not (tmp_path / "run").exists()


def _on_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["run", *TOY, "--memory", str(tmp_path / "n")]) == 0
    capsys.readouterr()
    return complaint(capsys, "memory", "show", "zzz", "--memory", str(tmp_path / "n"))


def test_a_memory_of_another_embedder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = HashedEmbedder(64)
    monkeypatch.setattr(HashedEmbedder, "identity", "hashed-2-64")
    Memory(tmp_path / "m", embedder=later).close()
    monkeypatch.undo()
    assert "hashed-2-64" in complaint(capsys, "memory", "stats", "--memory", str(tmp_path / "m"))


def test_a_corrupted_log_is_reported_and_hides_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = tmp_path / "m"
    assert main(["run", *TOY, "--memory", str(memory)]) == 0
    (segment,) = (memory / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    capsys.readouterr()
    assert main(["memory", "verify", "--memory", str(memory)]) == 1
    out = capsys.readouterr().out
    assert segment.name in out
    with Memory(memory, "r") as opened:
        assert len(list(opened.iterate())) == 5


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    memory = tmp_path / "m"
    subprocess.run(
        relive("run", *TOY, "--memory", str(memory)), cwd=ROOT, check=True, capture_output=True
    )
    size = max(file.stat().st_size for file in (memory / "log").iterdir())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, size + 300))

    argv = relive("run", *TOY, "--start", "10", "--memory", str(memory))
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    with Memory(memory, "r") as opened:
        assert len(opened) == 6
        assert not opened.stats().damage
    assert main(["run", *TOY, "--start", "10", "--memory", str(memory)]) == 0


def test_ctrl_c_loses_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    argv = relive(
        "eval",
        "--suite",
        "toy",
        "--policy",
        "random",
        "--tasks",
        "1200",
        "--out",
        str(tmp_path / "run"),
    )
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # until some episodes are there
        segments = list((tmp_path / "run" / "episodes" / "log").glob("*"))
        if segments and segments[0].stat().st_size > 3000:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "goes on where this one stopped" in error
    assert "Traceback" not in error
    with Memory(tmp_path / "run" / "episodes", "r") as results:
        kept = len(results)
    assert 0 < kept < 1200
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    with Memory(tmp_path / "run" / "episodes", "r") as results:
        assert len(results) == 1200
        assert len({e.task.identity for e in results.entries()}) == 1200
