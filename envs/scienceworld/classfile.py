"""Compiled Java classes changed without a compiler: a method added, a class called by another name.

Format: The Java Virtual Machine Specification, chapter 4.
"""

import struct

_UTF8, _FIELD, _NAME_AND_TYPE, _LONG, _DOUBLE = 1, 9, 12, 5, 6
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4}
_SIZES |= {19: 2, 20: 2}
"""Bytes of the entries of the table of constants, by their tags."""
_PUBLIC = 1
_MAGIC = b"\xca\xfe\xba\xbe"


def with_hash_of(data: bytes, field: str) -> bytes:
    """A class with a method `hashCode` that returns a field of its own, cut to 32 bits.

    Args:
        data: a class file whose class has no `hashCode`.
        field: name of a field of type `long`.

    Raises:
        ValueError: it is no such class.
    """
    if data[:4] != _MAGIC:
        raise ValueError("this is no Java class")
    constants, after = _constants(data)
    # Then come flags, the class itself, its parent and its interfaces (two bytes each).
    (this,) = struct.unpack_from(">H", data, after + 2)
    (interfaces,) = struct.unpack_from(">H", data, after + 6)
    _, fields_end = _members(data, after + 8 + 2 * interfaces, constants)
    methods, methods_end = _members(data, fields_end, constants)
    if (b"hashCode", b"()I") in methods:
        raise ValueError("the class has a hashCode")
    # New constants are numbered on from the old ones.
    count = struct.unpack_from(">H", data, 8)[0]
    added = b"".join(struct.pack(">BH", _UTF8, len(text)) + text for text in (b"hashCode", b"()I"))
    # aload_0, getfield, l2i, ireturn
    code = b"\x2a\xb4" + struct.pack(">H", _reference(constants, this, field)) + b"\x88\xac"
    stack, local_variables = 2, 1
    body = struct.pack(">HHI", stack, local_variables, len(code)) + code + struct.pack(">HH", 0, 0)
    label = next(n for n, (tag, value) in constants.items() if (tag, value) == (_UTF8, b"Code"))
    method = struct.pack(">HHHH", _PUBLIC, count, count + 1, 1)
    method += struct.pack(">HI", label, len(body)) + body
    return b"".join(
        (
            data[:8],
            struct.pack(">H", count + 2),
            data[10:after],
            added,
            data[after:fields_end],
            struct.pack(">H", len(methods) + 1),
            data[fields_end + 2 : methods_end],
            method,
            data[methods_end:],
        )
    )


def renamed(data: bytes, old: str, new: str) -> bytes:
    """A class that says `new` wherever it said `old`, a name of the same length: itself under
    another name, or one that uses another class.

    Raises:
        ValueError: the lengths differ, or the class does not say `old`.
    """
    if len(old) != len(new) or data[:4] != _MAGIC or old.encode() not in data:
        raise ValueError(f"{old!r} cannot be called {new!r} in this class")
    return data.replace(old.encode(), new.encode())


_Constants = dict[int, tuple[int, bytes]]
"""Number of a constant: its tag and its bytes (of a text, without the length)."""


def _constants(data: bytes) -> tuple[_Constants, int]:
    """The table of constants, and where it ends."""
    (count,) = struct.unpack_from(">H", data, 8)
    position, number = 10, 1
    found: _Constants = {}
    while number < count:
        tag = data[position]
        if tag == _UTF8:
            (size,) = struct.unpack_from(">H", data, position + 1)
            position += 3
        elif tag in _SIZES:
            size = _SIZES[tag]
            position += 1
        else:
            raise ValueError(f"the class has a constant of an unknown kind, {tag}")
        found[number] = tag, data[position : position + size]
        position += size
        number += 2 if tag in (_LONG, _DOUBLE) else 1
    return found, position


def _members(
    data: bytes, position: int, constants: _Constants
) -> tuple[list[tuple[bytes, bytes]], int]:
    """(name, type) of fields or methods, and where their table ends."""
    (count,) = struct.unpack_from(">H", data, position)
    position += 2
    found = []
    for _ in range(count):
        _, name, kind, attributes = struct.unpack_from(">HHHH", data, position)
        found.append((constants[name][1], constants[kind][1]))
        position += 8
        for _ in range(attributes):
            (size,) = struct.unpack_from(">I", data, position + 2)
            position += 6 + size
    return found, position


def _reference(constants: _Constants, this: int, field: str) -> int:
    """Number of the constant through which a class reads a field of its own."""
    for number, (tag, value) in constants.items():
        if tag == _FIELD:
            owner, what = struct.unpack(">HH", value)
            name, kind = struct.unpack(">HH", constants[what][1])
            if owner == this and (constants[name][1], constants[kind][1]) == (field.encode(), b"J"):
                return number
    raise ValueError(f"the class reads no field {field!r} of type long")
