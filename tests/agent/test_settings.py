import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from relive.agent.cli.play_settings import PlaySettings
from relive.agent.settings import as_stored, as_toml, build, json_of, load
from relive.memory import Retrieval
from relive.training.experiments.stream.plan import StreamSettings
from relive.training.experiments.study.settings import StudySettings
from relive.training.learn import LearnSettings
from relive.training.retriever.tune import TuningSettings
from relive.training.select import SelectSettings


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
        ("inner.k=true", "must be an integer, not True"),
        ("inner.k=many", "must be an integer, not 'many'"),
        ("inner=3", "is a group"),
        ("inner.names=a", "is a list"),
        ("title", "has no '='"),
    ],
)
def test_mistakes_are_named(override: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load(Outer, None, [override])


@pytest.mark.parametrize(
    "kind", [LearnSettings, StudySettings, StreamSettings, TuningSettings, PlaySettings, Outer]
)
def test_what_can_be_set_is_a_file_that_changes_nothing(kind: type[Any], tmp_path: Path) -> None:
    file, text = tmp_path / "s.toml", as_toml(kind)
    stages = ["orders=1", "stages=[{name='a'}]"] if kind is StreamSettings else []
    file.write_text(text)
    assert load(kind, file, stages) == load(kind, None, stages)
    named = {line.removeprefix("# ").split()[0].strip("[]") for line in text.splitlines()}
    assert {f.name for f in fields(kind)} <= {name.partition(".")[0] for name in named}


def test_odd_values_can_be_listed(tmp_path: Path) -> None:
    settings = Outer('a "b"\n\u00e9', Inner(names=("'", "\\")))
    (tmp_path / "s.toml").write_text(as_toml(Outer, settings), encoding="utf-8")
    assert load(Outer, tmp_path / "s.toml") == settings


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--config"):
        load(Outer, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(ValueError, match="not TOML"):
        load(Outer, tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'title = "caf\xe9"', r"is not UTF-8 text \(byte 12\)"),
        ("title = 'x'".encode("utf-16"), r"is not UTF-8 text \(byte 0\)"),
        (b"\x00", "is not TOML"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
    ],
    ids=["latin-1", "utf-16", "nul", "deep"],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"settings file {re.escape(str(file))} {says}"):
        load(Outer, file)


def test_an_empty_file_leaves_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("\n# nothing yet\n")
    assert load(Outer, tmp_path / "s.toml") == Outer()


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("title = 'é'", encoding="utf-8-sig")
    assert load(Outer, tmp_path / "s.toml") == Outer("é")


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        load(Outer, tmp_path)


@pytest.mark.parametrize(
    "content", [b"\xff", b"", b"{", b"[" * 100_000], ids=["bytes", "empty", "cut", "deep"]
)
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"run record {re.escape(str(file))} is "):
        json_of(file, "run record")
    file.write_text('{"é": 1}', encoding="utf-8")
    assert json_of(file, "run record") == {"é": 1}


@dataclass(frozen=True)
class Renamed:
    max_tokens: int = field(default=5, metadata={"stored": "budget"})
    inner: Inner = field(default_factory=Inner, metadata={"stored": "nested"})


@dataclass(frozen=True)
class Several:
    parts: tuple[Renamed, ...] = ()


def test_names_on_disk_stay() -> None:
    """A setting that got a better name is stored under its old one, at any depth."""
    some = Several((Renamed(7, Inner(k=1)), Renamed()))
    stored = as_stored(some)
    assert stored["parts"][0] == {"budget": 7, "nested": {"k": 1, "rate": 0.5, "names": ()}}
    assert build(Several, json.loads(json.dumps(stored)), stored=True) == some
    assert load(Renamed, None, ["max_tokens=3", "inner.k=4"]) == Renamed(3, Inner(k=4))
    with pytest.raises(ValueError, match="unknown setting 'budget'"):
        load(Renamed, None, ["budget=3"])
    with pytest.raises(ValueError, match="unknown setting 'max_tokens'"):
        build(Renamed, {"max_tokens": 3}, stored=True)


def test_the_stored_names_of_what_was_published() -> None:
    retrieval = as_stored(StudySettings())["recall"]
    assert {"k", "budget", "keys", "brevity"} <= retrieval.keys()
    assert "rate" in as_stored(StudySettings())["lora"]


def test_a_setting_may_be_one_value_or_a_list() -> None:
    layers = ("q_proj", "k_proj")
    named = load(LearnSettings, overrides=["lora.targets=['q_proj', 'k_proj']"])
    assert named.lora.targets == layers
    assert load(LearnSettings, overrides=["lora.targets=all-linear"]).lora.targets == "all-linear"
    assert build(LearnSettings, as_stored(named), stored=True) == named
    with pytest.raises(ValueError, match=r"lora\.targets"):
        load(LearnSettings, overrides=["lora.targets=[1]"])


def test_what_was_recorded_before_a_setting_was_there_reads_the_same() -> None:
    """A sparse setting is stored only where it says something: runs that were begun go on."""
    plain, rated = Retrieval(), Retrieval(ratings=0.5)
    assert "ratings" not in as_stored(plain)
    assert as_stored(rated) == {**as_stored(plain), "ratings": 0.5}
    for one in (plain, rated):
        assert build(Retrieval, as_stored(one), stored=True) == one
    assert "min_rating" not in as_stored(LearnSettings())["select"]
    strict = LearnSettings(select=SelectSettings(min_rating=None))
    assert as_stored(strict)["select"]["min_rating"] is None
