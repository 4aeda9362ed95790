"""Hardware profiles and the times that they predict.

`load_profile("h100-sxm")` gives a `Profile`; its `attention_us` and `collective_us` return an
`Estimate`: microseconds, and whether they were measured, interpolated, extrapolated or reported.
Names are loaded when first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.attention import AttentionModel
    from costmodel.errors import ProfileError
    from costmodel.estimate import Estimate, Source
    from costmodel.model_shape import ModelShape, load_model
    from costmodel.profile import Profile
    from costmodel.profile_file import load_profile
    from costmodel.timeline import Timeline

__all__ = [
    "AttentionModel",
    "Estimate",
    "ModelShape",
    "Profile",
    "ProfileError",
    "Source",
    "Timeline",
    "load_model",
    "load_profile",
]

_HOMES = {
    "AttentionModel": "costmodel.attention",
    "Estimate": "costmodel.estimate",
    "ModelShape": "costmodel.model_shape",
    "Profile": "costmodel.profile",
    "ProfileError": "costmodel.errors",
    "Source": "costmodel.estimate",
    "Timeline": "costmodel.timeline",
    "load_model": "costmodel.model_shape",
    "load_profile": "costmodel.profile_file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
