"""Traces: ordered lists of document lengths, read, generated, mixed, described and packed.

The public names are loaded when first used, so that `import traces` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traces.bundled import bundled_names
    from traces.errors import TraceError
    from traces.generators import generate, generator_names
    from traces.loading import load
    from traces.mixing import mix
    from traces.packing import Packing, pack
    from traces.statistics import Bucket, Statistics, describe
    from traces.trace import Trace
    from traces.writing import save

__all__ = [
    "Bucket",
    "Packing",
    "Statistics",
    "Trace",
    "TraceError",
    "bundled_names",
    "describe",
    "generate",
    "generator_names",
    "load",
    "mix",
    "pack",
    "save",
]

_MODULES = {
    "Bucket": "statistics",
    "Packing": "packing",
    "Statistics": "statistics",
    "Trace": "trace",
    "TraceError": "errors",
    "bundled_names": "bundled",
    "describe": "statistics",
    "generate": "generators",
    "generator_names": "generators",
    "load": "loading",
    "mix": "mixing",
    "pack": "packing",
    "save": "writing",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'traces' has no attribute {name!r}")
    return getattr(import_module(f"traces.{_MODULES[name]}"), name)
