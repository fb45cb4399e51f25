"""What `--on` and the settings of a cluster may say, without any cluster."""

from pathlib import Path

import pytest

from relive.agent.cli import main
from relive.agent.cluster.executor import IN_PROCESS, executor
from relive.agent.cluster.settings import RaySettings, address_of


@pytest.mark.parametrize(
    ("on", "address"),
    [("ray", "local"), ("ray://auto", "auto"), ("ray://10.0.0.7:6379", "10.0.0.7:6379")],
)
def test_where_to_play(on: str, address: str) -> None:
    assert address_of(on) == address


@pytest.mark.parametrize("on", ["ray:", "ray://", "rays://auto", "dask", "ray://head:10001"])
def test_places_that_there_are_not(on: str) -> None:
    with pytest.raises(ValueError, match="--on"):
        address_of(on)


def test_without_a_place_it_is_this_process() -> None:
    with executor("", RaySettings()) as place:
        assert place is IN_PROCESS


@pytest.mark.parametrize("wrong", [{"cpus": -1.0}, {"workers": -2}, {"patience": 0.0}])
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ray settings need"):
        RaySettings(**wrong)  # type: ignore[arg-type]


def test_a_misspelt_setting_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--suite", "toy", "--policy", "expert", "--memory", str(tmp_path / "m")]
    assert main([*command, "--set", "ray.worker=3"]) == 2
    assert "Did you mean 'ray.workers'?" in capsys.readouterr().err


def test_room_is_counted_by_node() -> None:
    pytest.importorskip("relive.agent.cluster.calls", exc_type=ImportError)
    from relive.agent.cluster.cluster import room_for

    nodes = [
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0, "memory": 8 * 2.0**30}},
        {"Alive": True, "Resources": {"CPU": 1.0, "fast": 4.0, "memory": 8 * 2.0**30}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert room_for(RaySettings(), nodes) == 4
    assert room_for(RaySettings(cpus=2), nodes) == 1
    assert room_for(RaySettings(gpus=0.25), nodes) == 3  # of the four parts, for want of CPUs
    assert room_for(RaySettings(cpus=0, resources={"fast": 2}), nodes) == 2
    assert room_for(RaySettings(workers=3), nodes) == 3
    with pytest.raises(ValueError, match="room for 4 workers, not for 5"):
        room_for(RaySettings(workers=5), nodes)
    with pytest.raises(ValueError, match=r"takes 1 CPU, 2 GPU, and the nodes .* have 3 CPU, 1 GPU"):
        room_for(RaySettings(gpus=2), nodes)


def test_nobody_listens_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("relive.agent.cluster.calls", exc_type=ImportError)
    command = ["run", "--suite", "toy", "--policy", "expert", "--memory", str(tmp_path / "m")]
    assert main([*command, "--on", "ray://127.0.0.1:9"]) == 2  # a port for what is thrown away
    assert "cannot join the cluster at 127.0.0.1:9" in capsys.readouterr().err
