"""JSON values out of a file: one per line or all in one list, compressed with gzip or not."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .. import transfer
from ..transfer import DamagedFileError

MAX_LIST = 256 * 2**20
"""Longest list that is read, in bytes: a list is held as a whole, lines are not."""

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Item:
    """A JSON value in a file, or why there is none where one was expected."""

    line: int
    """Where it begins, counted from 1."""
    size: int
    """Its length in the file, about."""
    value: object = None
    error: str = ""


class _Joined(io.RawIOBase):
    """Bytes that were read already, then what else there is."""

    def __init__(self, start: bytes, read: Callable[[int], bytes]) -> None:
        self._start, self._read = io.BytesIO(start), read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._start.readinto(buffer)
        if count:
            return count
        try:
            data = self._read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedFileError(
                f"the compressed file is cut off or damaged from here on ({error}): get a "
                "whole copy and import it again, what is there is passed over"
            ) from None
        buffer[: len(data)] = data
        return len(data)


def plain_file(file: BinaryIO) -> io.BufferedReader:
    """The file, unpacked if it is compressed with gzip, without a byte order mark."""
    start = file.read(len(_GZIP))
    opened = io.BufferedReader(_Joined(start, file.read))
    if start == _GZIP:
        # read1, here and below, gives what was unpacked before the place where the file is damaged.
        opened = io.BufferedReader(_Joined(b"", gzip.GzipFile(fileobj=opened).read1))
    start = opened.read(len(_BOM))
    return io.BufferedReader(_Joined(b"" if start == _BOM else start, opened.read1))


def first_line(file: io.BufferedReader) -> tuple[bytes, io.BufferedReader]:
    """The first line that is not blank (of a long one its beginning), and the file as it was."""
    read = []
    while line := file.readline(transfer.MAX_LINE + 1):
        read.append(line)
        if line.strip() or sum(map(len, read)) > transfer.MAX_LINE:
            break
    return line, io.BufferedReader(_Joined(b"".join(read), file.read1))


def line_items(file: BinaryIO) -> Iterator[Item]:
    """The values of a file with one per line; blank lines are passed over."""
    number = 0
    try:
        for number, line in transfer.lines_of(file):
            if line is not None and not line.strip():
                continue
            try:
                yield Item(number, len(line or b""), transfer.json_of(line))
            except ValueError as error:
                yield Item(number, 0, error=str(error))
    except DamagedFileError as error:
        yield Item(number + 1, 0, error=str(error))


def list_items(file: BinaryIO) -> Iterator[Item]:
    """The values in a file that is one list; it is read up to the first place that is no JSON."""
    try:
        text = _text_of_list(file)
    except _NoTextError as error:
        yield Item(error.line, 0, error=str(error))
        return
    place, line, counted = text.index("[") + 1, 1, 0
    while True:
        place = _after_space(text, place)
        line, counted = line + text.count("\n", counted, place), place
        if text.startswith("]", place):
            if text[place + 1 :].strip():
                yield Item(line, 0, error="something follows the list; it was not read")
            return
        try:
            value, end = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield Item(line, 0, error=f"{_reason(error)}; nothing behind it in the list was read")
            return
        yield Item(line, end - place, value)
        place = _after_space(text, end)
        if text.startswith(",", place):
            place += 1
        elif not text.startswith("]", place):
            yield Item(
                line, 0, error="neither , nor ] behind it; nothing behind it in the list was read"
            )
            return


class _NoTextError(ValueError):
    """A list cannot be read as a text."""

    def __init__(self, detail: str, line: int = 1) -> None:
        super().__init__(detail)
        self.line = line


def _text_of_list(file: BinaryIO) -> str:
    try:
        data = file.read(MAX_LIST + 1)
    except DamagedFileError as error:
        raise _NoTextError(str(error)) from None
    if len(data) > MAX_LIST:
        raise _NoTextError(
            f"a list longer than {MAX_LIST} bytes: write one object per line (jq -c '.[]' FILE)"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise _NoTextError(
            f"not UTF-8 (byte {error.start} of the file); nothing of the list was read", line
        ) from None


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON, or cut off: {error.msg}"
    return "nested too deeply to be an episode" if isinstance(error, RecursionError) else str(error)
