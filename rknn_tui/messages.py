"""Messages that cross threads or widgets."""

from __future__ import annotations

from typing import Any

from textual.message import Message

from engine.errors import EngineError
from engine.host_protocol import EngineDiedError


class StepProgressed(Message):
    """The engine reported progress of the request `number`."""

    def __init__(self, number: int, stage: str, done: int, total: int) -> None:
        super().__init__()
        self.number = number
        self.stage = stage
        self.done = done
        self.total = total

    def can_replace(self, message: Message) -> bool:
        """Only the latest counts when the app is behind."""
        return isinstance(message, StepProgressed)


class StepEnded(Message):
    """The request `number` returned `value` or failed with `error`."""

    def __init__(self, number: int, value: Any, error: EngineError | None) -> None:
        super().__init__()
        self.number = number
        self.value = value
        self.error = error


class EngineEnded(Message):
    """The engine's process ended unasked."""

    def __init__(self, error: EngineDiedError) -> None:
        super().__init__()
        self.error = error
