"""An engine whose requests are answered when, and with what, a test says."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError


class StandInCalls:
    """Takes requests in the place of `Calls`; `asked` are all of them, as (method, parameters, answer)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], Any]] = []
        self.answered = 0
        self.cancelled: list[int] = []

    def start(self, method: str, params: dict[str, Any], answer: Any) -> int:
        self.asked.append((method, params, answer))
        return len(self.asked)

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    def answer(self, value: Any = None, error: EngineError | None = None, *, method: str = "") -> dict[str, Any]:
        """Answer the oldest request that waits, which must be of `method` where one is named; returns what it asked."""
        name, params, answer = self.asked[self.answered]
        assert not method or name == method, f"{name} was asked, not {method}"
        self.answered += 1
        answer(value, error)
        return params

    @property
    def waiting(self) -> list[str]:
        """The methods that wait for an answer."""
        return [method for method, _, _ in self.asked[self.answered :]]
