"""Puts the report together: words, the table, plots and their data, and the library that draws."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashcp_cli.report import charts, data, packs
from flashcp_cli.report.library import draw, script
from flashcp_cli.report.words import glossary, notes, verdict
from flashcp_cli.simulate_labels import (
    ACROSS,
    across_nodes,
    constants,
    extent,
    label,
    size,
    varying,
)
from groundwork.atomic import replace_whole

if TYPE_CHECKING:
    from flashcp.simulation.run import Simulated
    from flashcp.simulation.step import StepModel
    from flashcp.simulation.summary import Row

_EXPORT_WIDTH = 640
_LIGHT = {"background": "white", "font": "sans-serif", "view": {"stroke": None},
          "legend": {"orient": "top", "columns": 3}}  # fmt: skip


def save_report(
    simulated: "Simulated",
    rows: "list[Row]",
    step: "StepModel",
    pictured: tuple[int, ...],
    html: Path | None,
    plots: Path | None,
) -> None:
    """Write the page and the plots.

    Args:
        simulated: the sweep and its rows.
        rows: the summary, best first.
        step: how the model is trained.
        pictured: the packs to show of the best configuration.
        html: the page's path; None for no page.
        plots: the folder of SVG and PNG files, which is made; None for none.
    """
    specs = _charts(simulated, rows, pictured)
    if plots is not None:
        _save_plots(specs, simulated, rows, pictured, plots)
    if html is not None:
        text = _page(specs, simulated, rows, step, pictured)
        with replace_whole(html) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _charts(
    simulated: "Simulated", rows: "list[Row]", pictured: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    sweep, best = simulated.sweep, rows[0].configuration
    names = list(sweep.strategies)
    ranks = min(best.cp, packs.MOST_RANKS)
    pictures = packs.pack_pictures(simulated, best, pictured)
    spread = data.distributions(simulated)
    faster = data.speedups(rows, sweep)
    found = {}
    if len(sweep.cp) > 1:
        found["across_cp"] = charts.across(faster, names, "cp", rows[0].baseline)
    if len(sweep.context_tokens) > 1:
        found["across_window"] = charts.across(faster, names, "window", rows[0].baseline)
    return found | {
        "breakdown": charts.breakdown(data.breakdown(rows, sweep), names),
        "imbalance": charts.distribution(
            spread, names, "imbalance", "largest rank's work over the mean"
        ),
        "moved": charts.distribution(spread, names, "moved", "share of a full all-gather"),
        "shards": charts.shards(pictures["shards"], ranks),
        "matrix": charts.matrix(pictures["matrix"], ranks),
        "timeline": charts.timeline(pictures["timeline"], ranks),
    }


def _page(
    specs: dict[str, dict[str, Any]],
    simulated: "Simulated",
    rows: "list[Row]",
    step: "StepModel",
    pictured: tuple[int, ...],
) -> str:
    from jinja2 import Environment

    sweep, best = simulated.sweep, rows[0]
    folder = Path(__file__).parent
    environment = Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    columns, table = _table(simulated, rows)
    groups = [
        {
            "across_cp": data.without(c, "cp", "ranks_per_node"),
            "across_window": data.without(c, "context_tokens"),
        }
        for c in sweep.configurations
    ]
    axes = varying(sweep)
    name = data.configuration_name(sweep, best.configuration)
    return template.render(
        title=f"Context parallelism on {', '.join(trace.name for trace in sweep.traces)}",
        subtitle=f"{extent(sweep, rows)}: {constants(sweep)}",
        verdict=verdict(rows, sweep),
        notes=notes(rows, step),
        columns=columns,
        table=table,
        cells=[data.configuration_name(sweep, c) for c in sweep.configurations],
        best_cell=sweep.configurations.index(best.configuration),
        best_name=f" ({name})" if axes else "",
        best_strategy=best.strategy,
        kinds=["attention", *(["layer", "training step"] if best.step_us else [])],
        charts=list(specs),
        packs=pictured,
        strategies=sweep.strategies,
        ranks=min(best.configuration.cp, packs.MOST_RANKS),
        all_ranks=best.configuration.cp,
        glossary=glossary(best.baseline),
        command="Made by flashcp simulate. Predictions, not measurements: see docs/predictions.md.",
        css=_raw((folder / "page.css").read_text(encoding="utf-8")),
        js=_raw((folder / "page.js").read_text(encoding="utf-8")),
        library=_raw(script()),
        data=_raw(_json({"charts": specs, "groups": groups})),
    )


def _table(simulated: "Simulated", rows: "list[Row]") -> tuple[list[str], list[dict[str, Any]]]:
    axes = varying(simulated.sweep)
    stepped = rows[0].step_us is not None
    spans_nodes = any(row.spans_nodes for row in rows)
    columns = [
        "#", *(label(axis) for axis in axes), "strategy", "ms a layer", "attention", "± 95%",
        *(("layer", "step", "± 95% step") if stepped else ()),
        "imbalance", "worst", "KV moved",
        *(("across nodes", "a rank") if spans_nodes else ()),
        *(("memory GB",) if stepped else ()),
        "tokens/s a GPU", "why",
    ]  # fmt: skip
    table = []
    for place, row in enumerate(rows, 1):
        cells = [_cell(place, str(place))]
        for axis in axes:
            value = getattr(row.configuration, axis)
            cells.append(_cell(value, size(axis, value)))
        cells += [
            _cell(row.strategy, row.strategy),
            _cell(row.total_us.value, f"{row.total_us.value / 1000:.2f}"),
            _cell(row.speedup.value, f"{row.speedup.value:.2f}x"),
            _cell(row.speedup.high - row.speedup.value,
                  f"{row.speedup.high - row.speedup.value:.2f}"),
        ]  # fmt: skip
        if row.layer_speedup and row.step_speedup:
            half = row.step_speedup.high - row.step_speedup.value
            cells += [
                _cell(row.layer_speedup.value, f"{row.layer_speedup.value:.2f}x"),
                _cell(row.step_speedup.value, f"{row.step_speedup.value:.2f}x"),
                _cell(half, f"{half:.2f}"),
            ]
        cells += [
            _cell(row.imbalance.value, f"{row.imbalance.value:.3f}"),
            _cell(row.worst_imbalance, f"{row.worst_imbalance:.3f}"),
            _cell(row.means["moved_share"], f"{row.means['moved_share']:.1%}"),
        ]
        if spans_nodes:
            cells += [_cell(row.means[name], across_nodes(row, name)) for name in ACROSS]
        if row.memory:
            gb = row.memory.total_bytes / 1e9
            cells.append(_cell(gb, f"{gb:.0f}{' (does not fit)' if row.fits is False else ''}"))
        cells += [
            _cell(row.tokens_per_s_gpu, f"{row.tokens_per_s_gpu:,.0f}"),
            _cell(row.reason, row.reason),
        ]
        table.append({"unfit": row.fits is False, "cells": cells})
    return columns, table


def _cell(value: Any, text: str) -> dict[str, Any]:
    return {"value": value, "text": text}


def _save_plots(
    specs: dict[str, dict[str, Any]],
    simulated: "Simulated",
    rows: "list[Row]",
    pictured: tuple[int, ...],
    folder: Path,
) -> None:
    """Draw each plot of the best configuration, strategy and first pack."""
    folder.mkdir(exist_ok=True)
    best = rows[0].configuration
    chosen = {
        "cell": simulated.sweep.configurations.index(best),
        "pack": pictured[0],
        "strategy": rows[0].strategy,
        "kind": "attention",
    }
    groups = {
        "across_cp": data.without(best, "cp", "ranks_per_node"),
        "across_window": data.without(best, "context_tokens"),
    }
    for name, spec in specs.items():
        values = chosen | {"group": groups.get(name, "")}
        params = [param | {"value": values[param["name"]]} for param in spec["params"]]
        drawn = spec | {"width": _EXPORT_WIDTH, "params": params, "config": _LIGHT}
        for suffix, content in zip(("svg", "png"), draw(drawn), strict=True):
            with replace_whole(folder / f"{name}.{suffix}") as temporary:
                temporary.write_bytes(content)


def _raw(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own files, and JSON that cannot end its element


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
