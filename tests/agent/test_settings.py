from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.settings import load


@dataclass(frozen=True)
class Inner:
    k: int = 2
    rate: float = 0.5
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    title: str = "x"
    inner: Inner = field(default_factory=Inner)


def test_defaults_file_and_overrides_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('title = "file"\n[inner]\nk = 3\nrate = 1\n')
    loaded = load(Outer, file, ["inner.k=4", "inner.names=['a','b']", "title=free text"])
    assert loaded == Outer("free text", Inner(4, 1.0, ("a", "b")))
    assert load(Outer) == Outer()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("inner.kk=1", "Did you mean 'inner.k'"),
        ("inner.k=true", "must be int"),
        ("inner.k=many", "must be int"),
        ("inner=3", "is a group"),
        ("inner.names=a", "is a list"),
        ("title", "has no '='"),
    ],
)
def test_mistakes_are_named(override: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(Outer, None, [override])


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--config"):
        load(Outer, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(ValueError, match="not TOML"):
        load(Outer, tmp_path / "bad.toml")
