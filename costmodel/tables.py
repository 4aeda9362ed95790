"""The measured tables that come with the package; see data/tables/README.md for their provenance.

A profile holds all that predictions need: the tables are read only to build profiles anew, to
validate, and to show measured points beside the model's.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLLECTIVE_COLUMNS = ("gpu", "nccl", "collective", "num_gpus", "bytes", "us")


def collective_table(gpu: str | None = None) -> pd.DataFrame:
    """Return the measured collectives: gpu, nccl, collective, num_gpus, bytes (S), us.

    Args:
        gpu: a bundled profile's name, for its rows alone.
    """
    return _table("nccl_collectives", gpu)


def attention_table(gpu: str | None = None) -> pd.DataFrame:
    """Return the measured attention calls.

    Columns: gpu, kernel, batch_size, seq_len, q_heads, kv_heads, head_dim, fwd_us.

    Args:
        gpu: a bundled profile's name, for its rows alone.
    """
    return _table("attention_forward", gpu)


def _table(name: str, gpu: str | None) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - takes half a second, which predictions do not need

    path = Path(str(files("costmodel") / "data" / "tables" / f"{name}.parquet"))
    table = pd.read_parquet(path)
    return table if gpu is None else table[table["gpu"] == gpu].reset_index(drop=True)
