"""README.md and docs/*.md are executed: what they show is what happens.

The blocks of a document run in order, in one namespace and one empty folder:

* ``python``: executed. It must not raise. With ``title="x.py"`` it is written to that file instead.
* ``sh`` and ``console``: lines that begin with ``relive `` (or ``$ relive ``) are commands, run in
  this process; they must succeed. Lines that begin with pip, make or git are passed over.
* ``text`` directly behind one of these: exactly what the block prints. ``...`` stands for any text
  in a line, or alone for any lines.
* A block with ``no-run`` behind its language is not run; a document has two of them at most.
* Other languages (``toml``, ``json``) are not looked at. A block without a language is an error.
"""

import contextlib
import importlib
import io
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import relive
from relive.agent.cli.main import main
from relive.envs import registry

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = ("log.md", "results.md", "file-format.md")
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.exists() and path.name not in NOT_RUN
]
RUN, SKIPPED, MOST_NOT_RUN = ("python", "sh", "console"), ("pip ", "make ", "git "), 2
_BLOCK = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```[ ]*$", re.MULTILINE)
_NAME = re.compile(r"(?<![\w./-])relive(?:\.[A-Za-z_]\w*)+")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a document."""

    language: str
    options: str
    text: str
    line: int
    follows: bool  # directly


def blocks_of(document: str) -> Iterator[Block]:
    """The fenced blocks of a document."""
    end = 0
    for found in _BLOCK.finditer(document):
        language, _, options = found[2].strip().partition(" ")
        line = document.count("\n", 0, found.start(3)) + 1
        follows = end > 0 and not document[end : found.start()].strip()
        yield Block(language, options, textwrap.dedent(found[3]), line, follows)
        end = found.end()


def shell(block: Block, where: str) -> None:
    """Run the commands of a block."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = line.strip().removeprefix("$ ")
        if not command or command.startswith(("#", *SKIPPED)):
            continue
        assert command.startswith("relive "), f"{where}: cannot run {command!r} here"
        try:
            status = main(shlex.split(command, comments=True)[1:])
        except SystemExit as error:  # argparse
            status = error.code if isinstance(error.code, int) else 1
        assert status == 0, f"{where}: {command!r} ended with {status}"


def printed_by(block: Block, where: str, path: Path, namespace: dict[str, object]) -> str:
    """Run a block; what it prints."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(out):
        if title := re.search(r'title="(\w+\.py)"', block.options):
            Path(title[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":  # with the document's own line numbers
            exec(compile("\n" * (block.line - 1) + block.text, path, "exec"), namespace)
        else:
            shell(block, where)
    out.seek(0)
    return out.read()


def fits(printed: str, expected: str) -> bool:
    """Whether something was printed that the document shows."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        any_lines = line.strip() == "..."
        inside = re.escape(line.rstrip()).replace(re.escape("..."), ".*")
        pattern += r"(?:.*\n)*?" if any_lines else rf"{inside}[ ]*\n"
    return re.fullmatch(pattern, printed.rstrip() + "\n") is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_says_what_happens(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # a document may write a module and import it
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    before, namespace = set(sys.modules), dict[str, object](__name__="__main__")
    blocks = list(blocks_of(path.read_text(encoding="utf-8")))
    assert sum("no-run" in block.options for block in blocks) <= MOST_NOT_RUN
    try:
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            where = f"{path.name}:{block.line}"
            assert block.language, f"{where}: say what the block is (python, sh, text, ...)"
            if block.language not in RUN or "no-run" in block.options:
                continue
            printed = printed_by(block, where, path, namespace)
            if after is not None and after.language == "text" and after.follows:
                shown = f"{where} printed\n{printed}\nand shows\n{after.text}"
                assert fits(printed, after.text), shown
    finally:
        for value in namespace.values():
            if isinstance(value, relive.Memory):
                value.close()
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_names_in_a_document_exist(path: Path) -> None:
    for name in sorted(set(_NAME.findall(path.read_text(encoding="utf-8")))):
        module, *attributes = name.split(".")
        found: object = importlib.import_module(module)
        for attribute in attributes:
            module = f"{module}.{attribute}"
            if not hasattr(found, attribute):
                importlib.import_module(module)  # which says what is missing
            found = getattr(found, attribute)


def test_the_reference_names_everything_public() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    methods = [name for name in dir(relive.Memory) if not name.startswith("_")]
    envs = importlib.import_module("relive.envs").__all__
    public = (*relive.__all__, *envs, *methods)
    assert not [name for name in public if not re.search(rf"\b{name}\b", text)]


def test_the_table_of_environments_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    worlds = importlib.import_module("worlds_table")
    rows = json.loads((ROOT / "docs" / "results" / "worlds.json").read_text())["suites"]
    assert worlds.table(rows) in (ROOT / "docs" / "environments.md").read_text()
