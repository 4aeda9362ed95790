"""Generates traces from published and parametric length distributions.

Published ones are histograms in traces/distributions, each with its provenance; a length is drawn
by its bin's share and uniformly within the bin, (low, high]. Every draw is the inverse of the
distribution function at a hash of (seed, index): the same trace on every machine and for ever, and
a longer trace of the same seed begins with the shorter one. Lengths are drawn a slice at a time, so
that a trace takes no more memory than its 4 bytes a document.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError, quoted, shortened, suggestion
from traces.exact_math import exp, normal_quantiles
from traces.hashing import uniforms
from traces.trace import Trace
from traces.validation import MAX_LENGTH_TOKENS

DOCUMENTS = 100_000
"""How many documents are generated where nobody says."""
MAX_DOCUMENTS = 1 << 27
"""The most documents of a generated trace: 512 MiB of lengths."""

_SLICE = 1 << 20

Draw = Callable[..., NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A distribution of lengths, its parameters and their defaults.

    Attributes:
        about: one line on what it is.
        draw: from uniforms [documents], the first one's index in the trace and the parameters to
            lengths [documents].
        defaults: parameter name to default; a size in tokens is an int, any other a float.
        source: where a published distribution comes from.
    """

    about: str
    draw: Draw
    defaults: dict[str, int | float]
    source: str = ""


def published(name: str) -> dict[str, Any]:
    """Return a published distribution's table: title, source, provenance, edges, documents."""
    text = files("traces").joinpath("distributions", f"{name}.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _histogram(u: NDArray[np.float64], _first: int, *, table: str) -> NDArray[np.int64]:
    held = published(table)
    edges = np.array(held["edges"], dtype=np.float64)
    cumulative = np.concatenate([[0.0], np.cumsum(held["documents"])])
    place = u * cumulative[-1]
    bins = np.searchsorted(cumulative, place, side="right") - 1
    within = (place - cumulative[bins]) / np.diff(cumulative)[bins]
    low, high = edges[bins], edges[bins + 1]
    # The minimum guards against rounding at a bin's upper end.
    lengths: NDArray[np.float64] = np.minimum(np.floor(low + within * (high - low)), high - 1) + 1
    return lengths.astype(np.int64)


def _lognormal(
    u: NDArray[np.float64], _first: int, *, median: int, sigma: float, longest: int
) -> NDArray[np.int64]:
    lengths = median * exp(np.minimum(sigma * normal_quantiles(u), 50.0))
    return np.clip(np.rint(lengths), 1, longest).astype(np.int64)


def _fixed(u: NDArray[np.float64], _first: int, *, length: int) -> NDArray[np.int64]:
    return np.full(u.size, length, dtype=np.int64)


def _one_long_many_short(
    u: NDArray[np.float64], first: int, *, long: int, short: int, many: int
) -> NDArray[np.int64]:
    index = np.arange(first, first + u.size)
    return np.where(index % (many + 1) == 0, long, short).astype(np.int64)


GENERATORS: dict[str, Generator] = {
    "wlb-llm": Generator(
        about="WLB-LLM's published histogram: 97% below 6,250 tokens, a flat tail up to 125,000",
        draw=partial(_histogram, table="wlb-llm"),
        defaults={},
        source="traces/distributions/wlb-llm.json",
    ),
    "magi-attention": Generator(
        about="MagiAttention's benchmark histogram: median about 565 tokens, up to 196,608",
        draw=partial(_histogram, table="magi-attention"),
        defaults={},
        source="traces/distributions/magi-attention.json",
    ),
    "lognormal": Generator(
        about="log-normal, clipped to 1..longest",
        draw=_lognormal,
        defaults={"median": 600, "sigma": 1.5, "longest": 1024**2},
    ),
    "fixed": Generator(
        about="every document of one length", draw=_fixed, defaults={"length": 4096}
    ),
    "one-long-many-short": Generator(
        about="one long document, then many short ones, over and over (a seed when packing mixes)",
        draw=_one_long_many_short,
        defaults={"long": 65536, "short": 1024, "many": 64},
    ),
}


def generator_names() -> tuple[str, ...]:
    """Return the names of the generators."""
    return tuple(GENERATORS)


def generate(name: str, *, documents: int = DOCUMENTS, seed: int = 0, **parameters: float) -> Trace:
    """Generate a trace.

    Args:
        name: a generator's name.
        documents: how many documents, `MAX_DOCUMENTS` at most.
        seed: any whole number; lengths are drawn at hashes of (seed, index).
        **parameters: the generator's own, such as `median=600, sigma=1.5`.

    Raises:
        TraceError: an unknown generator or parameter, or a value out of range.
    """
    if name not in GENERATORS:
        known = f"(there are {quoted(GENERATORS)})"
        raise TraceError(f"unknown generator {name!r}{suggestion(name, GENERATORS)} {known}")
    if not 1 <= documents <= MAX_DOCUMENTS:
        raise TraceError(
            f"documents {shortened(documents)} is not between 1 and {MAX_DOCUMENTS}, the most that "
            "a generator makes"
        )
    generator = GENERATORS[name]
    values = dict(generator.defaults)
    for key, value in parameters.items():
        if key not in values:
            known = f"it takes {quoted(values)}" if values else "it takes none"
            raise TraceError(
                f"{name}: unknown parameter {shortened(key)!r}{suggestion(key, values)} ({known})"
            )
        values[key] = _checked(name, key, value, whole=isinstance(generator.defaults[key], int))
    given = ",".join(f"{key}={values[key]}" for key in parameters)
    lengths = np.empty(documents, dtype=np.int32)
    for first in range(0, documents, _SLICE):
        part = lengths[first : first + _SLICE]
        u = uniforms(seed, part.size, stream=1, start=first)
        part[:] = generator.draw(u, first, **values)
    lengths.flags.writeable = False
    return Trace(f"{name}:{given}" if given else name, lengths)


def _checked(name: str, key: str, value: float, *, whole: bool) -> int | float:
    least, most = (1, MAX_LENGTH_TOKENS) if whole else (0, 10)
    if not least <= value <= most:
        raise TraceError(f"{name}: {key} {value:g} is not between {least} and {most}")
    if whole and value != int(value):
        raise TraceError(f"{name}: {key} {value:g} is not a whole number")
    return int(value) if whole else float(value)


def generate_from_spec(spec: str, *, documents: int = DOCUMENTS, seed: int = 0) -> Trace:
    """Generate a trace from how the command line writes it.

    Args:
        spec: `name` or `name:key=value,key=value`, or `name:value` for the first parameter;
            sizes take the suffixes k and m, powers of 1,024.
        documents: how many documents.
        seed: as for `generate`.

    Raises:
        TraceError: the spec cannot be read, or `generate` refuses it.
    """
    name, _, written = spec.partition(":")
    defaults = GENERATORS[name].defaults if name in GENERATORS else {}
    parameters: dict[str, float] = {}
    for index, word in enumerate(written.split(",") if written else []):
        key, equals, value = word.partition("=")
        if not equals:
            if index or not defaults:
                raise TraceError(
                    f"{shortened(spec)}: cannot read {shortened(word)!r}; write "
                    f"{name}:key=value,key=value"
                )
            key, value = next(iter(defaults)), word
        if key in parameters:
            raise TraceError(f"{shortened(spec)}: {shortened(key)} is given twice")
        parameters[key] = _number(spec, key, value)
    return generate(name, documents=documents, seed=seed, **parameters)


def _number(spec: str, key: str, written: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmKM]?)", written.strip())
    if not match:
        raise TraceError(
            f"{shortened(spec)}: {shortened(key)} {shortened(written)!r} is not a number such as "
            "600, 1.5 or 64k"
        )
    return float(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
