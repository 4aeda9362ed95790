"""What a run is asked to do, as it travels from the command to every rank."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.model_shape import ModelShape
from executor.ways import Copies, Gradients
from flashcp.exchange import Exchange
from flashcp.plans import Plan

_ARRAYS = ("lengths", "document", "rank", "start", "stop")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How plans are run.

    Attributes:
        dtype: "bfloat16", "float16", "float32" or "float64".
        device: "cpu" or "cuda".
        warmups: runs before those that count.
        repetitions: timed runs.
        seed: of the inputs.
        timeout_s: how long a rank may go without progress.
        verify: whether to hold outputs and gradients against the oracle.
        copies: see `executor.prepare`.
        gradients: see `executor.prepare`.
    """

    dtype: str
    device: str
    warmups: int = 2
    repetitions: int = 10
    seed: int = 0
    timeout_s: float = 120.0
    verify: bool = True
    copies: Copies = "in-place"
    gradients: Gradients = "all-to-all"


@dataclass(frozen=True, eq=False, kw_only=True)
class Job:
    """The plans of one pack, and how to run them.

    Attributes:
        names: what each plan is called in the report, the strategy asked for.
        plans: one a strategy, of one pack and CP degree.
        model: heads and head size.
        options: how.
    """

    names: tuple[str, ...]
    plans: tuple[Plan, ...]
    model: ModelShape
    options: Options

    @property
    def cp(self) -> int:
        """Ranks that the plans are for."""
        return self.plans[0].cp

    def save(self, folder: Path) -> None:
        """Write the job into `folder`."""
        arrays = {
            f"{index}.{name}": getattr(plan, name)
            for index, plan in enumerate(self.plans)
            for name in _ARRAYS
        }
        np.savez(folder / "plans.npz", **arrays)
        document = {
            "names": self.names,
            "plans": [
                {
                    "cp": plan.cp,
                    "exchange": plan.exchange.value,
                    "strategy": plan.strategy,
                    "overlap": plan.overlap,
                    "ranks_per_node": plan.ranks_per_node,
                    "head_chunks": plan.head_chunks,
                    "bundled": plan.bundled,
                }
                for plan in self.plans
            ],
            "model": self.model.to_json(),
            "options": asdict(self.options),
        }
        (folder / "job.json").write_text(json.dumps(document))


def load_job(folder: Path) -> Job:
    """Read the job that `Job.save` wrote into `folder`."""
    document = json.loads((folder / "job.json").read_text())
    with np.load(folder / "plans.npz") as arrays:
        plans = tuple(
            _plan(said, {name: arrays[f"{index}.{name}"] for name in _ARRAYS})
            for index, said in enumerate(document["plans"])
        )
    return Job(
        names=tuple(document["names"]),
        plans=plans,
        model=ModelShape(**document["model"]),
        options=Options(**document["options"]),
    )


def _plan(said: dict[str, Any], arrays: dict[str, Any]) -> Plan:
    return Plan(
        cp=said["cp"],
        exchange=Exchange(said["exchange"]),
        strategy=said["strategy"],
        overlap=said["overlap"],
        ranks_per_node=said["ranks_per_node"],
        head_chunks=said["head_chunks"],
        bundled=said["bundled"],
        **arrays,
    )
