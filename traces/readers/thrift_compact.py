"""Reads one structure in Thrift's compact protocol, as Parquet's page headers are written.

Every field is kept under its number, whatever it means; structures become dictionaries, binary
fields bytes. Nothing is interpreted here.

Source: Apache Thrift, doc/specs/thrift-compact-protocol.md.
"""

from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(
    13
)


class ThriftError(Exception):
    """The bytes are not a structure, or end within it."""


def read_struct(content: bytes) -> tuple[dict[int, Any], int]:
    """Return the structure that `content` begins with, and the bytes it takes.

    Raises:
        ThriftError: it is none.
    """
    reader = _Reader(content)
    try:
        return reader.struct(), reader.at
    except (IndexError, RecursionError) as error:
        raise ThriftError("the bytes end within a structure") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def _byte(self) -> int:
        value = self._content[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _bytes(self, size: int) -> bytes:
        value = self._content[self.at : self.at + size]
        if len(value) < size:
            raise IndexError(size)
        self.at += size
        return value

    def struct(self) -> dict[int, Any]:
        """Return the structure at the current place."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 0x0F
            # A field's truth is in its type; only within a list has it a byte of its own.
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            size = head >> 4 if head >> 4 != 15 else self._varint()
            return [self._value(head & 0x0F) for _ in range(size)]
        if kind == _STRUCT:
            return self.struct()
        # Maps, too: Parquet's headers have none.
        raise ThriftError(f"unknown type {kind}")
