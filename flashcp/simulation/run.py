"""Runs a sweep: every block that is not there yet, on an engine, into the store.

An engine is anything with `map(job, tasks)`; it yields results in any order. Two are known: local
processes (`flashcp.simulation.engines`) and a Dask cluster (`flashcp.simulation.dask_engine`).
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flashcp.errors import PlanError
from flashcp.simulation.block import Job
from flashcp.simulation.capacity import capacities
from flashcp.simulation.engines import Engine, LocalEngine, Task
from flashcp.simulation.results import Store
from flashcp.simulation.step import StepModel
from flashcp.simulation.summary import Row, summarise
from flashcp.simulation.sweep import Configuration, Sweep

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from traces.packing import Packing

BLOCK_PACKS = 128


@dataclass(frozen=True, eq=False, kw_only=True)
class Simulated:
    """What a sweep gave.

    Attributes:
        sweep: the settings.
        rows: a row a pack and strategy; see `flashcp.simulation.results`.
        packings: the packs, by `Configuration.packing`.
    """

    sweep: Sweep
    rows: "pd.DataFrame"
    packings: "dict[tuple[str, str, int], Packing]"

    def summary(self, step: StepModel | None = None, memory_gb: float | None = None) -> list[Row]:
        """Return a row for every configuration and strategy, best first.

        Args:
            step: how the model is trained around its attention; None for its defaults.
            memory_gb: memory of a GPU; None for its data sheet's, where that is known.
        """
        step = step or StepModel(replicas=self.sweep.replicas)
        return summarise(self, step, capacities(self.sweep, memory_gb))

    def frames(self) -> "Iterator[tuple[Configuration, str, pd.DataFrame]]":
        """Yield each configuration's and strategy's rows, a row a pack.

        By their place, which the results file fixes: grouping by all axes takes more memory than
        the rows.
        """
        first, count = 0, len(self.sweep.strategies)
        for configuration in self.sweep.configurations:
            end = first + len(self.packings[configuration.packing]) * count
            for i, strategy in enumerate(self.sweep.strategies):
                yield configuration, strategy, self.rows.iloc[first + i : end : count]
            first = end


def simulate(
    sweep: Sweep,
    out: Path | None = None,
    *,
    engine: Engine | None = None,
    begin: Callable[[int, int], Callable[[int], None]] = lambda _done, _all: lambda _packs: None,
) -> Simulated:
    """Plan and predict every pack under every configuration with every strategy.

    Args:
        sweep: the settings.
        out: where the rows go; a sweep that was interrupted there goes on. None keeps nothing.
        engine: where blocks run; local processes, one a core, by default. These are started
            afresh, so a script must guard its top level by `if __name__ == "__main__"`.
        begin: called with the packs that are there already and those there will be, both counted
            once a configuration; returns what to call with packs done since.

    Returns:
        The rows and the packs; they depend on nothing but the sweep.

    Raises:
        PlanError: `out` holds another sweep's results.
        OSError: a full disk, or a worker that was killed again and again; finished blocks stay in
            the folder beside `out`.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="flashcp-") as folder:
            try:
                return _simulate(sweep, Path(folder) / "rows.parquet", engine, begin)
            except OSError as error:
                raise OSError(
                    f"{_told(error)}; without a results file (--out) nothing is kept"
                ) from error
    try:
        return _simulate(sweep, out, engine, begin)
    except OSError as error:
        raise OSError(
            f"{out}: {_told(error)}; what was computed is kept: run again to go on"
        ) from error


def _told(error: OSError) -> str:
    """Return what went wrong, without its number and the name of a temporary file."""
    return error.strerror or str(error)


def _simulate(
    sweep: Sweep,
    out: Path,
    engine: Engine | None,
    begin: Callable[[int, int], Callable[[int], None]],
) -> Simulated:
    packings = {c.packing: sweep.packing(c) for c in _distinct(sweep)}
    for (trace, by, context), packing in packings.items():
        if len(packing) < sweep.replicas:
            raise PlanError(
                f"trace {trace} makes {len(packing)} packs of {context} tokens by {by}, fewer than "
                f"one step of {sweep.replicas} replicas"
            )
    store = Store(out, sweep)
    if not store.complete:
        plan = list(_blocks(sweep, packings))
        missing = [block for block in plan if not store.has(*block[:2])]
        total = sum(packs for *_, packs in plan)
        advance = begin(total - sum(packs for *_, packs in missing), total)
        if missing:
            engine = engine or LocalEngine()
            tasks = (_task(sweep, packings, *block) for block in missing)
            for task, rows in engine.map(Job.of(sweep), tasks, len(missing)):
                store.put(task.cell, task.block, task.first_pack, rows)
                advance(len(rows))
        store.finish((cell, block) for cell, block, *_ in plan)
    return Simulated(sweep=sweep, rows=store.read(), packings=packings)


def _distinct(sweep: Sweep) -> list[Configuration]:
    return list({c.packing: c for c in sweep.configurations}.values())


def _blocks(
    sweep: Sweep, packings: "dict[tuple[str, str, int], Packing]"
) -> Iterator[tuple[int, int, int, int]]:
    """Yield configuration, block, first pack and packs of every block, in order."""
    for cell, configuration in enumerate(sweep.configurations):
        packs = len(packings[configuration.packing])
        for block, first in enumerate(range(0, packs, BLOCK_PACKS)):
            yield cell, block, first, min(BLOCK_PACKS, packs - first)


def _task(
    sweep: Sweep,
    packings: "dict[tuple[str, str, int], Packing]",
    cell: int,
    block: int,
    first: int,
    packs: int,
) -> Task:
    packing = packings[sweep.configurations[cell].packing]
    lengths: list[NDArray[np.int32]] = [
        np.ascontiguousarray(packing.document_lengths(i)) for i in range(first, first + packs)
    ]
    return Task(cell=cell, block=block, first_pack=first, packs=lengths)
