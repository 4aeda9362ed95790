"""`flashcp simulate`: the product of all settings over the same packs, best first, with reasons."""

from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import CommaList, Name, Number, PathNamed, Size, echo_json, json_option
from flashcp_cli.plan import PACKERS, STRATEGIES
from flashcp_cli.setting_options import Names, load_models_with, load_profiles, setting_options
from flashcp_cli.trace_options import TraceSource, traces_options

if TYPE_CHECKING:
    from flashcp.simulation.engines import Engine
    from flashcp.simulation.summary import Row
    from flashcp.simulation.sweep import Sweep

# As in flashcp.simulation, which -h must not import; a test holds them equal.
EXCHANGES = ("own", "all-gather", "non-last", "needed")
OVERLAPS = ("own", "on", "off")
RECOMPUTE = ("none", "mlp", "full")
_FACTORS = CommaList(click.FLOAT)
_FILE = PathNamed(dir_okay=False)


@click.command()
@traces_options
@click.option(
    "--cp",
    type=CommaList(Size(most=1024)),
    default="8",
    show_default=True,
    help="CP degrees: ranks that share a pack.",
)
@click.option(
    "--context",
    type=CommaList(Size(most=2**28)),
    default="128k",
    show_default=True,
    help="Context windows, in tokens.",
)
@click.option(
    "--strategy",
    type=Names((*STRATEGIES, "all")),
    default="all",
    show_default=True,
    help="Strategies to compare.",
)
@click.option(
    "--pack-by",
    type=Names(PACKERS),
    default="concat",
    show_default=True,
    help="How documents fill windows.",
)
@click.option(
    "--packs",
    type=Size(),
    default="200",
    show_default=True,
    help="Packs to sample of each trace and window, the same for all settings.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Draws and shuffles the documents."
)
@click.option("--corpus-order", is_flag=True, help="Pack documents as they come, unshuffled.")
@setting_options(lists=True)
@click.option(
    "--tensor-parallel",
    type=CommaList(Size(most=64)),
    default="1",
    show_default=True,
    help="Ranks that share each layer's heads and weights.",
)
@click.option(
    "--link-bandwidth",
    type=_FACTORS,
    default="1",
    show_default=True,
    metavar="FACTOR,...",
    help="What if links carried so many times as much?",
)
@click.option(
    "--link-latency",
    type=_FACTORS,
    default="1",
    show_default=True,
    metavar="FACTOR,...",
    help="What if links answered so many times as late?",
)
@click.option(
    "--kernel-speed",
    type=_FACTORS,
    default="1",
    show_default=True,
    metavar="FACTOR,...",
    help="What if attention kernels were so many times as fast?",
)
@click.option(
    "--exchange",
    type=Names(EXCHANGES),
    default="own",
    show_default=True,
    help="Exchange everything, what is not last, or what is needed, in all but rings.",
)
@click.option(
    "--overlap",
    type=Names(OVERLAPS),
    default="own",
    show_default=True,
    help="Attend to what is local while the exchange runs, in all but rings.",
)
@click.option(
    "--replicas",
    type=Size(most=2**16),
    default=1,
    show_default=True,
    help="Data-parallel replicas; a step waits for the slowest pack.",
)
@click.option(
    "--recompute",
    type=Name(RECOMPUTE),
    default="full",
    show_default=True,
    help="What backward computes again: nothing, all but attention, or all.",
)
@click.option(
    "--state-sharding",
    type=Name(("full", "optimizer")),
    default="full",
    show_default=True,
    help="What of the model's state is spread over all ranks.",
)
@click.option(
    "--memory-gb",
    type=Number(least=1e-3, most=1e6),
    help="Memory of a GPU in GB, instead of its data sheet's.",
)
@click.option(
    "--out",
    type=_FILE,
    help="Keep every pack's row here (Parquet); an interrupted "
    "simulation goes on from what is there.",
)
@click.option("--html", type=_FILE, help="Write a report as one page that works offline.")
@click.option(
    "--plots",
    type=PathNamed(file_okay=False),
    help="Write the report's plots into this folder, as SVG and PNG.",
)
@click.option(
    "--timeline",
    type=_FILE,
    help="Save the best configuration's timeline of the pictured pack, for Perfetto.",
)
@click.option(
    "--picture",
    type=CommaList(Size(least=0)),
    default="0",
    show_default=True,
    help="The packs that the report and the timeline show, from 0.",
)
@click.option("--rows", type=Size(), default=24, show_default=True, help="Rows to print.")
@click.option("--processes", type=Size(most=1024), help="Processes to use (one a core otherwise).")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Run on a Dask cluster, given by its scheduler's address (host:port), instead.",
)
@json_option
def simulate(sources: list[TraceSource], as_json: bool, **options: Any) -> None:
    """Say what a cluster would do with TRACE: which settings are best, and why.

    Every option with ,... takes a list; all combinations are planned and predicted on the same
    packs. Speed-ups are given for attention, a layer and a training step, with 95% intervals over
    packs. TRACE is a file of document lengths, a bundled trace, a generator or a mixture: see
    flashcp trace -h.

    \b
    flashcp simulate papers code --cp 2,4,8,16 --context 64k,128k --out sweep.parquet
    flashcp simulate papers --exchange own,all-gather --overlap own,off --copies published,in-place
    flashcp simulate lengths.parquet --cp 8,16 --link-bandwidth 0.5,1 --html report.html
    """  # noqa: D301 - \b tells click to keep the lines
    from flashcp.simulation.capacity import capacities, require_fit
    from flashcp.simulation.run import simulate as run
    from flashcp.simulation.step import StepModel
    from flashcp.simulation.summary import summarise

    _check_outputs(sources, options)
    sweep = _sweep(sources, options)
    step = StepModel(
        recompute=options["recompute"],
        replicas=options["replicas"],
        state_sharding=options["state_sharding"],
    )
    capacity = capacities(sweep, options["memory_gb"])
    require_fit(sweep, step, capacity)
    with _progress(hidden=as_json) as begin:
        simulated = run(sweep, options["out"], engine=_engine(options), begin=begin)
    rows = summarise(simulated, step, capacity)
    _check_pictures(options["picture"], simulated.packings[rows[0].configuration.packing])
    if options["timeline"]:
        _save_timeline(options, sweep, rows[0], simulated.packings)
    if options["html"] or options["plots"]:
        from flashcp_cli.report.page import save_report

        save_report(simulated, rows, step, options["picture"], options["html"], options["plots"])
    if as_json:
        echo_json(_document(sweep, step, rows, options))
    else:
        from flashcp_cli.simulate_view import print_rows

        print_rows(sweep, rows, step, options)


def _sweep(sources: list[TraceSource], options: dict[str, Any]) -> "Sweep":
    from itertools import product

    from flashcp.simulation.sweep import Sweep
    from flashcp.simulation.what_if import WhatIf

    names = options["strategy"]
    if "all" in names and len(names) > 1:
        raise click.BadParameter("all stands alone; it holds the others", param_hint="--strategy")
    axes = ("link_bandwidth", "link_latency", "kernel_speed", "copies", "exchange", "overlap")
    return Sweep(
        traces=[source.load(seed=options["seed"]) for source in sources],
        context_tokens=options["context"],
        cp=options["cp"],
        strategies=STRATEGIES if "all" in names else names,
        profiles=load_profiles(options["hardware"]),
        models=load_models_with(options),
        pack_by=options["pack_by"],
        tensor_parallel=options["tensor_parallel"],
        what_ifs=[
            WhatIf(**dict(zip(axes, values, strict=True)))
            for values in product(*(options[axis] for axis in axes))
        ],
        ranks_per_node=options["ranks_per_node"],
        packs=options["packs"],
        seed=None if options["corpus_order"] else options["seed"],
        replicas=options["replicas"],
        plan_effort=options["plan_effort"],
        balance=options["balance"],
    )


def _engine(options: dict[str, Any]) -> "Engine":
    if options["cluster"] is None:
        from flashcp.simulation.engines import LocalEngine

        return LocalEngine(options["processes"])
    if options["processes"]:
        raise click.UsageError("--processes is for this machine; a cluster has its own workers")
    from flashcp.simulation.dask_engine import DaskEngine

    return DaskEngine(options["cluster"])


def _progress(*, hidden: bool) -> Any:
    from flashcp_cli.progress import counted

    return counted("packs", hidden=hidden)


def _check_outputs(sources: list[TraceSource], options: dict[str, Any]) -> None:
    """Refuse what cannot be written or drawn before minutes of work go into it."""
    from flashcp_cli.outputs import check_folder, check_outputs

    check_outputs(
        {f"--{name}": options[name] for name in ("out", "html", "timeline")},
        [
            *(path for source in sources for path in source.inputs()),
            *options["model"],
            *options["hardware"],
        ],
    )
    check_folder("--plots", options["plots"])
    if options["out"] is not None:  # blocks are kept there until all are done
        check_folder("--out", options["out"].with_name(f"{options['out'].name}.partial"))
    if options["html"] or options["plots"]:
        from flashcp_cli.report.library import require_library

        require_library()
    _check_pictures(options["picture"], range(options["packs"]))


def _check_pictures(indexes: tuple[int, ...], packing: Any) -> None:
    for index in indexes:
        if index >= len(packing):
            raise click.BadParameter(
                f"{index} is no pack; there are {len(packing)}, from 0", param_hint="--picture"
            )


def _save_timeline(options: dict[str, Any], sweep: "Sweep", best: "Row", packings: Any) -> None:
    import json

    from flashcp.prediction import predict
    from flashcp.simulation.switched import switched_plan
    from groundwork.atomic import replace_whole

    configuration = best.configuration
    setting = sweep.setting(configuration)
    lengths = packings[configuration.packing].document_lengths(options["picture"][0])
    made = switched_plan(
        lengths,
        configuration.cp,
        best.strategy,
        setting,
        sweep.what_if(configuration),
        sweep.plan_effort,
        sweep.balance,
    )
    with replace_whole(options["timeline"]) as temporary:
        temporary.write_text(json.dumps(predict(made, setting).timeline.chrome_trace()))


def _document(
    sweep: "Sweep", step: Any, rows: "list[Row]", options: dict[str, Any]
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "sweep": sweep.to_json(),
        "step": asdict(step),
        "configurations": len(sweep.configurations),
        "rows": [row.to_json() for row in rows],
        "out": None if options["out"] is None else str(options["out"]),
    }
