"""Plans every pack with every strategy and gathers what each costs, over several processes.

Packs go to the processes in blocks and come back in order, so the result does not depend on how
many processes there were. Columns are arrays over packs: a hundred thousand packs take megabytes.
Planning is timed by itself, a plan at a time, as a training job would do it.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flashcp.bounds import lower_bound_us
from flashcp.measures import measure
from flashcp.planning import plan
from flashcp.plans import Plan
from flashcp.prediction import Setting, predict
from flashcp.search.weights import Balance
from flashcp.workers import Line, hang_on, killed, stop_if_asked, without_interrupts

if TYPE_CHECKING:
    from traces.packing import Packing

_BLOCK_PACKS = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What one strategy's plans cost, an entry a pack; see `Measures` and `Prediction`.

    Attributes:
        in_place_us: the total with only those copies that a layout must move, whatever the setting
            counts.
        planning_us: wall-clock time of making each plan; it alone differs from run to run.
    """

    imbalance: NDArray[np.float64]
    moved_share: NDArray[np.float64]
    eq5_share: NDArray[np.float64]
    needed_share: NDArray[np.float64]
    padded: NDArray[np.float64]
    shards_per_rank: NDArray[np.float64]
    across_tokens: NDArray[np.float64]
    across_largest_tokens: NDArray[np.float64]
    forward_us: NDArray[np.float64]
    backward_us: NDArray[np.float64]
    exchange_us: NDArray[np.float64]
    copies_us: NDArray[np.float64]
    total_us: NDArray[np.float64]
    forward_total_us: NDArray[np.float64]
    in_place_us: NDArray[np.float64]
    planning_us: NDArray[np.float64]


OUTCOME = tuple(field.name for field in fields(Outcome))


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """All strategies on all packs.

    Attributes:
        outcomes: by strategy, in the order asked for.
        bound_us: lower bound of each pack's predicted time, [packs].
        plans: the kept strategy's plans, one a pack; empty unless asked for.
        inspected: by strategy, what was asked for of each plan, [packs].
    """

    outcomes: dict[str, Outcome]
    bound_us: NDArray[np.float64]
    plans: list[Plan]
    inspected: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def compare(
    packing: "Packing",
    cp: int,
    strategies: Sequence[str],
    setting: Setting,
    *,
    effort: float = 1.0,
    balance: Balance | None = None,
    keep: str | None = None,
    inspect: Mapping[str, Callable[[Plan], float]] | None = None,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Plan and predict every pack with every strategy.

    Args:
        packing: the packs.
        cp: CP degree.
        strategies: names, in the order of the result.
        setting: hardware and model shape.
        effort: search steps of `auto`, in units of its default.
        balance: what `auto` evens out between ranks: "work", "time" or None; see `flashcp.plan`.
        keep: the strategy whose plans to return; one of `strategies`.
        inspect: by strategy, a function whose value of each plan is wanted as well. It is called
            where plans are made, so that they need not be kept, and must be importable there.
        processes: how many to use; 0 for one a usable core. More than one are started afresh, so
            a script must guard its top level by `if __name__ == "__main__"`.
        progress: called with the number of packs done since the last call.

    Returns:
        The comparison; but for planning times it does not depend on `processes`.

    Raises:
        PlanError: the CP degree, a strategy, the effort or the balance is wrong.
        ProfileError: the ranks per node do not divide the CP degree.
        ChildProcessError: a process was killed, as by a system short of memory.
    """
    processes = processes or usable_cores()
    blocks = (
        [packing.document_lengths(i) for i in range(first, min(first + _BLOCK_PACKS, len(packing)))]
        for first in range(0, len(packing), _BLOCK_PACKS)
    )
    task = _Task(
        cp=cp,
        strategies=tuple(strategies),
        setting=setting,
        effort=effort,
        balance=balance,
        keep=keep,
        inspect=dict(inspect or {}),
    )
    first = packing.document_lengths(0)
    # Compiles every kernel before there are processes that would each do the same.
    _run(task, [first])
    results: list[_Block] = []
    for result in _map(task, blocks, min(processes, -(-len(packing) // _BLOCK_PACKS)), first):
        results.append(result)
        progress(len(result.bound_us))
    rows = np.concatenate([result.rows for result in results], axis=1)
    outcomes = {
        name: Outcome(**dict(zip(OUTCOME, rows[index].T.copy(), strict=True)))
        for index, name in enumerate(strategies)
    }
    return Comparison(
        outcomes=outcomes,
        bound_us=np.concatenate([result.bound_us for result in results]),
        plans=[made for result in results for made in result.plans],
        inspected={
            name: np.concatenate([result.inspected[name] for result in results])
            for name in task.inspect
        },
    )


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Task:
    cp: int
    strategies: tuple[str, ...]
    setting: Setting
    effort: float
    balance: Balance | None
    keep: str | None
    inspect: dict[str, Callable[[Plan], float]]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Block:
    rows: NDArray[np.float64]  # [strategies, packs, columns of Outcome]
    bound_us: NDArray[np.float64]
    plans: list[Plan]
    inspected: dict[str, NDArray[np.float64]]


def _run(task: _Task, packs: list[NDArray[np.int32]]) -> _Block:
    rows = np.empty((len(task.strategies), len(packs), len(OUTCOME)))
    bounds = np.empty(len(packs))
    inspected = {name: np.empty(len(packs)) for name in task.inspect}
    plans = []
    in_place = replace(task.setting, copies="in-place")
    per_node = task.setting.profile.network.per_node(task.cp, task.setting.ranks_per_node)
    for i, lengths in enumerate(packs):
        stop_if_asked()
        bounds[i] = lower_bound_us(lengths, task.cp, task.setting)
        for s, strategy in enumerate(task.strategies):
            began = time.perf_counter_ns()
            made = plan(
                lengths, task.cp, strategy, task.setting, effort=task.effort, balance=task.balance
            )
            planning_us = (time.perf_counter_ns() - began) / 1000
            predicted = predict(made, task.setting)
            bare = predict(made, in_place) if task.setting.copies_shards(strategy) else predicted
            values = {
                **vars(measure(made, per_node)),
                **vars(predicted),
                "in_place_us": bare.total_us,
                "planning_us": planning_us,
            }
            rows[s, i] = [values[name] for name in OUTCOME]
            if strategy == task.keep:
                plans.append(made)
            if strategy in inspected:
                inspected[strategy][i] = task.inspect[strategy](made)
    return _Block(rows=rows, bound_us=bounds, plans=plans, inspected=inspected)


def _map(
    task: _Task,
    blocks: Iterator[list[NDArray[np.int32]]],
    processes: int,
    first: NDArray[np.int32],
) -> Iterator[_Block]:
    """Yield `_run` of every block, in order, a few blocks ahead of what was taken.

    Every process runs pack `first` once before, so that planning times hold no compilation.
    """
    if processes <= 1:
        for block in blocks:
            yield _run(task, block)
        return
    # Started afresh rather than forked: a fork of a process with threads may hang.
    context, line = multiprocessing.get_context("spawn"), Line()
    with ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=hang_on,
        initargs=(line.theirs, _run, task, [first]),
    ) as pool:
        try:
            pending: list[Future[_Block]] = []
            room = 2 * processes
            while True:
                with without_interrupts():  # a pool may start a process whenever work comes
                    pending.extend(pool.submit(_run, task, block) for block in islice(blocks, room))
                if not pending:
                    return
                room = 1
                yield pending.pop(0).result()
        except BrokenProcessPool as error:
            raise killed() from error
        except BaseException:
            line.end(pool)  # Ctrl-C or an error: what has not begun need not
            raise
