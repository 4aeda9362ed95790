"""The plotting library, which only reports need: is it there, its script, its drawing."""

import importlib.util
from typing import Any

import click

VEGA_LITE = "6.1"


def require_library() -> None:
    """Refuse a report where the library is not installed, before any work is done."""
    if importlib.util.find_spec("vl_convert") is None:
        raise click.UsageError(
            "reports and plots need vl-convert-python: pip install 'flashcp[report]'"
        )


def script() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that can stand inside a page."""
    import vl_convert

    # The stub forgets that the snippet may be left out, which gives the three libraries alone.
    bundle: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def draw(spec: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return a plot as SVG and as PNG of twice the resolution."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    png: bytes = vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=2)
    return svg.encode(), png
