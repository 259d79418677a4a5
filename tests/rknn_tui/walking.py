"""A user of the app whose every step is written down, for whom time passes only when the test says so."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from textual import events
from textual.message import Message

from rknn_tui.app import Workshop
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.messages import StepEnded
from tests.rknn_tui.test_app import SECONDS, User

HEARD = (
    *("MarkedList.Moved", "LayerTable.HeaderChanged", "CfgEditor.Changed", "CfgEditor.Moved", "CfgEditor.Copied"),
    *("CfgEditor.Refused", "Input.Changed", "Input.Submitted", "ScreenSuspend", "ScreenResume", "EngineEnded"),
    *("ExitApp",),
)


@dataclasses.dataclass
class HeldTimer:
    """A timer that waits until the test lets time pass."""

    seconds: float
    callback: Callable[[], Any]
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True


class Walk(User):
    """A user whose every step is written down in `log`: `key f`, `> apply` (asked), `< apply` (answered), `rows 3`
    (numbers of so many rows may be others), and messages by their names."""

    def __init__(self, app: Workshop) -> None:
        self.app = app
        self.log: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.timers: list[HeldTimer] = []
        self.holding = False
        self._held: list[tuple[int, Any, Any]] = []
        self._heard: list[Message] = []
        self._methods: dict[int, str] = {}
        self._start, self._ended = app.bench.calls.start, app.bench.calls.ended
        app.bench.calls.start = self._ask  # type: ignore[method-assign]
        app.bench.calls.ended = self._end  # type: ignore[method-assign]
        app.tune.set_timer = self._hold  # type: ignore[method-assign, assignment]

    def _ask(self, method: str, params: dict[str, Any], answer: Any) -> int:
        self.log.append(f"> {method}")
        self.asked.append((method, params))
        number = self._start(method, params, answer)
        self._methods[number] = method
        return number

    def _end(self, number: int, value: Any, error: Any) -> bool:
        if self.holding:
            self._held.append((number, value, error))
            return True
        self.log.append(f"< {self._methods[number]}{f' {type(error).__name__}' if error is not None else ''}")
        return self._ended(number, value, error)

    def watch_rows(self) -> None:
        """Write down from now on how many rows may show other numbers."""
        graph = self.app.tune.graph
        update = graph.update_values

        def updated(changes: Mapping[str, LayerValues]) -> None:
            if changes:
                self.log.append(f"rows {len(changes)}")
            update(changes)

        graph.update_values = updated  # type: ignore[method-assign]

    def hear(self, message: Message) -> None:
        """Takes every message at every place that it comes to; written down once."""
        name = type(message).__qualname__
        if any(message is known for known in self._heard):
            return
        if isinstance(message, events.Key):
            name = f"key {message.key}"
        elif name not in HEARD:
            return
        self._heard.append(message)
        self.log.append(name)

    async def until(self, condition: Callable[[], bool], reason: Callable[[], str] = lambda: "") -> None:
        for _ in range(SECONDS * 200):
            if condition():
                return
            await self.pilot.pause(0.005)
        raise AssertionError(reason())

    async def drained(self, *_: float) -> None:
        """Wait until all messages have come to their places; Pilot would wait 40 ms a key for the process to rest."""
        for _round in range(2):
            await self.pilot._wait_for_screen()

    def _hold(self, seconds: float, callback: Callable[[], Any]) -> HeldTimer:
        self.timers.append(HeldTimer(seconds, callback))
        return self.timers[-1]

    async def answered(self) -> None:
        """Wait until nothing is asked that is not answered, and no message is on its way."""
        await self.pilot.pause()
        await self.until(lambda: not self.app.bench.calls._waiting or self.holding)
        await self.pilot.pause()

    async def does(self, *keys: str) -> list[str]:
        """What is written down for these keys until all is answered, without what comes with rest."""
        self.log.clear()
        await self.press(*keys)
        await self.answered()
        return self.log.copy()

    async def rests(self) -> list[str]:
        """What is written down when the fingers rest: all that was put off for a while, and what follows from it."""
        self.log.clear()
        while waiting := [timer for timer in self.timers if not timer.stopped]:
            self.timers.clear()
            for timer in sorted(waiting, key=lambda timer: timer.seconds):
                self.app.tune.call_later(timer.callback)
            await self.answered()
        return self.log.copy()

    async def goes_on(self) -> list[str]:
        """What is written down once the answers that were held come."""
        self.log.clear()
        self.holding, held, self._held = False, self._held, []
        for number, value, error in held:
            self.app.tune.post_message(StepEnded(number, value, error))
        await self.answered()
        return self.log.copy()


AWalk = TypeVar("AWalk", bound=Walk)


@asynccontextmanager
async def walk(
    engine: list[str],
    path: Path,
    *keys: str,
    size: tuple[int, int] = (80, 24),
    user_of: Callable[[Workshop], AWalk] = Walk,  # type: ignore[assignment]
    **options: Any,
) -> AsyncIterator[AWalk]:
    """The model opened, and after these keys, at rest."""
    app = Workshop(str(path), options, engine_command=engine)
    user = user_of(app)
    async with app.run_test(size=size, message_hook=user.hear) as user.pilot:
        with patch("textual.app.wait_for_idle", user.drained), patch("textual.pilot.wait_for_idle", user.drained):
            await user.answered()
            for key in keys:
                await user.does(key)
            await user.rests()
            user.watch_rows()
            yield user
