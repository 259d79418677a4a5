"""The error of all that goes wrong with the vendor's toolkit."""

from __future__ import annotations

from engine.errors import EngineError


class CompilerError(EngineError):
    """The vendor's toolkit is missing, broken, refuses a model, or ended unasked."""
