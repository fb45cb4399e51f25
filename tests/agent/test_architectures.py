"""Every architecture says the same as `generate` on the whole prompt, whatever it keeps in its
cache, also after an adapter was put on and taken off."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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
    found = checks.check(name, tmp_path, turns=3, adapters=False)
    assert found.equal, found.note
