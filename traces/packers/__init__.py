"""The packing rules, a module each; `traces.pack` chooses among them.

Their names are here, apart, because a command line wants them without compiling anything.
"""

from typing import Literal, get_args

PackBy = Literal["concat", "truncate", "best-fit", "balanced"]
PACKERS: tuple[str, ...] = get_args(PackBy)
"""The names `pack` takes as `by`."""
