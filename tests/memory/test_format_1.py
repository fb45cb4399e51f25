"""Memories that the first programs wrote are read, and written in today's format."""

import hashlib
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from relive.memory import Episode, HashedEmbedder, Memory
from relive.memory.search.vectors import column_name
from relive.memory.storage import codec
from relive.memory.storage.segments import FRAME_BYTES, segments
from tests.memory.conftest import Make, found, goal, shown

pytestmark = pytest.mark.usefixtures("no_sync")


def old_payload(made: Episode) -> bytes:
    """An episode as the first programs wrote it: nothing in its head that follows from its
    steps."""
    unpacker = msgpack.Unpacker(strict_map_key=True)
    unpacker.feed(codec.encode_episode(made))
    head, steps = unpacker.unpack(), unpacker.unpack()
    assert {"actions", "shown"} <= set(head)
    return bytes(
        msgpack.packb({n: v for n, v in head.items() if n not in ("actions", "shown")})
        + msgpack.packb(steps)
    )


def make_format_1(folder: Path, episodes: list[Episode], *, column: bool = True) -> None:
    """A memory as it was before there were catalogs, byte by byte as docs/file-format.md had it."""
    memory = bytes(range(16))
    for name in ("log", "vectors", "index"):
        (folder / name).mkdir(parents=True)
    embedder = HashedEmbedder()
    identity = embedder.identity
    described = {"format": 1, "id": memory.hex(), "embedder": identity, "dimension": 384}
    (folder / "memory.json").write_text(json.dumps(described))
    header = b"RELIVELG" + struct.pack("<IIQ", 1, 0, 0) + memory
    log = header + struct.pack("<I", zlib.crc32(header))
    header = (
        b"RELIVEVC"
        + struct.pack("<II", 1, 384)
        + memory
        + hashlib.sha256(identity.encode()).digest()
    )
    rows = header + struct.pack("<I", zlib.crc32(header))
    for sequence, made in enumerate(episodes):
        payload = old_payload(made)
        frame = b"\xc1RL\xc1" + struct.pack(
            "<BBHIQI", 1, 0, 0, len(payload), sequence, zlib.crc32(payload)
        )
        log += frame + struct.pack("<I", zlib.crc32(frame)) + payload
        key = struct.pack("<QII", sequence, zlib.crc32(payload), 0)
        body = embedder.encode([made.task.goal])[0].astype("<f4").tobytes()
        rows += key + struct.pack("<I", zlib.crc32(key + body)) + body
    (folder / "log" / "0000000000000000.log").write_bytes(log)
    if column:
        (folder / "vectors" / f"{column_name(identity)}.vec").write_bytes(rows)
    manifest: dict[str, object] = {
        "format": 1,
        "memory": memory.hex(),
        "entries": 1,
        "file": "x.hnsw",
    }
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    manifest["checksum"] = zlib.crc32(canonical)
    (folder / "index" / f"{column_name(identity)}.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("column", [True, False])
def test_a_memory_of_format_1(folder: Path, episode: Make, column: bool) -> None:
    """Nothing of it is lost: a reader leaves it as it is, a writer makes it a new one, and nothing
    is embedded twice."""
    made = [
        shown(episode(n, goal(n), success=n % 3 > 0), "episode-0", f"episode-{n - 1}")
        for n in range(1, 30)
    ]
    made.insert(0, episode(0, goal(0)))
    make_format_1(folder, made, column=column)

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = files()
    for turn, mode in enumerate(["r", "w", "r", "w"]):
        with Memory(folder, mode) as memory:
            assert (len(memory), memory.position, memory.fields) == (30, 30, ("goal",))
            assert list(memory.iterate()) == made
            assert found(memory, goal(17), k=1) == ["episode-17"]
            assert memory.usefulness("episode-0").shown == 29
            assert memory.duplicate_of(replace(made[3], id="other")) == "episode-3"
            assert memory.stats().embedded == (0 if column or turn > 1 else 30)
            assert all("of format 1; built anew" in str(damage) for damage in memory.stats().damage)
        assert (files() == before) == (turn == 0)
    assert json.loads((folder / "memory.json").read_text())["format"] == 2
    with Memory(folder, "w") as memory:
        memory.publish_index()
        memory.delete("episode-5")
        memory.add(episode(40, goal(40)))
        memory.compact()
    with Memory(folder, "r") as memory:
        assert memory.stats().damage == ()
        assert [entry.episode_id for entry in memory.entries()] == [
            f"episode-{n}" for n in (*range(5), *range(6, 30), 40)
        ]
        assert list(segments(folder / "log")) == [0, 32]
        assert (folder / "log" / "0000000000000000.0001.log").stat().st_size > FRAME_BYTES
