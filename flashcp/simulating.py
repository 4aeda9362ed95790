"""Simulates every combination of settings on one trace or several: the library's entrance.

What `flashcp simulate` does, without its command line. `flashcp.simulation` holds the pieces, for
other engines than this machine's processes or for sweeps built by hand.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashcp.strategies import NAMES

if TYPE_CHECKING:
    from costmodel.model_shape import ModelShape
    from costmodel.profile import Profile
    from flashcp.simulation.run import Simulated
    from flashcp.simulation.what_if import WhatIf
    from traces.trace import Trace


def simulate(
    traces: "Trace | str | Sequence[Trace | str]",
    context_tokens: int | Sequence[int] = 131072,
    cp: int | Sequence[int] = 8,
    strategies: str | Sequence[str] = NAMES,
    *,
    hardware: "Profile | str | Sequence[Profile | str]" = "h100-sxm",
    models: "ModelShape | str | Sequence[ModelShape | str]" = "llama3-8b",
    pack_by: str | Sequence[str] = "concat",
    tensor_parallel: int | Sequence[int] = 1,
    what_ifs: "WhatIf | Sequence[WhatIf] | None" = None,
    packs: int | None = 200,
    out: str | Path | None = None,
    processes: int | None = None,
    **others: Any,
) -> "Simulated":
    """Plan and predict the same packs under every combination of the values given.

        found = flashcp.simulate("papers", cp=[4, 8], strategies=["per-seq", "auto"])
        for row in found.summary():  # best first
            print(row.configuration.cp, row.strategy, row.speedup.value, row.reason)

    Each argument but the last four takes one value or several. Processes are started afresh, so a
    script must guard its top level by `if __name__ == "__main__"`, or use `processes=1`.

    Args:
        traces: traces, or what `flashcp.load_trace` takes.
        context_tokens: windows.
        cp: CP degrees, 1 to 1,024.
        strategies: names; all by default.
        hardware: profiles, or what `flashcp.load_profile` takes.
        models: shapes, or what `flashcp.load_model` takes.
        pack_by: packers; see `flashcp.pack`.
        tensor_parallel: ranks that share each layer's heads and weights.
        what_ifs: changes to links, kernels, copies, exchange or overlap, as
            `flashcp.WhatIf(overlap="off")`; None for none.
        packs: of each trace and window; None for all.
        out: a Parquet file to keep every pack's row in; an interrupted simulation goes on from it.
        processes: on this machine; one a usable core by default.
        others: `ranks_per_node`, `seed`, `replicas`, `plan_effort`, `balance`; see
            `flashcp.simulation.sweep.Sweep`.

    Returns:
        The rows of all packs, and by `summary` those of configurations and strategies.

    Raises:
        PlanError: an axis without values or with one twice, values that contradict one another, or
            `out` holds another simulation's results.
        TraceError: a trace is not there, or too short for the packs.
        ProfileError: hardware or a model is unknown, or cannot span the ranks asked for.
        OSError: a full disk, or a process that was killed again and again; what is done is kept.
    """
    # A sweep needs far more than the names that importing this module is for.
    from costmodel.model_shape import load_model  # noqa: PLC0415
    from costmodel.profile_file import load_profile  # noqa: PLC0415
    from flashcp.simulation.engines import LocalEngine  # noqa: PLC0415
    from flashcp.simulation.run import simulate as run  # noqa: PLC0415
    from flashcp.simulation.sweep import Sweep  # noqa: PLC0415
    from flashcp.simulation.what_if import WhatIf  # noqa: PLC0415
    from traces.loading import load  # noqa: PLC0415

    sweep = Sweep(
        traces=[load(t) if isinstance(t, str) else t for t in _several(traces)],
        context_tokens=_several(context_tokens),
        cp=_several(cp),
        strategies=_several(strategies),
        profiles=[load_profile(h) if isinstance(h, str) else h for h in _several(hardware)],
        models=[load_model(m) if isinstance(m, str) else m for m in _several(models)],
        pack_by=_several(pack_by),
        tensor_parallel=_several(tensor_parallel),
        what_ifs=_several(WhatIf() if what_ifs is None else what_ifs),
        packs=packs,
        **others,
    )
    return run(sweep, None if out is None else Path(out), engine=LocalEngine(processes))


def _several(values: Any) -> list[Any]:
    if isinstance(values, Sequence) and not isinstance(values, str):
        return list(values)
    return [values]
