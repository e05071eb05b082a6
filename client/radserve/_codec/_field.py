"""How a field of bytes begins in a protobuf message."""

from __future__ import annotations

from functools import lru_cache

_LENGTH_DELIMITED = 2


@lru_cache(maxsize=256)
def delimited(field: int, size: int) -> bytes:
    """What stands in a message before a field of bytes: its number (below 16) and type, and how many they are."""
    head = bytearray((field << 3 | _LENGTH_DELIMITED,))
    while size > 0x7F:  # noqa: PLR2004 - a varint: 7 bits a byte, the lowest first
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
