"""Tells a file's format from its first bytes and its extension.

Binary formats begin with a magic number, and that decides, whatever the extension says: a file is
what it is. Text formats have none; there the extension decides. A binary extension without its
magic number is refused, for such a file is damaged or misnamed.
"""

from pathlib import Path

from traces.errors import TraceError, quoted, shortened, suggestion
from traces.readers import FORMATS
from traces.readers.compression import DAMAGE, open_plain

_EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".npy": "npy",
    ".idx": "idx",
}
_MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"\xff\xff\xff\xff": "arrow",  # a stream's continuation marker
    b"\x93NUMPY": "npy",
    b"MMIDIDX\x00\x00": "idx",
    b"TNTIDX\x00\x00": "idx",  # the legacy index, which its reader refuses with advice
}
_REFUSED_MAGIC = {
    b"FEA1": "Feather version 1; write version 2 (pyarrow.feather.write_feather)",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; decompress it",
    b"BZh": "bzip2-compressed; decompress it",
    b"\xfd7zXZ": "xz-compressed; decompress it",
}
_TEXT = ("csv", "tsv", "jsonl")


def check_format(format: str | None) -> None:  # noqa: A002 - the public option's name
    """Refuse the name of a format that there is not.

    Raises:
        TraceError: names the nearest one there is.
    """
    if format is not None and format not in FORMATS:
        known = f"(there are {quoted(FORMATS)})"
        near = suggestion(format, FORMATS)
        raise TraceError(f"unknown format {shortened(format)!r}{near} {known}")


def detect_format(path: Path, format: str | None) -> str:  # noqa: A002 - the public option's name
    """Return the format to read `path` as.

    Args:
        path: an existing file.
        format: the format the user insists on, if so.

    Raises:
        TraceError: the format is unknown or cannot be told, or the file is empty.
    """
    check_format(format)
    if path.stat().st_size == 0:
        raise TraceError(f"{path} is empty (0 bytes); write or fetch it anew")
    if format is not None:
        return format
    try:
        with open_plain(path) as stream:
            head = stream.read(16)
    except DAMAGE as error:
        raise TraceError(f"{path} is damaged or cut short ({error}); fetch it anew") from error
    for magic, found in _MAGIC.items():
        if head.startswith(magic):
            return found
    for magic, advice in _REFUSED_MAGIC.items():
        if head.startswith(magic):
            raise TraceError(f"{path} is {advice}")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    by_name = _EXTENSIONS.get(suffixes[-1]) if suffixes else None
    if by_name is None and head.lstrip()[:1] == b"{":
        return "jsonl"
    if by_name is None:
        raise TraceError(
            f"{path}: its format cannot be told from its name or first bytes; give --format, one "
            f"of {quoted(FORMATS)}"
        )
    if by_name not in _TEXT:
        raise TraceError(
            f"{path}, byte 0: {head[:8]!r} does not begin a file of format {by_name}; it is "
            "damaged, or another format: give --format"
        )
    return by_name
