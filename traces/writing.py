"""Writes a trace as Parquet, whole or not at all.

The file has one int32 column, `length`, with a checksum for every page, and in its metadata, under
the key `flashcp`, the trace's name, note, counts and fingerprint. Loading checks all of it.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from groundwork.atomic import replace_whole
from traces.errors import TraceError, check_name
from traces.readers.saved import COLUMN, KEY, description
from traces.trace import Trace

_ROW_GROUP_ROWS = 1 << 20


def save(trace: Trace, path: str | Path) -> None:
    """Write `trace` to the Parquet file `path`, replacing what is there.

    Raises:
        TraceError: the name does not end in .parquet, is a folder's, or its folder does not exist.
        OSError: the disk refused.
    """
    path = Path(path)
    check_destination(path)
    table = pa.table({COLUMN: pa.array(trace.lengths)})
    table = table.replace_schema_metadata({KEY: json.dumps(description(trace))})
    with replace_whole(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            row_group_size=_ROW_GROUP_ROWS,
            write_page_checksum=True,
        )


def check_destination(path: Path) -> None:
    """Refuse what `save` would refuse, before the work of making a trace.

    Raises:
        TraceError: as `save`.
    """
    check_name(path)
    if path.suffix != ".parquet":
        raise TraceError(f"{path}: traces are written as Parquet; end the name in .parquet")
    if not path.parent.is_dir():
        raise TraceError(f"{path}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise TraceError(f"{path} is a folder; name a file")
