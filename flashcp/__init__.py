"""Plan and predict context parallelism for packed documents.

    import flashcp

    trace = flashcp.load_trace("papers")
    packing = flashcp.pack(trace, 131072)
    setting = flashcp.default_setting()
    plan = flashcp.plan(packing.document_lengths(0), cp=8, setting=setting)
    print(flashcp.measure(plan).imbalance, flashcp.predict(plan, setting).total_us)

Names are loaded when first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.model_shape import load_model
    from costmodel.profile_file import load_profile
    from flashcp.bounds import lower_bound_us
    from flashcp.comparison import compare
    from flashcp.errors import PlanError
    from flashcp.exchange import Exchange
    from flashcp.measures import Measures, measure
    from flashcp.plan_file import PlanFile, load_plans, save_plans
    from flashcp.planning import default_setting, plan
    from flashcp.plans import Plan
    from flashcp.prediction import Prediction, Setting, predict
    from flashcp.simulating import simulate
    from flashcp.simulation.run import Simulated
    from flashcp.simulation.step import StepModel
    from flashcp.simulation.what_if import WhatIf
    from traces import load as load_trace
    from traces import pack

_HOMES = {
    "Exchange": "flashcp.exchange",
    "Measures": "flashcp.measures",
    "Plan": "flashcp.plans",
    "PlanError": "flashcp.errors",
    "PlanFile": "flashcp.plan_file",
    "Prediction": "flashcp.prediction",
    "Setting": "flashcp.prediction",
    "Simulated": "flashcp.simulation.run",
    "StepModel": "flashcp.simulation.step",
    "WhatIf": "flashcp.simulation.what_if",
    "compare": "flashcp.comparison",
    "default_setting": "flashcp.planning",
    "load_model": "costmodel.model_shape",
    "load_plans": "flashcp.plan_file",
    "load_profile": "costmodel.profile_file",
    "load_trace": "traces:load",
    "lower_bound_us": "flashcp.bounds",
    "measure": "flashcp.measures",
    "pack": "traces",
    "plan": "flashcp.planning",
    "predict": "flashcp.prediction",
    "save_plans": "flashcp.plan_file",
    "simulate": "flashcp.simulating",
}

__all__ = [
    "Exchange",
    "Measures",
    "Plan",
    "PlanError",
    "PlanFile",
    "Prediction",
    "Setting",
    "Simulated",
    "StepModel",
    "WhatIf",
    "compare",
    "default_setting",
    "load_model",
    "load_plans",
    "load_profile",
    "load_trace",
    "lower_bound_us",
    "measure",
    "pack",
    "plan",
    "predict",
    "save_plans",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flashcp' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
