r"""Reads document lengths from a Megatron-LM `.idx`, without its `.bin`.

Layout, little-endian: `MMIDIDX\0\0`; u64 version 1; u8 code of the tokens' type; u64 sequences;
u64 document indices (documents + 1); i32 lengths[sequences]; i64 byte pointers[sequences]; i64
document indices, each the first sequence of a document, the last the number of sequences. A
document may span several sequences (sentences): its length is their sum. Multimodal indices end
with an i8 mode a sequence, which is ignored.

Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError
from traces.readers import ReadOptions
from traces.validation import checked_lengths, wrong_length

MAGIC = b"MMIDIDX\x00\x00"
LEGACY_MAGIC = b"TNTIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_TOKEN_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 8, 7: 4, 8: 2}


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a Megatron-LM index."""
    if options.column is not None:
        raise TraceError(f"{path}: a Megatron index has no columns; leave --column out")
    sequences, indices = _checked_header(path)
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    start = _HEADER.size
    lengths = mapped[start : start + 4 * sequences].view("<i4")
    documents_at = start + 12 * sequences
    bounds = mapped[documents_at : documents_at + 8 * indices].view("<i8")
    _check_bounds(bounds, sequences, documents_at, path)
    if sequences and lengths.min() < 0:
        wrong = int(np.argmax(lengths < 0))
        raise wrong_length(int(lengths[wrong]), str(path), wrong, unit="sequence")
    ends = np.zeros(sequences + 1, dtype=np.int64)
    np.cumsum(lengths, dtype=np.int64, out=ends[1:])
    return checked_lengths(np.diff(ends[bounds]), str(path), unit="document")


def _checked_header(path: Path) -> tuple[int, int]:
    """Return the sequences and document indices that the header counts, if the file holds them."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(_HEADER.size)
    if header.startswith(LEGACY_MAGIC):
        raise TraceError(
            f"{path} is a legacy TNTIDX index; rebuild it with Megatron-LM's preprocess_data.py"
        )
    if not header.startswith(MAGIC):
        raise TraceError(f"{path}, byte 0: {header[:9]!r} is not a Megatron index's {MAGIC!r}")
    if len(header) < _HEADER.size:
        raise TraceError(
            f"{path} is cut short at byte {size}, its header takes {_HEADER.size}; copy it anew"
        )
    _, version, code, sequences, indices = _HEADER.unpack(header)
    if version != 1:
        raise TraceError(f"{path}, byte 9: version {version}; only version 1 is known")
    if code not in _TOKEN_BYTES:
        raise TraceError(f"{path}, byte 17: token type code {code}; the codes are 1 to 8")
    need = _HEADER.size + 12 * sequences + 8 * indices
    if size < need:
        raise TraceError(
            f"{path} is cut short at byte {size}, {sequences} sequences and {indices} document "
            f"indices take {need}; copy it anew"
        )
    if size not in (need, need + sequences):
        raise TraceError(
            f"{path} holds {size} bytes, {sequences} sequences and {indices} document indices take "
            f"{need}; copy or build it anew"
        )
    if indices < 2:
        raise TraceError(f"{path} has no documents; give an index with at least one")
    return sequences, indices


def _check_bounds(bounds: NDArray[np.int64], sequences: int, at: int, path: Path) -> None:
    if bounds[0] != 0:
        raise TraceError(f"{path}, byte {at}: the first document index is {bounds[0]}, not 0")
    falls = np.flatnonzero(np.diff(bounds) < 0)
    if falls.size:
        index = int(falls[0]) + 1
        raise TraceError(
            f"{path}, byte {at + 8 * index}: document index {bounds[index]} follows "
            f"{bounds[index - 1]}; they must ascend: build the index anew"
        )
    if bounds[-1] != sequences:
        raise TraceError(
            f"{path}, byte {at + 8 * (bounds.size - 1)}: the last document index is {bounds[-1]}, "
            f"not the {sequences} sequences there are; build the index anew"
        )
