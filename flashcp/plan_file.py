"""The plan file: the shards of every pack, in one Parquet file that is written whole or not at all.

One row a shard, in each rank's local order. What is said once for the file, for each pack and for
each document travels in the file's own metadata, so that a plan cannot be parted from the trace
rows it was made for. Loading checks everything, each pack's shards and fingerprint included: ranks
trust what they load. See docs/plan-file.md for the format.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from costmodel.model_shape import ModelShape
from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.plans import Plan, check_shards
from flashcp.strategies import NAMES
from groundwork.atomic import replace_whole

if TYPE_CHECKING:
    from traces.packing import Packing

FORMAT_VERSION = 4
_READ_VERSIONS = (1, 2, 3, 4)
SHARDS = pa.schema(
    [
        pa.field("pack", pa.int32(), nullable=False),
        pa.field("document", pa.int32(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("stop", pa.int32(), nullable=False),
    ]
)
PACKS = pa.schema(
    [
        ("strategy", pa.string()),
        ("exchange", pa.string()),
        ("overlap", pa.bool_()),
        ("fingerprint", pa.string()),
        ("ranks_per_node", pa.int32()),  # 0 where the exchange has no two levels
        ("head_chunks", pa.int32()),
        ("bundled", pa.bool_()),
    ]
)
_PACKS_OF_VERSION = {
    1: pa.schema(list(PACKS)[:4]),
    2: pa.schema(list(PACKS)[:5]),
    3: pa.schema(list(PACKS)[:6]),
    4: PACKS,
}
DOCUMENTS = pa.schema(
    [("pack", pa.int32()), ("document", pa.int32()), ("row", pa.int64()), ("offset", pa.int64())]
)
_HEADER, _PACKS, _DOCUMENTS = b"flashcp", b"flashcp.packs", b"flashcp.documents"
_PACKS_A_ROW_GROUP = 256


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is said once for all plans of a file.

    Attributes:
        strategy: the strategy asked for; each pack's own is in its plan.
        cp: CP degree.
        context_tokens: tokens in the window.
        model: the model shape, as its fields.
        hardware: the profile's name.
        trace: the trace's name.
        trace_fingerprint: of the trace's lengths.
        program_version: the flashcp that wrote the file.
        format_version: of the file.
    """

    strategy: str
    cp: int
    context_tokens: int
    model: dict[str, Any]
    hardware: str
    trace: str
    trace_fingerprint: str
    program_version: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, eq=False, kw_only=True)
class PlanFile:
    """A file's plans and where their documents come from.

    Attributes:
        header: what is said once for all.
        plans: one a pack.
        rows: for each pack, the trace row of each document, int64 [documents].
        offsets: for each pack, the tokens of that trace row before each document, int64, likewise.
    """

    header: Header
    plans: list[Plan]
    rows: list[NDArray[np.int64]]
    offsets: list[NDArray[np.int64]]


def save_plans(path: str | Path, file: PlanFile) -> None:
    """Write `file` to `path`, whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is then as it was.
    """
    schema = SHARDS.with_metadata(
        {
            _HEADER: json.dumps(asdict(replace(file.header, format_version=FORMAT_VERSION))),
            _PACKS: _encode(_pack_table(file.plans)),
            _DOCUMENTS: _encode(_document_table(file.rows, file.offsets)),
        }
    )
    with replace_whole(Path(path)) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(file.plans), _PACKS_A_ROW_GROUP):
            writer.write_table(_shard_table(file.plans, first, schema))


def load_plans(path: str | Path) -> PlanFile:
    """Read the plans at `path` and check all of them.

    Raises:
        PlanError: names the field, pack, shard or document that is wrong.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        table = pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:  # Arrow tells damage by either
        raise PlanError(f"{path} is no Parquet file, or cut short: {_first_line(error)}") from error
    header = _header(path, table.schema.metadata or {})
    if not table.schema.remove_metadata().equals(SHARDS):
        columns = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise PlanError(f"{path} holds the columns {columns}; a plan file's are {_columns()}")
    if any(table[name].null_count for name in SHARDS.names):
        raise PlanError(f"{path} has empty cells; a plan file has none")
    said = _PACKS_OF_VERSION[header.format_version]
    packs = _decode(path, table.schema.metadata, _PACKS, said)
    documents = _decode(path, table.schema.metadata, _DOCUMENTS, DOCUMENTS)
    plans = _plans(path, header, table, packs)
    rows, offsets = _documents(path, plans, documents)
    return PlanFile(header=header, plans=plans, rows=rows, offsets=offsets)


def _shard_table(plans: list[Plan], first: int, schema: pa.Schema) -> pa.Table:
    group = plans[first : first + _PACKS_A_ROW_GROUP]
    pack = np.repeat(np.arange(first, first + len(group)), [plan.shards for plan in group])
    columns = [
        pack.astype(np.int32),
        np.concatenate([plan.document for plan in group]),
        np.concatenate([plan.lengths[plan.document] for plan in group]),
        np.concatenate([plan.rank for plan in group]).astype(np.int16),
        np.concatenate([plan.start for plan in group]),
        np.concatenate([plan.stop for plan in group]),
    ]
    return pa.table([pa.array(column) for column in columns], schema=schema)


def _pack_table(plans: list[Plan]) -> pa.Table:
    rows = [
        (
            plan.strategy,
            plan.exchange.value,
            plan.overlap,
            plan.fingerprint,
            plan.ranks_per_node or 0,
            plan.head_chunks,
            plan.bundled,
        )
        for plan in plans
    ]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=PACKS)


def _document_table(rows: list[NDArray[np.int64]], offsets: list[NDArray[np.int64]]) -> pa.Table:
    sizes = [len(pack) for pack in rows]
    columns = [
        np.repeat(np.arange(len(rows)), sizes).astype(np.int32),
        np.concatenate([np.arange(size) for size in sizes]).astype(np.int32),
        np.concatenate(rows),
        np.concatenate(offsets),
    ]
    return pa.table([pa.array(column) for column in columns], schema=DOCUMENTS)


def _encode(table: pa.Table) -> bytes:
    """Return the table as a compressed Arrow stream in base64: Parquet metadata is text."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue())


def _decode(path: Path, metadata: dict[bytes, bytes], key: bytes, schema: pa.Schema) -> pa.Table:
    if key not in metadata:
        raise PlanError(f"{path} lacks the metadata {key.decode()!r}: it is no plan file")
    try:
        with pa.ipc.open_stream(base64.b64decode(metadata[key], validate=True)) as reader:
            table = reader.read_all()
    except (ValueError, OSError) as error:  # base64's and Arrow's own
        raise PlanError(f"{path}: metadata {key.decode()!r} is broken: {error}") from error
    if not table.schema.equals(schema):
        raise PlanError(f"{path}: metadata {key.decode()!r} holds other columns than its version's")
    if table.num_rows == 0 or any(column.null_count for column in table.columns):
        raise PlanError(f"{path}: metadata {key.decode()!r} is empty or has empty cells")
    return table


def _header(path: Path, metadata: dict[bytes, bytes]) -> Header:
    if _HEADER not in metadata:
        raise PlanError(f"{path} lacks the metadata 'flashcp': it is no plan file")
    try:
        values = json.loads(metadata[_HEADER])
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: metadata 'flashcp' is not JSON: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version is None:
        raise PlanError(f"{path} says no plan format version: it is no file of flashcp plan --out")
    if version not in _READ_VERSIONS or isinstance(version, bool):
        raise PlanError(
            f"{path} has plan format version {version}; this flashcp reads "
            f"{' and '.join(map(str, _READ_VERSIONS))}: make it anew with flashcp plan"
        )
    for field in fields(Header):
        if not isinstance(values.get(field.name), _TYPES[field.name]):
            raise PlanError(f"{path}: header field {field.name!r} is {values.get(field.name)!r}")
    header = Header(**{field.name: values[field.name] for field in fields(Header)})
    if header.strategy not in NAMES:
        raise PlanError(f"{path}: header field 'strategy' is {header.strategy!r}, which is unknown")
    if header.context_tokens < 1:
        raise PlanError(f"{path}: header field 'context_tokens' is {header.context_tokens}")
    try:
        ModelShape(**header.model)
    except (TypeError, ValueError) as error:
        raise PlanError(f"{path}: header field 'model' is no model shape: {error}") from error
    return header


_TYPES: dict[str, type] = {
    "strategy": str,
    "cp": int,
    "context_tokens": int,
    "model": dict,
    "hardware": str,
    "trace": str,
    "trace_fingerprint": str,
    "program_version": str,
    "format_version": int,
}


def _plans(path: Path, header: Header, table: pa.Table, packs: pa.Table) -> list[Plan]:
    columns = {name: table[name].to_numpy() for name in SHARDS.names}
    pack = columns["pack"]
    if np.any(np.diff(pack) < 0) or (pack.size and not 0 <= pack[0] <= pack[-1] < packs.num_rows):
        raise PlanError(f"{path}: column pack is not ascending within 0..{packs.num_rows - 1}")
    splits = np.searchsorted(pack, np.arange(packs.num_rows + 1))
    plans = []
    for index, said in enumerate(packs.to_pylist()):
        part = slice(splits[index], splits[index + 1])
        try:
            plans.append(_plan(header, {k: v[part] for k, v in columns.items()}, said))
        except PlanError as error:
            raise PlanError(f"{path}, pack {index}: {error}") from error
    return plans


def _plan(header: Header, columns: dict[str, NDArray[Any]], said: dict[str, Any]) -> Plan:
    document, length = columns["document"], columns["length"]
    if document.size == 0:
        raise PlanError("no shards")
    # Every document has a shard, so there are at least as many shards as documents.
    if document.min() < 0 or document.max() >= document.size:
        wrong = document.min() if document.min() < 0 else document.max()
        raise PlanError(f"document {wrong} is not in 0..{document.size - 1}")
    lengths = np.zeros(document.max() + 1, dtype=np.int32)
    lengths[document] = length
    different = np.flatnonzero((lengths[document] != length) | (length < 1))
    if different.size:
        i = different[0]
        raise PlanError(
            f"document {document[i]} has length {length[i]} in one row and "
            f"{lengths[document[i]]} in another"
        )
    shards = {
        "document": document.astype(np.int32),
        "rank": columns["rank"].astype(np.int32),
        "start": columns["start"].astype(np.int32),
        "stop": columns["stop"].astype(np.int32),
    }
    check_shards(lengths, header.cp, **shards)
    tokens = int(lengths.sum(dtype=np.int64))
    if tokens > header.context_tokens:
        raise PlanError(f"{tokens} tokens are more than the window of {header.context_tokens}")
    if said["strategy"] not in NAMES:
        raise PlanError(f"strategy {said['strategy']!r} is unknown; there are: {', '.join(NAMES)}")
    try:
        exchange = Exchange(said["exchange"])
    except ValueError as error:
        raise PlanError(
            f"exchange {said['exchange']!r} is unknown; there are: {', '.join(Exchange)}"
        ) from error
    plan = Plan(
        lengths=lengths,
        cp=header.cp,
        exchange=exchange,
        strategy=said["strategy"],
        overlap=said["overlap"],
        ranks_per_node=said.get("ranks_per_node") or None,
        head_chunks=said.get("head_chunks", 1),
        bundled=said.get("bundled", False),
        **shards,
    )
    if plan.fingerprint != said["fingerprint"]:
        raise PlanError(
            f"fingerprint {plan.fingerprint} is not the stored {said['fingerprint']}: "
            "the file was changed after it was written"
        )
    return plan


def _documents(
    path: Path, plans: list[Plan], table: pa.Table
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    pack, document = table["pack"].to_numpy(), table["document"].to_numpy()
    sizes = [plan.lengths.size for plan in plans]
    expected = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0)
    if not np.array_equal(pack, np.repeat(np.arange(len(plans)), sizes)) or not np.array_equal(
        document, expected
    ):
        raise PlanError(f"{path}: the table of documents is not of the same packs as the shards")
    splits = np.cumsum(sizes)[:-1]
    row, offset = table["row"].to_numpy(), table["offset"].to_numpy()
    if row.size and (row.min() < 0 or offset.min() < 0):
        raise PlanError(f"{path}: the table of documents has a row or offset below 0")
    return np.split(row, splits), np.split(offset, splits)


def _columns() -> str:
    return ", ".join(f"{field.name} {field.type}" for field in SHARDS)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def plan_file(header: Header, plans: Iterable[Plan], packing: "Packing") -> PlanFile:
    """Join plans with the packing they were made for; one plan a pack, in order."""
    plans = list(plans)
    splits = packing.splits[1:-1]
    return PlanFile(
        header=header,
        plans=plans,
        rows=np.split(packing.rows, splits),
        offsets=np.split(packing.offsets, splits),
    )
