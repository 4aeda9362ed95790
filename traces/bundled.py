"""The real traces that come with the package, by name.

Lengths only, of our own measurement; traces/data/README.md says of what and how.
"""

from importlib.resources import as_file, files

from traces.readers import ReadOptions, read
from traces.trace import Trace

BUNDLED = ("code", "papers", "books", "wiki", "long-sft")


def bundled_names() -> tuple[str, ...]:
    """Return the names of the bundled traces."""
    return BUNDLED


def load_bundled(name: str) -> Trace:
    """Return the bundled trace `name`, one of `BUNDLED`."""
    with as_file(files("traces") / "data" / f"{name}.parquet") as path:
        lengths = read(path, ReadOptions(format="parquet", column="length"))
    lengths.flags.writeable = False
    return Trace(name, lengths)
