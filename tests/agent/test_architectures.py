"""Every architecture says the same as `generate` on the whole prompt, whatever it keeps in its
cache, also after an adapter was put on and taken off."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from relive.agent.llm.decoding import slots
from relive.agent.llm.decoding.sampling import Row, Sampler

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architectures", SCRIPTS / "architectures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checks: Any = _load()


@pytest.mark.parametrize("name", list(checks.ARCHITECTURES))
def test_an_architecture_says_what_generate_says(name: str, tmp_path: Path) -> None:
    whole = name == "openai_gpt"  # which says little without an adapter
    found = checks.check(name, tmp_path, turns=5 if whole else 3, adapters=whole)
    assert found.equal, found.note


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_oss"])
def test_guesses_change_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for larger models; here they are made by small ones, which often guess wrong."""
    monkeypatch.setattr(slots, "_LARGE", 0)
    guessed: list[int] = []
    guess = Sampler.guess

    def watched(self: Sampler, row: Row, most: int) -> list[int]:
        found = guess(self, row, most)
        guessed.append(len(found))
        return found

    monkeypatch.setattr(Sampler, "guess", watched)
    found = checks.check(name, tmp_path, turns=4, adapters=False)
    assert found.equal, found.note
    assert max(guessed) > 1
