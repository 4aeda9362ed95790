"""Writes a trace as Parquet, whole or not at all.

The file has one int32 column, `length`, and in its metadata, under the key `flashcp`, the trace's
name, note, counts and fingerprint.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from groundwork.atomic import replace_whole
from traces.errors import TraceError
from traces.readers.parquet import TRACE_FORMAT
from traces.trace import Trace

_ROW_GROUP_ROWS = 1 << 20


def save(trace: Trace, path: str | Path) -> None:
    """Write `trace` to the Parquet file `path`, replacing what is there.

    Raises:
        TraceError: the name does not end in .parquet, or its folder does not exist.
        OSError: the disk refused.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise TraceError(f"{path}: traces are written as Parquet; end the name in .parquet")
    if not path.parent.is_dir():
        raise TraceError(f"{path}: there is no folder {path.parent}; create it first")
    about = {
        "format": TRACE_FORMAT,
        "version": 1,
        "name": trace.name,
        "note": trace.note,
        "documents": trace.documents,
        "tokens": trace.tokens,
        "fingerprint": trace.fingerprint,
    }
    table = pa.table({"length": pa.array(trace.lengths)})
    table = table.replace_schema_metadata({"flashcp": json.dumps(about)})
    with replace_whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=_ROW_GROUP_ROWS)
