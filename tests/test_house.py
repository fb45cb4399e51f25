"""The house as docs and README draw it: who may import whom, and rooms that stay small."""

import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agent", "envs", "memory", "training")
MODULES = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
LOWER: dict[str, tuple[str, ...]] = {
    "memory": ("task", "extras", "memory"),
    "envs": ("task", "extras", "caches", "envs"),
    "agent": ("task", "extras", "caches", "envs", "memory", "agent"),
    "training": ("task", "extras", "caches", "envs", "memory", "agent", "training"),
}
"""What a room may import of the package. The command line, on top, reaches everything."""
DOORS = {
    "torch": ("agent/llm", "training"),
    "transformers": ("agent/llm", "training"),
    "peft": ("agent/llm", "training"),
    "openai": ("agent/server",),
    "hnswlib": ("memory/search",),
    "lancedb": ("memory/search/lance.py",),
    "msgpack": ("memory/storage",),
    "textworld": ("envs/household", "envs/textworld", "envs/tales"),
    "ray": ("agent/cluster",),
    "py4j": ("envs/jvm.py", "envs/scienceworld", "envs/textworld_express"),
}
"""Where heavy libraries may be imported."""


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(module of the package by its path, or "", and library or "") of each import."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (("", name.name.partition(".")[0]) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield "", (node.module or "").partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            inside = tuple((node.module or "").split(".")) if node.module else ()
            for name in [""] if inside else [alias.name for alias in node.names]:
                yield "/".join(filter(None, (*base, *inside, name))), ""


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_imported_from_above(room: str) -> None:
    for file in MODULES:
        if not name_of(file).startswith(f"{room}/") or name_of(file).startswith("agent/cli/"):
            continue
        for module, _ in imports(file):
            assert not module or module.split("/")[0] in LOWER[room], f"{name_of(file)}: {module}"


def test_learning_does_not_know_its_experiments() -> None:
    """What they have in common is passed in, rehearsal for example."""
    for file in (ROOT / "training").glob("*.py"):
        for module, _ in imports(file):
            assert not module.startswith(("training/experiments", "training/pretraining")), file
    for file in (ROOT / "training" / "pretraining").glob("*.py"):
        assert not any(module.startswith("training/experiments") for module, _ in imports(file))


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_have_few_doors(library: str) -> None:
    for file in MODULES:
        if any(found == library for _, found in imports(file)):
            assert name_of(file).startswith(DOORS[library]), f"{name_of(file)} imports {library}"


def test_modules_are_short_and_rooms_small() -> None:
    lengths = {
        name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES
    }
    assert {name: length for name, length in lengths.items() if length > 450} == {}
    assert statistics.median(lengths.values()) <= 200
    rooms = Counter(file.parent for file in MODULES)
    assert {str(room): count for room, count in rooms.items() if count > 14} == {}
