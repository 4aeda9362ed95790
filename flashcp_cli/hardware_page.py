"""`flashcp hardware show --html`: one page that works offline, plots as SVG inside it.

Measured points are dots, the model a line (over sizes) or a ring beside each dot (over calls), so
that an error is a distance that one can see.
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashcp_cli.hardware_curves import group_title
from flashcp_cli.report.library import draw
from groundwork.atomic import replace_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.profile import Profile
    from flashcp_cli.hardware_curves import AttentionPoint, CallPoint, CollectivePoint

_WIDTH, _HEIGHT = 400, 240
_CALLS = "GFLOP of the call"
_DOT, _LINE = "#d55e00", "#0072b2"
_CONFIG = {"font": "sans-serif", "background": "white", "view": {"stroke": "#d1d9e0"}}
_STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots figure { margin: 0; background: #fff; border: 1px solid var(--line); padding: .5rem;
                max-width: 100%; overflow-x: auto; }
figcaption { color: #1b1f24; font-weight: 600; font-size: .9rem; }
table { margin: .5rem 0; }
th { text-align: left; padding: .4rem .6rem; }
td:last-child { min-width: 0; }
td.reason { white-space: normal; }
.weak td { color: var(--bad); }
"""


def save_page(
    profile: "Profile",
    attention: "Sequence[AttentionPoint]",
    calls: "Sequence[CallPoint]",
    collectives: "Sequence[CollectivePoint]",
    path: Path,
) -> None:
    """Write the page of a profile, whole or not at all."""
    plots = [("Attention forward over length, one causal sequence", _lengths(attention))]
    for kind in dict.fromkeys((call.direction, call.head_dim) for call in calls):
        chosen = [call for call in calls if (call.direction, call.head_dim) == kind]
        plots.append((f"Measured calls, {kind[0]}, head size {kind[1]}", _calls(chosen)))
    plots += [
        (title, _sizes([point for point in collectives if group_title(point) == title]))
        for title in dict.fromkeys(map(group_title, collectives))
    ]
    css = (Path(__file__).parent / "report" / "page.css").read_text(encoding="utf-8")
    text = _page(profile, plots, css + _STYLE)
    with replace_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _page(profile: "Profile", plots: list[tuple[str, str]], css: str) -> str:
    p = profile.provenance
    facts = {
        "attention kernel": " ".join(
            filter(None, (p.attention_kernel, p.attention_kernel_version))
        ),
        "exchanges": f"NCCL {p.nccl}" if p.nccl else "gloo, or not recorded",
        "launched as": p.launch_mode,
        "driver, CUDA, torch": ", ".join(x or "not recorded" for x in (p.driver, p.cuda, p.torch)),
        "date": p.date or "not recorded",
        "data": p.data,
        "measured": f"{p.attention_samples:,} attention calls, {p.collective_samples:,} exchanges",
    }
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    figures = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in plots
    )
    title = escape(f"Hardware profile {profile.name}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{css}</style></head><body><main><h1>{title}</h1>"
        f'<p class="lead">{escape(p.device)}</p><dl>{terms}</dl>'
        '<h2>Measured and modelled</h2><p class="dim">Orange dots were measured; blue is the model.'
        f'</p><div class="plots">{figures}</div>'
        f"<h2>Parameters</h2>{_parameters(profile)}"
        f"<h2>Errors on points left out of the fit</h2>{_errors(profile)}"
        '<p class="dim">Made by flashcp hardware show.</p></main></body></html>\n'
    )


def _parameters(profile: "Profile") -> str:
    from flashcp_cli.hardware_view import parameter_rows

    rows = [
        (label, f"{figure.value:g} {unit}".strip(), figure.source.label, figure.reference)
        for label, figure, unit in parameter_rows(profile)
    ]
    return _html_table(("parameter", "value", "source", "reference"), rows)


def _errors(profile: "Profile") -> str:
    rows = [
        (e.what, e.bucket, e.method, f"{e.points:,}", f"{e.mean:.1%}", f"{e.p90:.1%}",
         f"{e.bias:+.1%}")
        for e in profile.provenance.held_out
    ]  # fmt: skip
    return _html_table(("what", "which", "left out", "points", "mean", "p90", "bias"), rows)


def _html_table(headings: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in headings)
    body = "".join(
        "<tr>" + "".join(f'<td class="reason">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _lengths(points: "Sequence[AttentionPoint]") -> str:
    rows = [{"x": p.tokens, "model": p.model_tflops, "measured": p.measured_tflops} for p in points]
    return _line(rows, "tokens", "TFLOP/s")


def _sizes(points: "Sequence[CollectivePoint]") -> str:
    rows = [
        {"x": p.total_bytes, "model": p.model_busbw_gbps, "measured": p.measured_busbw_gbps}
        for p in points
    ]
    return _line(rows, "S, bytes", "GB/s")


def _calls(calls: "Sequence[CallPoint]") -> str:
    rows = [
        {"x": c.flops / 1e9, "model": c.model_tflops, "measured": c.measured_tflops} for c in calls
    ]
    x, y = _axes(_CALLS)
    spec = {
        "layer": [
            {"mark": {"type": "rule", "color": "#8c8c8c"},
             "encoding": {"x": x, "y": y("model", "TFLOP/s"), "y2": {"field": "measured"}}},
            {"mark": {"type": "point", "color": _LINE, "filled": False},
             "encoding": {"x": x, "y": y("model", "TFLOP/s")}},
            {"mark": {"type": "point", "color": _DOT, "filled": True, "opacity": 1},
             "encoding": {"x": x, "y": y("measured", "TFLOP/s")}},
        ]
    }  # fmt: skip
    return _svg(rows, spec)


def _line(rows: list[dict[str, Any]], x_title: str, y_title: str) -> str:
    x, y = _axes(x_title)
    spec = {
        "layer": [
            {"mark": {"type": "line", "color": _LINE},
             "encoding": {"x": x, "y": y("model", y_title)}},
            {"mark": {"type": "point", "color": _DOT, "filled": True, "opacity": 1},
             "transform": [{"filter": "isValid(datum.measured)"}],
             "encoding": {"x": x, "y": y("measured", y_title)}},
        ]
    }  # fmt: skip
    return _svg(rows, spec)


def _axes(x_title: str) -> tuple[dict[str, Any], Any]:
    calls = x_title == _CALLS
    x = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "scale": {"type": "log", "base": 10 if calls else 2},
        "axis": {"labelOverlap": True, "format": "~g" if calls else ",d", "tickCount": 6},
    }

    def y(field: str, title: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": title}

    return x, y


def _svg(rows: list[dict[str, Any]], spec: dict[str, Any]) -> str:
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": _WIDTH,
        "height": _HEIGHT,
        "config": _CONFIG,
        "data": {"values": rows},
        **spec,
    }
    return draw(whole)[0].decode()
