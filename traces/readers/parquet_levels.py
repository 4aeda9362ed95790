"""Lengths of a Parquet list column from its repetition and definition levels alone.

A Parquet list column stores, before each page's values, a repetition level per value (0 where a new
row begins) and a definition level (how much of the value is there: no list, an empty list, a null
or a value in it). Lengths need no more; the values, most of the page, are never decoded. pyarrow
does not give access to levels, so this module reads the pages itself: the footer comes from
pyarrow, page headers are Thrift compact structures, levels are runs (RLE) or bit-packed groups of
eight. Version 1 pages are decompressed as a whole; version 2 pages keep their levels uncompressed.

Measured (benchmarks/traces/RESULTS.md): the lengths of 80 million token ids take 0.18 s from
version 1 pages and 0.08 s from version 2, against 0.64 and 0.69 s when the ids are decoded. A page
with a checksum is read whole and checked.

What is rare is left to the decoding reader by raising `UnsupportedColumnError`: the deprecated
BIT_PACKED levels, LZ4, lists of lists or structures.

Source: Apache Parquet format 2.12, "Data pages", "Encodings" and parquet.thrift.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from groundwork.jit import jit
from traces.errors import shortened
from traces.readers.thrift_compact import read_struct

_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = range(4)
_RLE = 3
_HEADER_BYTES = 1 << 16


class UnsupportedColumnError(Exception):
    """The column is stored in a way that this module leaves to the decoding reader."""


class DamagedPageError(Exception):
    """A page does not hold what its header says."""


class Levels(NamedTuple):
    """What a column's levels mean.

    Attributes:
        leaf: the leaf column's index in the file.
        most: the definition level of a value that is there.
        inside: the least definition level of an entry that is in a list.
    """

    leaf: int
    most: int
    inside: int


def list_levels(file: pq.ParquetFile, column: str) -> Levels:
    """Return what the levels of the list column `column` mean.

    Raises:
        UnsupportedColumnError: it is not a plain list of flat values.
    """
    field = file.schema_arrow.field(column)
    if not (pa.types.is_list(field.type) or pa.types.is_large_list(field.type)):
        raise UnsupportedColumnError(f"type {field.type}")
    leaves = [
        index
        for index in range(len(file.schema))
        if file.schema.column(index).path.split(".")[0] == column
    ]
    if len(leaves) != 1 or pa.types.is_nested(field.type.value_type):
        raise UnsupportedColumnError("nested values")
    leaf = file.schema.column(leaves[0])
    if leaf.max_repetition_level != 1:
        raise UnsupportedColumnError("nested lists")
    inside = leaf.max_definition_level - int(field.type.value_field.nullable)
    if inside != 1 + int(field.nullable):
        raise UnsupportedColumnError("an unusual list layout")
    return Levels(leaves[0], leaf.max_definition_level, inside)


def group_lengths(
    stream: BinaryIO, metadata: pq.FileMetaData, group: int, levels: Levels
) -> NDArray[np.int64]:
    """Return the list lengths of one row group; -1 for a null.

    Args:
        stream: the file, open for reading.
        metadata: its footer.
        group: the row group.
        levels: from `list_levels`.

    Raises:
        UnsupportedColumnError: a page is stored in a rare way.
        DamagedPageError: a page is damaged.
    """
    chunk = metadata.row_group(group).column(levels.leaf)
    lengths = np.zeros(metadata.row_group(group).num_rows, dtype=np.int64)
    row = -1
    entries = 0
    for repetition, definition, count in _pages(stream, chunk):
        if entries + count > chunk.num_values:
            raise DamagedPageError(
                f"row group {group} holds more than its {chunk.num_values} values"
            )
        starts = _decoded(repetition, 1, count)
        depths = _decoded(definition, levels.most.bit_length(), count)
        if starts.size < count or depths.size < count:
            raise DamagedPageError("a page ends within its levels")
        row = _add_lengths(starts, depths, levels.inside, lengths, row)
        if row < -1:
            raise DamagedPageError(f"row group {group} holds more than its {lengths.size} rows")
        entries += count
    if row + 1 != lengths.size or entries != chunk.num_values:
        raise DamagedPageError(f"row group {group} holds {row + 1} rows, not {lengths.size}")
    return lengths


def _pages(
    stream: BinaryIO, chunk: pq.ColumnChunkMetaData
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]:
    """Yield each data page's encoded repetition levels, definition levels and entries."""
    at = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    end = at + chunk.total_compressed_size
    while at < end:
        stream.seek(at)
        head = stream.read(min(_HEADER_BYTES, end - at))
        header, size = read_struct(head)
        kind, unpacked, packed = _sizes(header, 1, 2, 3)
        body = at + size
        at = body + packed
        if at > end:
            raise DamagedPageError(f"the page at byte {body} takes {packed} bytes, past its column")
        stream.seek(body)
        if 4 in header:
            _check_page(stream.read(packed), header[4], body)
            stream.seek(body)
        if kind == _DATA_PAGE:
            count, _, definition_encoding, repetition_encoding = _sizes(header.get(5), 1, 2, 3, 4)
            if definition_encoding != _RLE or repetition_encoding != _RLE:
                raise UnsupportedColumnError("bit-packed levels")
            content = _decompressed(stream.read(packed), chunk.compression, unpacked)
            repetition, rest = _prefixed(content)
            yield repetition, _prefixed(rest)[0], count
        elif kind == _DATA_PAGE_V2:
            count, definition_bytes, repetition_bytes = _sizes(header.get(8), 1, 5, 6)
            content = np.frombuffer(
                stream.read(repetition_bytes + definition_bytes), dtype=np.uint8
            )
            yield content[:repetition_bytes], content[repetition_bytes:], count
        elif kind not in (_INDEX_PAGE, _DICTIONARY_PAGE):
            raise UnsupportedColumnError(f"page type {kind}")


def _check_page(content: bytes, checksum: Any, at: int) -> None:
    if not isinstance(checksum, int) or zlib.crc32(content) != checksum % 2**32:
        raise DamagedPageError(f"the page at byte {at} does not have its checksum")


def _sizes(fields: Any, *numbers: int) -> list[int]:
    """Return the fields of these numbers, each of which must be a whole number."""
    found = [fields.get(number) if isinstance(fields, dict) else None for number in numbers]
    sizes = [value for value in found if isinstance(value, int) and 0 <= value < 2**31]
    if len(sizes) < len(numbers):
        raise DamagedPageError(f"a page's header holds {shortened(found)}")
    return sizes


def _decompressed(content: bytes, codec: str, size: int) -> NDArray[np.uint8]:
    if codec == "UNCOMPRESSED":
        return np.frombuffer(content, dtype=np.uint8)
    if codec not in ("SNAPPY", "GZIP", "BROTLI", "ZSTD"):
        raise UnsupportedColumnError(f"codec {codec}")
    plain = memoryview(pa.decompress(content, size, codec.lower()))
    # Read-only like every other page, so that the decoder is compiled for one kind of array.
    return np.frombuffer(plain.toreadonly(), dtype=np.uint8)


def _prefixed(content: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split off levels that their length in 4 bytes stands before."""
    if content.size < 4:
        raise DamagedPageError("a page ends within its levels")
    (size,) = struct.unpack("<I", content[:4].tobytes())
    if 4 + size > content.size:
        raise DamagedPageError("a page ends within its levels")
    return content[4 : 4 + size], content[4 + size :]


@jit
def _decoded(encoded: NDArray[np.uint8], width: int, count: int) -> NDArray[np.uint8]:
    """Decode `count` levels of `width` bits from runs and bit-packed groups; fewer if it ends."""
    levels = np.zeros(count, dtype=np.uint8)
    mask = (1 << width) - 1
    at = 0
    done = 0
    while done < count and at < encoded.size:
        header = 0
        shift = 0
        while at < encoded.size:
            byte = int(encoded[at])
            at += 1
            header |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if header & 1:
            bits = min((header >> 1) * 8, count - done)
            if at + (bits * width + 7) // 8 > encoded.size:
                break
            for index in range(bits):
                bit = index * width
                value = int(encoded[at + bit // 8]) >> (bit % 8)
                if bit % 8 + width > 8:
                    value |= int(encoded[at + bit // 8 + 1]) << (8 - bit % 8)
                levels[done + index] = value & mask
            at += (header >> 1) * width
            done += bits
        else:
            if at >= encoded.size:
                break
            run = min(header >> 1, count - done)
            levels[done : done + run] = encoded[at]
            at += 1
            done += run
    return levels[:done]


@jit
def _add_lengths(
    starts: NDArray[np.uint8],
    depths: NDArray[np.uint8],
    inside: int,
    lengths: NDArray[np.int64],
    row: int,
) -> int:
    """Count each list's entries into `lengths`; return the last row begun, or -2 past the end."""
    for index in range(starts.size):
        if starts[index] == 0:
            row += 1
            if row >= lengths.size:
                return -2
            if depths[index] < inside - 1:
                lengths[row] = -1
        if row < 0:
            return -2
        if depths[index] >= inside:
            lengths[row] += 1
    return row
