"""What works without the extras, and what is said where one is missing."""

import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from relive.extras import PACKAGES, MissingExtraError, needs

HEAVY = [package for packages in PACKAGES.values() for package in packages]
BARE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def bare(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code where only the core is installed."""
    return subprocess.run(
        [sys.executable, "-c", BARE + code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_core_needs_none_of_them(tmp_path: Path) -> None:
    done = bare(
        """
import relive, relive.memory, relive.envs
from relive.agent.cli import main
relive.Agent, relive.evaluate
with relive.Memory("m") as memory:
    suite = relive.envs.get_suite("toy")
    episodes = list(relive.Agent(lambda messages: "look", memory).run(suite, tasks=2))
assert main(["run", "--suite", "toy", "--policy", "expert", "--tasks", "2", "--memory", "m"]) == 0
assert main(["memory", "stats", "--memory", "m"]) == 0
assert main(["envs", "list"]) == 0
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "household: not available here" in done.stdout
    assert "pip install 'relive[household]'" in done.stdout


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("relive.LocalModel", "llm"),
        ("relive.learn", "llm"),
        ("import relive.training.lora", "llm"),
        ("relive.envs.get_suite('household')", "household"),
        ("from relive.agent.evaluation.report import pyplot; pyplot()", "plots"),
        (
            "from relive.agent.cluster.executor import executor\n"
            "from relive.agent.cluster.settings import RaySettings\n"
            "with executor('ray', RaySettings()): pass",
            "ray",
        ),
    ],
)
def test_a_missing_one_is_named_with_its_line(tmp_path: Path, code: str, extra: str) -> None:
    done = bare(f"import relive, relive.envs\n{code}", tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"not installed: pip install 'relive[{extra}]'" in last


def test_a_command_says_it_in_one_line(tmp_path: Path) -> None:
    done = bare(
        "from relive.agent.cli import main\n"
        "raise SystemExit(main(['run', '--suite', 'toy', '--tasks', '1', '--memory', 'm']))",
        tmp_path,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("relive run: running and training language models needs torch")
    assert line.endswith("pip install 'relive[llm]'")


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("llm", ("torch", "peft"))))
    assert (error.extra, error.missing, error.name) == ("llm", ("torch", "peft"), "torch")
    with needs("llm"):
        pass


def test_import_is_instant(tmp_path: Path) -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import relive\n"
        "print(time.perf_counter() - began)\n"
        "heavy = {'torch', 'textworld', 'numpy', 'hnswlib', 'gymnasium'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True))
        for _ in range(3)
    ]
    assert min(times) < 0.3


def test_folders_and_the_version_are_there_after_import_relive_alone(tmp_path: Path) -> None:
    code = (
        "import sys, relive\n"
        "assert relive.memory.IndexSettings and relive.envs.get_suite\n"
        "assert relive.agent and relive.training\n"
        "assert {'memory', 'envs', 'agent', 'training', '__version__'} <= set(dir(relive))\n"
        "assert not {'torch', 'textworld'} & set(sys.modules)\n"
        "print(relive.__version__)\n"
        "assert '__version__' in vars(relive)  # looked up once\n"
    )
    told = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)
    assert told.strip() == metadata.version("relive")
