"""An app around one screen, with a workbench that the test gives: what the screen shows, and what it asks for."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from textual.app import App
from textual.pilot import Pilot
from textual.reactive import Reactive
from textual.screen import Screen

from rknn_tui import keymap, palette, symbols
from rknn_tui.bench.dialogue import Notice, Reply
from rknn_tui.symbols import Symbols

SIZES = [(80, 24), (60, 16), (200, 50)]
SECONDS = 15
CSS_FOLDER = Path(palette.__file__).parent


class TuneStandIn:
    """Takes what is told to the tune screen."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.told: list[Reply] = []
        self.performed: list[str] = []

    def tell(self, reply: Reply) -> None:
        self.told.append(reply)

    def perform(self, action: str) -> None:
        self.performed.append(action)


class StandIn(App[None]):
    """Has what screens ask of the app, and remembers where they went."""

    CSS_PATH: ClassVar = [CSS_FOLDER / "app.tcss", CSS_FOLDER / "screens" / "choose.tcss"]
    ENABLE_COMMAND_PALETTE = False
    theme: Reactive[str] = Reactive("ansi-dark")

    def __init__(self, make: Callable[[Any], Screen[Any]], signs: Symbols = symbols.UNICODE) -> None:
        super().__init__()
        self.animation_level = "none"
        self.palette, _ = palette.load("ansi-dark")
        self.symbols = signs
        self.keymap = keymap.DEFAULT
        self.bench: Any = None
        self.tune = TuneStandIn()
        self.went_to: list[str] = []
        self.made = make(self)
        self.answers: list[str | None] = []

    def on_mount(self) -> None:
        self.push_screen(self.made, self.answers.append)

    def go_to(self, place: str) -> None:
        self.went_to.append(place)


class User:
    """Presses keys and reads the screen."""

    def __init__(self, app: StandIn, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def screen(self) -> Any:
        """The screen that is looked at."""
        return self.app.made

    def fits(self) -> bool:
        """Whether every part that is shown lies on the terminal, with the title at its top and the keys below."""
        width, height = self.app.size
        parts = [part for part in self.screen.query("TextLines, MarkedList, ChartView") if part.display]
        inside = all(part.region.right <= width and part.region.bottom <= height for part in parts if part.region)
        return inside and "quit" in self.lines()[-1] and self.screen.rows.size.height >= 3

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    def text(self, part: str) -> str:
        """The text of the part with that id."""
        return str(self.app.made.query_one(f"#{part}").text)  # type: ignore[attr-defined]

    def lines(self) -> list[str]:
        """All that is on the terminal, a string a line."""
        width, height = self.app.size
        console = Console(file=io.StringIO(), width=width, height=height, legacy_windows=False, color_system=None)
        console.print(self.app.screen._compositor.render_update(full=True))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        return text.split("\n")[:height]

    async def paints(self, seconds: float = 0.7) -> int:
        """How often the terminal is written to while nobody does anything."""
        await self.pilot.pause(0.4)
        painted: list[object] = []
        display = self.app._display

        def counted(screen: Screen[Any], renderable: Any) -> None:
            painted.append(renderable)
            display(screen, renderable)

        self.app._display = counted  # type: ignore[method-assign]
        await self.pilot.pause(seconds)
        self.app._display = display  # type: ignore[method-assign]
        return len(painted)

    async def sees(self, part: str, text: str) -> None:
        await self.until(lambda: text in self.text(part), lambda: f"{text!r} not in {part}: {self.text(part)!r}")

    async def until(self, condition: Callable[[], bool], reason: Callable[[], str] = lambda: "") -> None:
        for _ in range(SECONDS * 50):
            if condition():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(reason())


@asynccontextmanager
async def shown(
    make: Callable[[Any], Screen[Any]], size: tuple[int, int] = (80, 24), signs: Symbols = symbols.UNICODE
) -> AsyncIterator[User]:
    """The screen that `make` makes, in front."""
    app = StandIn(make, signs)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.pause()
        yield User(app, pilot)
