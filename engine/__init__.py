"""Convert, quantize, simulate and analyse neural networks for Rockchip NPUs, without a user interface.

Importing the package is cheap: `Session` and `RKNN` are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import RKNN
    from engine.config import Config
    from engine.errors import EngineError
    from engine.quantization.edits import Edits
    from engine.session import Session
    from engine.tuning.search import Wish

__all__ = ["RKNN", "Config", "Edits", "EngineError", "Session", "Wish"]

_HOMES = {
    "RKNN": "engine.api",
    "Config": "engine.config",
    "Edits": "engine.quantization.edits",
    "EngineError": "engine.errors",
    "Session": "engine.session",
    "Wish": "engine.tuning.search",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
