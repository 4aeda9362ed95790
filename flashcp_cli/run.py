"""`flashcp run`: execute plans for real, verify them, and set measured beside predicted."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flashcp_cli.options import (
    MOST_SECONDS,
    CommaList,
    Name,
    Number,
    PathNamed,
    Size,
    echo_json,
    json_option,
)
from flashcp_cli.outputs import check_outputs
from flashcp_cli.plan import PACKERS, STRATEGIES
from flashcp_cli.setting_options import (
    COPIES,
    DEFAULT_HARDWARE,
    DEFAULT_MODEL,
    search_options,
    setting_options,
    with_heads,
)
from flashcp_cli.torch_needs import require_gpu, require_torch
from flashcp_cli.trace_options import READING, TraceSource, trace_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.model_shape import ModelShape
    from costmodel.profile import Profile
    from executor.job import Job
    from flashcp.plan_file import PlanFile
    from flashcp.plans import Plan
    from flashcp.prediction import Setting

GRADIENTS = ("all-to-all", "reduce-scatter")
DTYPES = ("bfloat16", "float16", "float32", "float64")
# What a command without further words takes: a real window on GPUs, seconds of work on a CPU.
_CONTEXT_TOKENS = {"cuda": 131072, "cpu": 1024}
_REPETITIONS = {"cuda": 20, "cpu": 5}
_CPU_RANKS = 2


@click.command()
@trace_options
@click.option(
    "--nproc",
    type=Size(most=1024),
    help="Ranks, the CP degree (otherwise the plan's, or one a GPU; 2 on a CPU).",
)
@click.option("--emulate", is_flag=True, help="Play all ranks in turn on one device.")
@click.option(
    "--device", type=Name(("cuda", "cpu")), help="Where to run (otherwise GPUs if there are any)."
)
@click.option(
    "--context",
    type=Size(most=2**28),
    help="Context window, in tokens (128k on GPUs, 1k on a CPU otherwise).",
)
@click.option(
    "--pack-by",
    type=Name(PACKERS),
    default="concat",
    show_default=True,
    help="How documents fill windows.",
)
@click.option(
    "--pack", type=Size(least=0), default=0, show_default=True, help="The pack to run, from 0."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws documents and inputs.")
@click.option("--corpus-order", is_flag=True, help="Pack documents as they come, unshuffled.")
@click.option(
    "--strategies",
    type=CommaList(Name(STRATEGIES)),
    help="Strategies to run (a plan file's own, or all, otherwise).",
)
@setting_options(of_plan=True)
@click.option(
    "--dtype", type=Name(DTYPES), help="Precision of the tensors (the profile's otherwise)."
)
@click.option(
    "--copies",
    type=Name(COPIES),
    default="in-place",
    show_default=True,
    help="How per-seq, per-doc and flashcp copy KV: in place, or shard by shard as published.",
)
@click.option(
    "--gradients",
    type=Name(GRADIENTS),
    default="all-to-all",
    show_default=True,
    help="How gradients of all-gathered KV go home: reduce-scatter is in float32.",
)
@click.option("--warmups", type=Size(least=0), default=2, show_default=True, help="Runs first.")
@click.option("--repetitions", type=Size(), help="Timed runs (20 on GPUs, 5 on a CPU otherwise).")
@click.option(
    "--timeout",
    type=Number(least=1, most=MOST_SECONDS),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Seconds without progress after which a rank counts as hung.",
)
@click.option("--no-verify", is_flag=True, help="Time only; check nothing against the oracle.")
@click.option(
    "--results",
    type=PathNamed(dir_okay=False),
    help="Save everything that was found here, as JSON.",
)
@click.option(
    "--timeline",
    type=PathNamed(dir_okay=False),
    help="Save measured beside predicted here, for Perfetto.",
)
@json_option
def run(source: TraceSource, as_json: bool, **options: Any) -> None:
    """Execute the plans of a pack, forward and backward, and hold them against the prediction.

    TRACE is a plan file of flashcp plan --out, or a trace as in flashcp plan. Outputs and gradients
    are checked against attention on one process; a check that fails ends with status 1.

    \b
    flashcp run plan.parquet                             one process a GPU of this node
    flashcp run papers --nproc 2 --device cpu            gloo on this machine's CPU
    flashcp run papers --nproc 8 --emulate               all ranks in turn on one device
    flashcp run papers --copies published                baselines with their published copies
    torchrun --nnodes 2 --nproc-per-node 8 ... --no-python flashcp run plan.parquet
    """  # noqa: D301 - \b tells click to keep the lines
    require_torch("run")
    from executor.errors import RunError
    from executor.picture import chrome_trace
    from executor.report import report

    check_outputs(
        {"--results": options["results"], "--timeline": options["timeline"]},
        [*source.inputs(), options["model"], options["hardware"]],
    )
    job, setting, source_text = _job(source, options)
    if not options["emulate"]:
        from flashcp_cli.crowding import RUN, warn_if_crowded

        warn_if_crowded(job.options.device, job.cp, RUN)
    try:
        results = _execute(job, setting, emulate=options["emulate"])
    except RunError as error:
        raise click.ClickException(str(error)) from error
    if results is None:
        return  # rank 0 of torchrun's reports for all
    document = {"source": source_text, **report(job, results, setting)}
    if options["results"]:
        _save(options["results"], document)
    if options["timeline"]:
        _save(options["timeline"], chrome_trace(job, results, setting))
    if as_json:
        echo_json(document)
    else:
        from flashcp_cli.run_view import print_report

        print_report(document)
    failed = [name for name, one in document["plans"].items() if not one["passed"]]
    if failed:
        click.echo(f"flashcp: verification failed for {', '.join(failed)}", err=True)
        click.get_current_context().exit(1)


def _execute(job: "Job", setting: "Setting", *, emulate: bool) -> dict[str, Any] | None:
    """Run the job: emulated, as one rank of torchrun's, or by starting the ranks ourselves."""
    if emulate:
        from executor.emulated import emulate_job

        return emulate_job(job, setting)
    if _in_torchrun():
        from executor.worker import run_job_in_torchrun

        return run_job_in_torchrun(job)
    from executor.device import shares_gpus, visible_devices
    from executor.launch import launch

    shared = shares_gpus() and visible_devices("cuda")
    if job.options.device == "cuda" and not shared and job.cp > visible_devices("cuda"):
        raise click.UsageError(
            f"{job.cp} ranks need a GPU each and torch sees {visible_devices('cuda')}; take "
            "--emulate, --device cpu, or torchrun for several nodes"
        )
    return launch(job)


def _in_torchrun() -> bool:
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def _job(source: TraceSource, options: dict[str, Any]) -> "tuple[Job, Setting, dict[str, Any]]":
    """Return what to run, what to predict with, and where it came from."""
    from costmodel.profile_file import load_profile
    from executor.device import default_device
    from executor.job import Job, Options
    from flashcp.prediction import Setting

    device = options["device"] or default_device()
    if device == "cuda":
        require_gpu()
    saved = _plan_file(source.name)
    if saved is not None:
        options_of_traces = ("context", "pack_by", "corpus_order", *READING)
        _refuse(options_of_traces, f"for a trace, and {source.name} is a plan file")
    model = _model(options, saved)
    hardware = options["hardware"] or (saved.header.hardware if saved else DEFAULT_HARDWARE)
    profile = load_profile(hardware)
    dtype = options["dtype"] or _default_dtype(profile, model)
    if dtype != "float64":  # which no model is trained in: its predictions are for the model's
        model = replace(model, dtype=dtype)
    setting = Setting(
        profile=profile,
        model=model,
        ranks_per_node=_ranks_per_node(options, saved),
        copies=options["copies"],
    )
    plans, text = _plans(source, saved, options, setting, device)
    setting.profile.network.per_node(plans[0][1].cp, setting.ranks_per_node)
    job = Job(
        names=tuple(name for name, _ in plans),
        plans=tuple(made for _, made in plans),
        model=model,
        options=Options(
            dtype=dtype,
            device=device,
            warmups=options["warmups"],
            repetitions=options["repetitions"] or _REPETITIONS[device],
            seed=options["seed"],
            timeout_s=options["timeout"],
            verify=not options["no_verify"],
            copies=options["copies"],
            gradients=options["gradients"],
        ),
    )
    return job, setting, text


def _default_dtype(profile: "Profile", model: "ModelShape") -> str:
    """Return the precision that the profile was measured in, else the model's."""
    from costmodel.calibrated_conditions import measured_dtype

    dtype = measured_dtype(profile) or model.dtype
    if dtype != model.dtype and os.environ.get("RANK", "0") == "0":
        click.echo(
            f"Runs in {dtype}, as profile {profile.name} was measured; the model's is "
            f"{model.dtype}: --dtype {model.dtype}",
            err=True,
        )
    return dtype


def _plan_file(name: str) -> "PlanFile | None":
    """Return the plans in a file, or None where it is no plan file."""
    path = Path(name)
    if not path.is_file() or path.read_bytes()[:4] != b"PAR1":
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    from flashcp.plan_file import load_plans

    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return None  # which the reader of traces refuses in its own words
    return load_plans(path) if b"flashcp" in metadata else None


def _refuse(options: "Sequence[str]", why: str) -> None:
    """Refuse what a plan file has no use for: ignored, it would seem to have taken effect."""
    context = click.get_current_context()
    for option in options:
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{option.replace('_', '-')} is {why}; leave it out")


def _ranks_per_node(options: dict[str, Any], saved: "PlanFile | None") -> int | None:
    """Return the nodes asked for, else those that the plan to run was made for."""
    asked: int | None = options["ranks_per_node"]
    if saved is None:
        return asked
    _check_pack(options["pack"], len(saved.plans))
    own = saved.plans[options["pack"]].ranks_per_node
    if own is not None and asked not in (None, own):
        raise click.BadParameter(
            f"{asked} is not the {own} ranks per node that the plan was made for; leave it out, or "
            f"plan again with --ranks-per-node {asked}",
            param_hint="--ranks-per-node",
        )
    return own or asked


def _plans(
    source: TraceSource,
    saved: "PlanFile | None",
    options: dict[str, Any],
    setting: "Setting",
    device: str,
) -> "tuple[list[tuple[str, Plan]], dict[str, Any]]":
    """Return the plans to run by name, and a description of their pack."""
    from flashcp.planning import plan

    search = search_options(options)
    if saved is None:
        lengths, text = _pack(source, options, device)
        cp = options["nproc"] or _default_ranks(device)
        wanted = options["strategies"] or STRATEGIES
        return [(name, plan(lengths, cp, name, setting, **search)) for name in wanted], text
    own = saved.plans[options["pack"]]
    if options["nproc"] not in (None, own.cp):
        raise click.BadParameter(
            f"{options['nproc']} ranks cannot run a plan for {own.cp}; plan again with "
            f"--cp {options['nproc']}",
            param_hint="--nproc",
        )
    name = saved.header.strategy
    others = [other for other in options["strategies"] or () if other != name]
    if not others:
        _refuse(("plan_effort", "balance"), f"for plans to make, and {source.name} has them made")
    made = [(other, plan(own.lengths, own.cp, other, setting, **search)) for other in others]
    return [(name, own), *made], {
        "source": source.name,
        "pack": options["pack"],
        "documents": int(own.lengths.size),
        "tokens": own.context_tokens,
    }


def _pack(source: TraceSource, options: dict[str, Any], device: str) -> tuple[Any, dict[str, Any]]:
    """Return the document lengths of the pack asked for, and a description of it."""
    from traces import pack

    trace = source.load(seed=options["seed"])
    packing = pack(
        trace,
        options["context"] or _CONTEXT_TOKENS[device],
        by=options["pack_by"],
        packs=options["pack"] + 1,
        seed=None if options["corpus_order"] else options["seed"],
    )
    _check_pack(options["pack"], len(packing))
    lengths = packing.document_lengths(options["pack"])
    return lengths, {
        "source": trace.name,
        "pack": options["pack"],
        "documents": len(lengths),
        "tokens": int(lengths.sum()),
    }


def _check_pack(index: int, packs: int) -> None:
    if index >= packs:
        raise click.BadParameter(
            f"{index} is no pack; there are {packs}, from 0", param_hint="--pack"
        )


def _default_ranks(device: str) -> int:
    from executor.device import visible_devices

    if _in_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return visible_devices("cuda") if device == "cuda" else _CPU_RANKS


def _model(options: dict[str, Any], saved: "PlanFile | None") -> "ModelShape":
    """Return the model asked for, else the plan's, with the heads asked for."""
    from costmodel.model_shape import ModelShape, load_model

    if options["model"] is None and saved is not None:
        model = ModelShape(**saved.header.model)
    else:
        model = load_model(options["model"] or DEFAULT_MODEL)
    return with_heads(model, options["q_heads"], options["kv_heads"], options["head_dim"])


def _save(path: Path, document: dict[str, Any]) -> None:
    from groundwork.atomic import replace_whole

    with replace_whole(path) as temporary:
        temporary.write_text(json.dumps(document, allow_nan=False))
