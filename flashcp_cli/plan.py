"""`flashcp plan`: shard a trace's packs with every strategy and compare what they cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import CommaList, Name, PathNamed, Size, echo_json, json_option
from flashcp_cli.setting_options import load_model_with, search_options, setting_options
from flashcp_cli.trace_options import TraceSource, trace_options

if TYPE_CHECKING:
    from flashcp.comparison import Comparison
    from flashcp.plans import Plan
    from flashcp.prediction import Setting
    from traces.packing import Packing
    from traces.trace import Trace

# As in flashcp.strategies and traces.packing, which -h must not import; a test holds them equal.
STRATEGIES = ("ring", "zigzag", "per-seq", "per-doc", "flashcp", "auto")
PACKERS = ("concat", "truncate", "best-fit", "balanced")


@click.command()
@trace_options
@click.option(
    "--cp",
    type=Size(most=1024),
    default=8,
    show_default=True,
    help="CP degree: ranks that share a pack.",
)
@click.option(
    "--context",
    type=Size(most=2**28),
    default="128k",
    show_default=True,
    help="Context window, in tokens.",
)
@click.option(
    "--pack-by",
    type=Name(PACKERS),
    default="concat",
    show_default=True,
    help="How documents fill windows.",
)
@click.option("--packs", type=Size(), help="Plan only so many packs (all otherwise).")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Draws and shuffles the documents."
)
@click.option("--corpus-order", is_flag=True, help="Pack documents as they come, unshuffled.")
@click.option(
    "--strategy",
    type=Name(STRATEGIES),
    default="auto",
    show_default=True,
    help="The strategy that --out saves and the picture shows.",
)
@click.option(
    "--compare",
    type=CommaList(Name(STRATEGIES)),
    help="Strategies to set beside it (all otherwise).",
)
@setting_options()
@click.option("--out", type=PathNamed(dir_okay=False), help="Save the strategy's plans here.")
@click.option(
    "--timeline",
    type=PathNamed(dir_okay=False),
    help="Save the pictured pack's predicted timeline here, for Perfetto.",
)
@click.option(
    "--picture",
    type=Size(least=0),
    default=0,
    show_default=True,
    help="The pack to draw, from 0.",
)
@click.option(
    "--gap",
    is_flag=True,
    help="Show how far each plan is from the bounds on time and traffic, and on a few small packs "
    "from the exact least.",
)
@click.option("--processes", type=Size(most=1024), help="Processes to use (one a core otherwise).")
@json_option
def plan(source: TraceSource, as_json: bool, **options: Any) -> None:
    """Shard the packs of TRACE with every strategy, and compare balance, traffic and time.

    TRACE is a file of document lengths, a bundled trace, a generator or a mixture: see
    flashcp trace -h.

    \b
    flashcp plan papers --cp 8
    flashcp plan lengths.parquet --context 64k --model llama3-70b --out plan.parquet
    flashcp plan wlb-llm --cp 16 --ranks-per-node 8 --json
    flashcp plan papers --cp 4 --context 16k --packs 20 --gap
    """  # noqa: D301 - \b tells click to keep the lines
    from functools import partial

    from flashcp.comparison import compare, usable_cores
    from flashcp.strategies import check_cp
    from flashcp_cli.outputs import check_outputs
    from flashcp_cli.plan_memory import largest_bytes
    from flashcp_cli.progress import over_packs
    from flashcp_cli.summary import summarise

    check_cp(options["cp"])
    check_outputs(
        {"--out": options["out"], "--timeline": options["timeline"]},
        [*source.inputs(), options["model"], options["hardware"]],
    )
    if options["gap"]:
        from flashcp.exact import require_solver

        require_solver()
    setting = _setting(options)
    names = _strategies(options["compare"], options["strategy"])
    trace = source.load(seed=options["seed"])
    packing = _pack(trace, options)
    if options["picture"] >= len(packing):
        raise click.BadParameter(
            f"{options['picture']} is no pack; there are {len(packing)}, from 0",
            param_hint="--picture",
        )
    with over_packs(len(packing), hidden=as_json) as progress:
        comparison = compare(
            packing,
            options["cp"],
            names,
            setting,
            **search_options(options),
            inspect={options["strategy"]: partial(largest_bytes, model=setting.model)},
            keep=options["strategy"] if options["out"] else None,
            processes=options["processes"] or usable_cores(),
            progress=progress,
        )
    if options["out"]:
        _save(options, trace, packing, comparison, setting)
    pictured = {name: _pictured(packing, options, name, setting) for name in names}
    chosen = pictured[options["strategy"]]
    if options["timeline"]:
        _save_timeline(options["timeline"], chosen, setting)
    summary = summarise(trace, packing, comparison, setting, options, pictured)
    if options["gap"]:
        from flashcp_cli.gap_summary import summarise_gaps

        summary["gap"] = summarise_gaps(packing, comparison, options["cp"], hidden=as_json)
    if as_json:
        echo_json(summary)
    else:
        from flashcp_cli.plan_view import print_summary

        print_summary(summary, chosen, options["picture"])


def _setting(options: dict[str, Any]) -> "Setting":
    from costmodel.profile_file import load_profile
    from flashcp.prediction import Setting

    setting = Setting(
        profile=load_profile(options["hardware"]),
        model=load_model_with(
            options["model"], options["q_heads"], options["kv_heads"], options["head_dim"]
        ),
        ranks_per_node=options["ranks_per_node"],
        copies=options["copies"],
    )
    # Refuses ranks per node that do not divide the CP degree before any work is done.
    setting.profile.network.per_node(options["cp"], options["ranks_per_node"])
    return setting


def _strategies(compared: tuple[str, ...] | None, chosen: str) -> list[str]:
    wanted = STRATEGIES if compared is None else (*compared, chosen)
    return [name for name in STRATEGIES if name in wanted]


def _pack(trace: "Trace", options: dict[str, Any]) -> "Packing":
    from traces import pack

    return pack(
        trace,
        options["context"],
        by=options["pack_by"],
        packs=options["packs"],
        seed=None if options["corpus_order"] else options["seed"],
    )


def _pictured(
    packing: "Packing", options: dict[str, Any], strategy: str, setting: "Setting"
) -> "Plan":
    from flashcp.planning import plan as make_plan

    lengths = packing.document_lengths(options["picture"])
    return make_plan(lengths, options["cp"], strategy, setting, **search_options(options))


def _save(
    options: dict[str, Any],
    trace: "Trace",
    packing: "Packing",
    comparison: "Comparison",
    setting: "Setting",
) -> None:
    from importlib.metadata import version

    from flashcp.plan_file import Header, plan_file, save_plans

    header = Header(
        strategy=options["strategy"],
        cp=options["cp"],
        context_tokens=options["context"],
        model=setting.model.to_json(),
        hardware=setting.profile.name,
        trace=trace.name,
        trace_fingerprint=trace.fingerprint,
        program_version=version("flashcp"),
    )
    save_plans(options["out"], plan_file(header, comparison.plans, packing))


def _save_timeline(path: Path, pictured: "Plan", setting: "Setting") -> None:
    import json

    from flashcp.prediction import predict
    from groundwork.atomic import replace_whole

    timeline = predict(pictured, setting).timeline
    with replace_whole(path) as temporary:
        temporary.write_text(json.dumps(timeline.chrome_trace()))
