"""The placement that moves least, proven by a mixed-integer program: small packs, coarse cuts.

Documents are cut in blocks of a grid. x[b, r] places block b on rank r; y[b, r] tells that rank r
attends to block b, since it holds it or a later block of the document; z[b, r, q] that rank r sends
block b to rank q. Minimised is M, which no rank's sent or received tokens exceed:

    sum_r x[b, r] = 1                       each block on one rank
    floor(C/N) - s <= sum_b t_b x[b, r] <= ceil(C/N) + s             equal tokens, s to spare
    sum_b w_b x[b, r] <= imbalance W/N                               balanced work
    y[b, r] >= x[b, r],  y[b, r] >= y[b + 1, r] in one document
    z[b, r, q] >= x[b, r] + y[b, q] - 1     for q other than r
    sum_b t_b (y[b, r] - x[b, r]) <= M,  sum_bq t_b z[b, r, q] <= M

Only x is integer. Ranks are alike, so block b goes to one of the first b + 1. Solved by HiGHS
through scipy, an optional dependency. Sixteen blocks over four ranks take a second or two; time
grows exponentially, hence the limit.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.plans import Plan
from flashcp.strategies import check_cp, check_lengths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MOST_CELLS = 2_000  # blocks x ranks x ranks; beyond, nothing is proven in minutes
_LIMIT_REACHED = 1  # of scipy.optimize.milp: of time or of branches


@dataclass(frozen=True, kw_only=True)
class ExactPlan:
    """What the solver found.

    Attributes:
        plan: the best placement found, with the exchange of needed KV.
        traffic_tokens: the most tokens that one of its ranks sends or receives.
        bound_tokens: what no placement on this grid and with this balance is below.
        proven: whether the two are the same.
    """

    plan: Plan
    traffic_tokens: int
    bound_tokens: float
    proven: bool


def exact_plan(
    lengths: "ArrayLike",
    cp: int,
    *,
    grid_tokens: int,
    imbalance: float = 1.02,
    spare_tokens: int = 0,
    time_limit_s: float | None = 60.0,
    node_limit: int | None = None,
) -> ExactPlan:
    """Find the placement with the least traffic among those with equal tokens and balanced work.

    Args:
        lengths: tokens of each packed document, whole numbers [documents], each at least 1.
        cp: CP degree, at least 2.
        grid_tokens: cuts are at multiples of so many tokens.
        imbalance: largest rank's work over the mean, at most; at least 1.
        spare_tokens: by how many a rank's tokens may be off equal shares, which a coarse grid can
            rarely make exactly. With 0 the plan can be executed.
        time_limit_s: when to stop proving and return the best found; None never stops.
        node_limit: branches after which to stop, the same on every machine; None never stops.

    Returns:
        The plan and how close to the least it is proven to be. A limit in seconds makes it depend
        on the machine, unless proven.

    Raises:
        PlanError: wrong arguments, too many blocks, no such placement, no time to find one, or
            scipy is missing.
    """
    checked = check_lengths(lengths)
    check_cp(cp)
    if grid_tokens < 1 or not imbalance >= 1:
        raise PlanError(f"a grid of {grid_tokens} tokens or an imbalance of {imbalance} is below 1")
    blocks = _blocks(checked, grid_tokens)
    cells = len(blocks) * cp * cp
    if cp < 2 or cells > MOST_CELLS:
        raise PlanError(
            f"{len(blocks)} blocks on {cp} ranks are {cells} cells, not in 1..{MOST_CELLS} with at "
            "least 2 ranks; take a coarser grid, a smaller pack or fewer ranks"
        )
    if spare_tokens < 0:
        raise PlanError(f"{spare_tokens} spare tokens are below 0")
    limits = {"time_limit": time_limit_s, "node_limit": node_limit}
    result = _solve(blocks, cp, imbalance, spare_tokens, limits)
    if result.x is None:
        why = "ran out of time" if result.status == _LIMIT_REACHED else "no placement exists"
        raise PlanError(
            f"no plan on a grid of {grid_tokens} tokens with an imbalance up to {imbalance}: {why};"
            " take a finer grid, more imbalance or more time"
        )
    owner = result.x[: len(blocks) * cp].reshape(len(blocks), cp).argmax(axis=1)
    plan = _plan(checked, cp, blocks, owner)
    sent, received = plan.needed_tokens
    traffic = int(max(sent.max(), received.max()))
    bound = traffic if result.status == 0 else float(result.mip_dual_bound)
    return ExactPlan(
        plan=plan, traffic_tokens=traffic, bound_tokens=bound, proven=result.status == 0
    )


def require_solver() -> None:
    """Refuse to begin where the solver is not installed.

    Raises:
        PlanError: names the extra that installs it.
    """
    if find_spec("scipy") is None:
        raise PlanError("exact plans need scipy; install it with: pip install 'flashcp[exact]'")


def _blocks(lengths: "NDArray[np.int32]", grid: int) -> "NDArray[np.int64]":
    """Return (document, start, stop) of every block, [blocks, 3]."""
    rows = [
        (document, start, min(start + grid, length))
        for document, length in enumerate(lengths.tolist())
        for start in range(0, length, grid)
    ]
    return np.array(rows, dtype=np.int64)


def _solve(
    blocks: "NDArray[np.int64]",
    cp: int,
    imbalance: float,
    spare_tokens: int,
    limits: dict[str, float | None],
) -> Any:
    """Set up the program of the module's docstring and solve it; returns scipy's result."""
    require_solver()
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - optional
    from scipy.sparse import coo_array  # noqa: PLC0415

    document, start, stop = blocks.T
    tokens = (stop - start).astype(float)
    work = tokens * (start + stop + 1) / 2
    count = len(blocks)
    x = np.arange(count * cp).reshape(count, cp)
    y = x + x.size
    z = 2 * x.size + np.arange(count * cp * cp).reshape(count, cp, cp)
    most = 2 * x.size + z.size
    rows = _Rows()
    for b in range(count):
        rows.add([(x[b, r], 1.0) for r in range(cp)], 1.0, 1.0)
    share = tokens.sum() / cp
    for r in range(cp):
        held = [(x[b, r], tokens[b]) for b in range(count)]
        rows.add(held, np.floor(share) - spare_tokens, np.ceil(share) + spare_tokens)
        limit = imbalance * work.sum() / cp
        rows.add([(x[b, r], work[b] / limit) for b in range(count)], 0.0, 1.0)
        received = [(y[b, r], tokens[b]) for b in range(count)]
        received += [(x[b, r], -tokens[b]) for b in range(count)]
        rows.add([*received, (most, -1.0)], -np.inf, 0.0)
        sent = [(z[b, r, q], tokens[b]) for b in range(count) for q in range(cp) if q != r]
        rows.add([*sent, (most, -1.0)], -np.inf, 0.0)
        for b in range(count):
            rows.add([(y[b, r], 1.0), (x[b, r], -1.0)], 0.0, np.inf)
            if b + 1 < count and document[b + 1] == document[b]:
                rows.add([(y[b, r], 1.0), (y[b + 1, r], -1.0)], 0.0, np.inf)
            for q in range(cp):
                if q != r:
                    terms = [(z[b, r, q], 1.0), (x[b, r], -1.0), (y[b, q], -1.0)]
                    rows.add(terms, -1.0, np.inf)
    upper = np.ones(most + 1)
    upper[most] = np.inf
    for b in range(min(count, cp)):
        upper[x[b, b + 1 :]] = 0.0
    cost = np.zeros(most + 1)
    cost[most] = 1.0
    integrality = np.zeros(most + 1)
    integrality[: x.size] = 1
    matrix = coo_array(
        (rows.values, (rows.rows, rows.columns)), shape=(len(rows.lower), most + 1)
    ).tocsr()
    return milp(
        cost,
        constraints=LinearConstraint(matrix, rows.lower, rows.upper),
        bounds=Bounds(np.zeros(most + 1), upper),
        integrality=integrality,
        options={key: limit for key, limit in limits.items() if limit is not None}
        | {"mip_rel_gap": 0.0},
    )


class _Rows:
    """A sparse matrix with bounds, row by row."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.columns: list[int] = []
        self.values: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []

    def add(self, terms: list[tuple[int, float]], lower: float, upper: float) -> None:
        """Add lower <= sum of coefficient * column <= upper; terms are (column, coefficient)."""
        row = len(self.lower)
        for column, coefficient in terms:
            self.rows.append(row)
            self.columns.append(int(column))
            self.values.append(float(coefficient))
        self.lower.append(lower)
        self.upper.append(upper)


def _plan(
    lengths: "NDArray[np.int32]", cp: int, blocks: "NDArray[np.int64]", owner: "NDArray[np.intp]"
) -> Plan:
    """Join each rank's touching blocks into shards."""
    order = np.lexsort((blocks[:, 1], blocks[:, 0], owner))
    rows: list[list[int]] = []
    for b in order.tolist():
        rank, (document, start, stop) = int(owner[b]), blocks[b].tolist()
        if rows and rows[-1][:2] == [rank, document] and rows[-1][3] == start:
            rows[-1][3] = stop
        else:
            rows.append([rank, document, start, stop])
    rank, document, start, stop = np.ascontiguousarray(np.array(rows, dtype=np.int32).T)
    return Plan(
        lengths=lengths,
        cp=cp,
        document=document,
        rank=rank,
        start=start,
        stop=stop,
        exchange=Exchange.ALL_TO_ALL_NEEDED,
        strategy="exact",
    )
