"""Keys one after the other: each goes to the widget and screen that those before it have led to.

Textual hands a key to whatever has the focus when it arrives, before those typed ahead of it have had their effect.
Over a slow link keys come in bursts: of `/name` the letters would be commands, and the `q` of `:quit` would quit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.events import Key, Paste
from textual.message_pump import MessagePump

SECONDS_FOR_A_KEY = 1.0
"""No widget needs so long: one that has gone answers never."""
MOST_ROUNDS = 6


class TypedAhead:
    """Gives `dispatch` the keys of `app` and what is pasted, each when the one before it is done with."""

    def __init__(self, app: App[Any], dispatch: Callable[[Key | Paste], Awaitable[None]]) -> None:
        self._app, self._dispatch = app, dispatch
        self._waiting: deque[Key | Paste] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, event: Key | Paste) -> None:
        """Take the next one."""
        self._waiting.append(event)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                event = self._waiting.popleft()
                await self._dispatch(event)
                await self._settled(event)
        except Exception as error:
            self._app._handle_exception(error)
        finally:
            self._task = None

    async def _settled(self, event: Key | Paste) -> None:
        """Wait until all that the event has set off was handled.

        It goes from its widget up to the app, unless one of them takes it, and may bring a message that goes that way
        too, or another screen.
        """
        place, again = self._place(), False
        # A widget that takes a key may tell the screen of it; the screen itself is done with it at once.
        quick = place is self._app.screen
        for _ in range(MOST_ROUNDS):
            for pump in (*_up_from(place), self._app):
                if not await _answered(pump.call_later):
                    break
            before, place = place, self._place()
            if place is before and (again or (quick and event._stop_propagation)) and not self._app.screen._callbacks:
                return
            if self._app.screen._callbacks:
                # Something is to be done once the screen is drawn, such as giving a new widget the focus.
                await _answered(self._app.screen.call_after_refresh)
            # What nobody took has come to the app, which may have made a message of it: that takes another round.
            again = place is before

    def _place(self) -> MessagePump:
        return self._app.focused or self._app.screen


def _up_from(pump: MessagePump) -> list[MessagePump]:
    found: list[MessagePump] = []
    parent: MessagePump | None = pump
    while parent is not None and not isinstance(parent, App):
        found.append(parent)
        parent = parent._parent
    return found


async def _answered(call: Callable[[Callable[[], object]], bool]) -> bool:
    """Wait until a widget has done all that comes before this call of it; False where it does not any longer."""
    done = asyncio.Event()
    if not call(done.set):
        return False
    try:
        await asyncio.wait_for(done.wait(), SECONDS_FOR_A_KEY)
    except asyncio.TimeoutError:
        return False
    return True
