"""The results of a sweep on disk: a row a pack and strategy, kept block by block as they come.

While a sweep runs, every finished block is a Parquet file of its own in the folder `NAME.partial`,
beside `sweep.json` with all that the results depend on; each is written whole or not at all. Once
all are there they are joined into NAME, in the order of the sweep, and the folder goes. So an
interrupt, a full disk or a killed process loses the blocks in flight and nothing else, and the
joined file is the same byte for byte however often the sweep was interrupted.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flashcp.errors import PlanError
from flashcp.simulation.block import COLUMNS, WHOLE_COLUMNS
from flashcp.simulation.sweep import AXES, Configuration, Sweep
from groundwork.atomic import replace_whole

_FORMAT = "flashcp-simulation"
_VERSION = 3  # 1 had no traffic across nodes; in 2 waiting could pass for exchange
_KEY = b"flashcp"


class Store:
    """The results file of one sweep, and the blocks that will become it."""

    def __init__(self, path: Path, sweep: Sweep) -> None:
        """Open or begin the results of `sweep` at `path`.

        Raises:
            PlanError: what is there is not this sweep's; it is left alone.
            OSError: the folder cannot be written.
        """
        self.path = path
        self.folder = path.with_name(f"{path.name}.partial")
        self.sweep = sweep
        self._identity = {
            "format": _FORMAT,
            "version": _VERSION,
            "flashcp": version("flashcp"),  # another may plan and predict otherwise
            "sweep": sweep.to_json(),
        }
        self.complete = path.exists()
        if self.complete:
            self._compare(_identity_of(path), str(path))
            return
        self.folder.mkdir(exist_ok=True)
        manifest = self.folder / "sweep.json"
        if manifest.exists():
            try:
                begun = json.loads(manifest.read_text())
            except ValueError as error:
                raise PlanError(f"{manifest} is no JSON: {error}; remove {self.folder}") from error
            self._compare(begun, str(self.folder))
        else:
            with replace_whole(manifest) as temporary:
                temporary.write_text(json.dumps(self._identity, indent=1))

    def has(self, cell: int, block: int) -> bool:
        """Tell whether a block is there."""
        return self._part(cell, block).exists()

    def put(self, cell: int, block: int, first_pack: int, rows: NDArray[np.float64]) -> None:
        """Write a block, float64 [packs, strategies, COLUMNS], whole or not at all."""
        configuration = self.sweep.configurations[cell]
        table = _table(configuration, tuple(self.sweep.strategies), first_pack, rows)
        with replace_whole(self._part(cell, block)) as temporary:
            pq.write_table(table, temporary)

    def finish(self, blocks: Iterable[tuple[int, int]]) -> None:
        """Join all blocks, given in the order of the sweep, into the results file."""
        schema = _schema(json.dumps(self._identity))
        with (
            replace_whole(self.path) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for cell, block in blocks:
                part = self._part(cell, block)
                try:
                    table = pq.read_table(part, partitioning=None)
                except (pa.ArrowException, OSError) as error:
                    part.unlink(missing_ok=True)
                    raise PlanError(f"{part} is broken; run again to make it anew") from error
                writer.write_table(table.cast(schema))
        shutil.rmtree(self.folder)
        self.complete = True

    def read(self) -> pd.DataFrame:
        """Return all rows, the columns that name a configuration as categories."""
        return load_results(self.path)

    def _part(self, cell: int, block: int) -> Path:
        return self.folder / f"{cell:05d}-{block:06d}.parquet"

    def _compare(self, found: Any, where: str) -> None:
        if found == self._identity:
            return
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise PlanError(f"{where} is no simulation's results; take another --out")
        if found.get("version") != _VERSION:
            raise PlanError(
                f"{where} has format version {found.get('version')}, not {_VERSION}; take another "
                "--out"
            )
        release = self._identity["flashcp"]
        if found.get("flashcp") != release:
            raise PlanError(
                f"{where} is by flashcp {found.get('flashcp')}, this is {release}; take another "
                "--out or remove it"
            )
        theirs, ours = found["sweep"], self._identity["sweep"]
        assert isinstance(ours, dict)  # noqa: S101 - for the type checker
        name = next(key for key in ours if theirs.get(key) != ours[key])
        raise PlanError(
            f"{where} holds a sweep with other settings: {name} {_brief(theirs.get(name))} there, "
            f"{_brief(ours[name])} now; take another --out or remove it"
        )


def load_results(path: Path) -> pd.DataFrame:
    """Read a results file: a row a pack and strategy.

    Raises:
        PlanError: it is not one.
    """
    _identity_of(path)
    table = pq.read_table(
        path, read_dictionary=[name for name in _schema("").names if _is_text(name)]
    )
    # Column by column, so that the rows are not in memory twice.
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    return frame


def _is_text(name: str) -> bool:
    return name == "strategy" or Configuration.__annotations__.get(name) is str


def _identity_of(path: Path) -> Any:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise PlanError(f"{path} is no simulation's results; take another --out") from error
    return json.loads(metadata.get(_KEY, b"null"))


def _schema(identity: str) -> pa.Schema:
    kinds = {str: pa.string(), int: pa.int32(), float: pa.float64()}
    named = [(axis, kinds[Configuration.__annotations__[axis]]) for axis in AXES]
    values = [(c, pa.int32() if c in WHOLE_COLUMNS else pa.float64()) for c in COLUMNS]
    fields = [*named, ("strategy", pa.string()), ("pack", pa.int32()), *values]
    return pa.schema(fields, metadata={_KEY: identity.encode()})


def _table(
    configuration: Configuration,
    strategies: tuple[str, ...],
    first_pack: int,
    rows: NDArray[np.float64],
) -> pa.Table:
    packs, count = rows.shape[:2]
    names = np.array(strategies, dtype=object)
    columns: dict[str, Any] = {axis: [v] * (packs * count) for axis, v in
                               asdict(configuration).items()}  # fmt: skip
    columns["strategy"] = np.tile(names, packs)
    columns["pack"] = np.repeat(np.arange(first_pack, first_pack + packs), count)
    flat = rows.reshape(packs * count, len(COLUMNS))
    for i, name in enumerate(COLUMNS):
        columns[name] = flat[:, i].astype(np.int32) if name in WHOLE_COLUMNS else flat[:, i]
    schema = _schema("")
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
