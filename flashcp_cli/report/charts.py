"""The report's plots as Vega-Lite documents.

The page's theme gives the colours of text and grid; strategies and parts keep theirs in light and
dark.
"""

from typing import Any

# Okabe and Ito's palette: told apart by all kinds of colour vision, on white and on black.
STRATEGY_COLOURS = {
    "ring": "#8c8c8c",
    "zigzag": "#b07aa1",
    "per-seq": "#d55e00",
    "per-doc": "#e69f00",
    "flashcp": "#0072b2",
    "auto": "#009e73",
}
PART_COLOURS = {
    "forward": "#56b4e9",
    "backward": "#0072b2",
    "exchange": "#d55e00",
    "copies": "#e69f00",
    "merge": "#b07aa1",
}
_DOCUMENT_COLOURS = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1",
                     "#ff9da7", "#9c755f", "#86bcb6"]  # fmt: skip


def _chart(data: list[dict[str, Any]], height: int, **rest: Any) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "data": {"values": data},
        **rest,
    }


def _strategy(strategies: list[str]) -> dict[str, Any]:
    scale = {"domain": strategies, "range": [STRATEGY_COLOURS[s] for s in strategies]}
    return {"field": "strategy", "type": "nominal", "scale": scale, "title": None}


def across(
    data: list[dict[str, Any]], strategies: list[str], axis: str, baseline: str
) -> dict[str, Any]:
    """Speed-up over CP ("cp") or windows ("window"), with intervals."""
    x: dict[str, Any] = {"type": "ordinal", "axis": {"labelAngle": 0}}
    x |= (
        {"field": "cp", "title": "CP degree"}
        if axis == "cp"
        else {"field": "window", "title": "window", "sort": {"field": "tokens"}}
    )
    tooltip = [{"field": name} for name in ("strategy", "cp", "window")]
    tooltip += [{"field": name, "format": ".3f"} for name in ("speedup", "low", "high")]
    colour = _strategy(strategies)
    y = {
        "field": "speedup",
        "type": "quantitative",
        "title": f"times as fast as {baseline}",
        "scale": {"zero": False},
    }
    return _chart(
        data,
        260,
        params=[{"name": "kind", "value": "attention"}, {"name": "group", "value": ""}],
        transform=[{"filter": f"datum.kind === kind && datum.across_{axis} === group"}],
        layer=[
            {"mark": {"type": "line", "point": {"size": 40}},
             "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip}},
            {"mark": {"type": "rule", "opacity": 0.5},
             "encoding": {"x": x, "y": {"field": "low", "type": "quantitative"},
                          "y2": {"field": "high"}, "color": colour}},
        ],
    )  # fmt: skip


def breakdown(data: list[dict[str, Any]], strategies: list[str]) -> dict[str, Any]:
    """Mean time of one attention layer by part, with the lower bound."""
    parts = ["forward", "backward", "exchange", "copies"]
    y = {"field": "strategy", "type": "nominal", "sort": strategies, "title": None}
    return _chart(
        data,
        34 * len(strategies),
        params=[{"name": "cell", "value": 0}],
        transform=[{"filter": "datum.cell === cell"}],
        layer=[
            {"mark": {"type": "bar"},
             "encoding": {
                 "y": y,
                 "x": {"field": "ms", "type": "quantitative", "stack": "zero",
                       "title": "milliseconds a layer, forward + backward"},
                 "color": {"field": "part", "type": "nominal", "title": None,
                           "scale": {"domain": parts, "range": [PART_COLOURS[p] for p in parts]}},
                 "order": {"field": "order", "type": "quantitative"},
                 "tooltip": [{"field": "strategy"}, {"field": "part"},
                             {"field": "ms", "format": ".3f"},
                             {"field": "bound", "format": ".3f"}]}},
            {"mark": {"type": "rule", "strokeDash": [4, 3]},
             "encoding": {"x": {"aggregate": "max", "field": "bound", "type": "quantitative"}}},
        ],
    )  # fmt: skip


def distribution(
    data: list[dict[str, Any]], strategies: list[str], field: str, title: str
) -> dict[str, Any]:
    """Share of packs at or below a value of `field`."""
    return _chart(
        data,
        220,
        params=[{"name": "cell", "value": 0}],
        transform=[{"filter": "datum.cell === cell"}],
        mark={"type": "line", "interpolate": "step-after", "strokeWidth": 2},
        encoding={
            "x": {"field": field, "type": "quantitative", "title": title,
                  "scale": {"zero": False},
                  "axis": {"format": "%" if field == "moved" else ".2f"}},
            "y": {"field": "packs", "type": "quantitative", "title": "share of packs",
                  "axis": {"format": "%"}},
            "color": _strategy(strategies),
            "order": {"field": "packs", "type": "quantitative"},
            "tooltip": [{"field": "strategy"}, {"field": field, "format": ".3f"},
                        {"field": "packs", "format": ".0%"}],
        },
    )  # fmt: skip


_PACK = [{"name": "pack", "value": 0}, {"name": "strategy", "value": ""}]
_PACK_FILTER = [{"filter": "datum.pack === pack && datum.strategy === strategy"}]


def shards(data: list[dict[str, Any]], ranks: int) -> dict[str, Any]:
    """One pack: each rank's tokens as coloured documents, its work over the mean beside it."""
    y = {"field": "rank", "type": "ordinal", "title": "rank", "axis": {"labelAngle": 0}}
    return _chart(
        data,
        26 * ranks,
        params=_PACK,
        transform=_PACK_FILTER,
        layer=[
            {"mark": {"type": "bar", "height": {"band": 0.8}, "stroke": "white",
                      "strokeWidth": 0.5},
             "encoding": {
                 "y": y,
                 "x": {"field": "from", "type": "quantitative", "title": "tokens on the rank"},
                 "x2": {"field": "to"},
                 "color": {"field": "colour", "type": "nominal", "legend": None,
                           "scale": {"domain": [-1, *range(10)],
                                     "range": ["#bbbbbb", *_DOCUMENT_COLOURS]}},
                 "opacity": {"condition": {"test": "datum.cut === 'cut'", "value": 1},
                             "value": 0.45},
                 "tooltip": [{"field": "document"}, {"field": "range", "title": "tokens"},
                             {"field": "cut", "title": "document is"}]}},
            {"transform": [{"aggregate": [{"op": "max", "field": "to", "as": "end"}],
                            "groupby": ["rank", "work"]}],
             "mark": {"type": "text", "align": "left", "dx": 4},
             "encoding": {"y": y, "x": {"field": "end", "type": "quantitative"},
                          "text": {"field": "work"}}},
        ],
    )  # fmt: skip


def matrix(data: list[dict[str, Any]], ranks: int) -> dict[str, Any]:
    """One pack: tokens of KV that each rank sends to each other."""
    return _chart(
        data,
        max(22 * ranks, 120),
        params=_PACK,
        transform=_PACK_FILTER,
        mark={"type": "rect"},
        encoding={
            "x": {"field": "to", "type": "ordinal", "title": "to rank", "axis": {"labelAngle": 0}},
            "y": {"field": "from", "type": "ordinal", "title": "from rank"},
            "color": {"field": "tokens", "type": "quantitative", "title": "tokens",
                      "scale": {"scheme": "blues", "domainMin": 0}},
            "tooltip": [{"field": "from"}, {"field": "to"}, {"field": "tokens", "format": ","}],
        },
    )  # fmt: skip


def timeline(data: list[dict[str, Any]], ranks: int) -> dict[str, Any]:
    """One pack: what every rank's two streams do when."""
    kinds = list(PART_COLOURS)
    return _chart(
        data,
        max(34 * ranks, 100),
        params=_PACK,
        transform=_PACK_FILTER,
        mark={"type": "bar"},
        encoding={
            "y": {"field": "rank", "type": "ordinal", "title": "rank"},
            "yOffset": {"field": "stream", "type": "nominal",
                        "scale": {"domain": ["compute", "exchange"]}},
            "x": {"field": "start", "type": "quantitative", "title": "milliseconds"},
            "x2": {"field": "end"},
            "color": {"field": "kind", "type": "nominal", "title": None,
                      "scale": {"domain": kinds, "range": [PART_COLOURS[k] for k in kinds]}},
            "tooltip": [{"field": "name"}, {"field": "rank"}, {"field": "stream"},
                        {"field": "start", "format": ".3f"}, {"field": "end", "format": ".3f"}],
        },
    )  # fmt: skip
