"""What is installed from a wheel: one import name, whatever folders the user has."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.test_docs import blocks_of
from tests.test_extras import BARE

ROOT = Path(__file__).resolve().parents[1]
MODULES = (*(file.name for file in ROOT.glob("*.py")), "py.typed")
FOLDERS = ("agent", "envs", "memory", "training")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files behind, and would take in those of the last one."""
    source = tmp_path_factory.mktemp("source")
    for name in (*MODULES, "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*FOLDERS, "tests", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("relive-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with this wheel and all that the running one has beside it."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    bin_folder = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "install"]
    subprocess.run(
        [*pip, "--no-deps", "--no-index", "-q", str(wheel)], check=True, capture_output=True
    )
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # Folders that a .pth names are searched, but their own .pth files are not read, so that an
    # editable installation is not found.
    paths = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (Path(site) / "others.pth").write_text("\n".join(paths) + "\n")
    return bin_folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's folder, in which the names of our folders are taken."""
    (tmp_path / "memory.py").write_text("raise ImportError('the wrong memory')\n")
    for name in ("agent", "envs", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('the wrong {name}')\n")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    held = {name.removeprefix("relive/") for name in names if name.startswith("relive/")}
    assert {name.split("/")[0] for name in names} == {
        "relive",
        *(n.split("/")[0] for n in names if ".dist-info/" in n),
    }
    assert {name.split("/")[0] for name in held} == {
        *FOLDERS,
        *MODULES,
    }
    wanted = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == {*wanted, *MODULES}


def test_it_is_not_confused_by_namesakes(installed: Path, elsewhere: Path) -> None:
    code = (
        "import sys, relive, relive.memory, relive.envs, relive.agent.cli, relive.training\n"
        "from relive.agent.llm.weights import BUNDLED\n"
        "assert not {'memory', 'envs', 'agent', 'training'} & set(sys.modules)\n"
        "assert not {'torch', 'textworld'} & set(sys.modules)\n"
        "assert (BUNDLED / 'config.json').is_file()\n"
        "print(relive.__file__)\n"
    )
    where = Path(run([str(installed / "python"), "-c", code], elsewhere).strip())
    assert where.is_relative_to(installed.parent)


def test_the_doors_of_the_readme(installed: Path, elsewhere: Path) -> None:
    """As printed there: the first two with nothing but the core, the third with models."""
    blocks = [
        block.text
        for block in blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
        if block.language == "python"
    ]
    first, environment, second, third, *_ = blocks
    python = str(installed / "python")
    (elsewhere / "doors.py").write_text(BARE + first + environment + second)
    shown = run([python, "doors.py"], elsewhere).splitlines()
    assert shown[0] == "1.00 reset a password -> unlock account"
    assert [line.split()[-2] for line in shown[1:]] == ["7", "4", "9", "1", "1", "1"]
    (elsewhere / "third.py").write_text("import relive\n" + third)
    assert "4 tasks, 0 leaks" in run([python, "third.py"], elsewhere)


def test_a_door_is_ten_lines_and_four_names() -> None:
    """The second door, besides the environment and the policy."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (door,) = (b.text for b in blocks_of(text) if "agent.run(" in b.text)
    door = door[door.index("with relive") :]
    assert len(door.splitlines()) <= 10
    assert len(set(re.findall(r"relive\.\w+", door))) <= 4


def test_the_command_runs_there_with_workers(installed: Path, elsewhere: Path) -> None:
    relive = str(installed / "relive")
    options = "--suite toy --policy expert --tasks 4 --workers 2 --memory m"
    run([relive, "run", *options.split()], elsewhere)
    module = [str(installed / "python"), "-m", "relive"]
    shown = run(
        [*module, "memory", "search", "put a clean bell in garden", "--k", "2", "--memory", "m"],
        elsewhere,
    )
    assert shown.count("success, ") == 2
