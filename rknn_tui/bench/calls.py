"""Requests to the engine whose answers come back in the app's own thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import EngineError
from engine.host_client import EngineHost, Request

Answer = Callable[[Any, "EngineError | None"], object]
"""Called with a request's value, or None and the error."""
ProgressHearer = Callable[[int, str, int, int], object]
EndHearer = Callable[[int, Any, "EngineError | None"], object]


class Calls:
    """Starts requests and remembers who waits for which.

    `on_progress` and `on_end` are called in the reading thread with the request's number; hand their arguments over to
    the thread that owns this object, and call `ended` there.
    """

    def __init__(self, host: EngineHost, on_progress: ProgressHearer, on_end: EndHearer) -> None:
        self.host = host
        self._on_progress = on_progress
        self._on_end = on_end
        self._waiting: dict[int, Answer] = {}

    def start(self, method: str, params: dict[str, Any], answer: Answer) -> int:
        """Send a request and return its number; `answer` is called from `ended`."""
        numbers: list[int] = []

        # The number exists only once the request was made, and its progress may be faster than that: 0 is no job's.
        def progress(stage: str, done: int, total: int) -> None:
            self._on_progress(numbers[0] if numbers else 0, stage, done, total)

        request = self.host.request(method, params, progress)
        self._waiting[request.number] = answer
        numbers.append(request.number)
        request.add_done_callback(self._report)
        return request.number

    def cancel(self, number: int) -> None:
        """Ask the engine to stop with a request; it still ends, most often with Cancelled."""
        self.host.cancel(number)

    def ended(self, number: int, value: Any, error: EngineError | None) -> bool:
        """Hand an answer to who waits for it; False where nobody does."""
        answer = self._waiting.pop(number, None)
        if answer is None:
            return False
        answer(value, error)
        return True

    def forget(self) -> None:
        """Nobody waits any longer: what still comes is old news."""
        self._waiting.clear()

    def _report(self, request: Any) -> None:
        assert isinstance(request, Request)
        error = request.exception()
        if error is None:
            self._on_end(request.number, request.result(), None)
        elif isinstance(error, EngineError):
            self._on_end(request.number, None, error)
