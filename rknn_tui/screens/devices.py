"""The boards that adb lists, asked for on demand, and what to do where one cannot be used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual.geometry import Size

from engine.errors import EngineError
from rknn_tui.adb import Device, explanation, list_devices
from rknn_tui.bench.dialogue import Reply, counted
from rknn_tui.pieces import Line, Piece
from rknn_tui.screens.rows import DetailScreen, Table
from rknn_tui.symbols import drawable
from rknn_tui.widgets.row_list import Cells, RowColumn

if TYPE_CHECKING:
    from rknn_tui.app import Workshop

LISTING_ONLY = "listing only: running on boards comes later"


class DevicesScreen(DetailScreen):
    """One row a board. adb's server is asked when the screen first opens and on demand; it is never started."""

    CSS_PATH: ClassVar = "devices.tcss"
    PLACE: ClassVar[str] = "devices"
    TITLE_TEXT: ClassVar[str] = "devices"

    def __init__(self, app: Workshop, bench: object = None) -> None:
        # Of the workbench it needs nothing: boards are there without a model too.
        super().__init__(app)
        self.devices: list[Device] = []
        self._asking = False
        self._asked = ""
        self._fault = ""

    def on_mount(self) -> None:
        self.do_refresh()

    @property
    def device(self) -> Device | None:
        """The board under the cursor."""
        row = self.rows.current
        return self.devices[row] if row is not None and row < len(self.devices) else None

    def title_line(self, size: Size) -> Line:
        facts: list[Piece] = [(self.TITLE_TEXT, "title")]
        if self._asking:
            facts.append(("asking adb", "key"))
        elif not self._fault:
            facts.append((f"{counted(len(self.devices), 'board')} at {self._asked}", "text"))
        return self.joined([*facts, (LISTING_ONLY, "muted")], size.width)

    def table(self) -> Table:
        devices = self.devices
        if self._fault:
            empty = f"{self._fault}\n{self.keymap.shown('refresh')} asks again"
        elif self._asked:
            empty = (
                "no board is connected\nConnect the board's USB port for data (OTG) to this computer and switch the "
                "board on, or run adb connect ADDRESS for one on the network; "
                f"{self.keymap.shown('refresh')} asks again"
            )
        else:
            empty = ""
        serial = max((len(one.serial) for one in devices), default=0)
        columns = (
            RowColumn("serial", serial, least=min(serial, 20)),
            RowColumn("state", max((len(one.state) for one in devices), default=0)),
            RowColumn("model", max((len(one.model) for one in devices), default=0), least=6, rank=1),
            RowColumn("product", max((len(one.product) for one in devices), default=0), rank=3),
            RowColumn("", max((len(explanation(one)) for one in devices), default=0), least=12, rank=2),
        )

        def cells(row: int) -> Cells:
            one = devices[row]
            ready = one.state == "device"
            return (
                (one.serial, "text"),
                (one.state, "text" if ready else "warning"),
                (one.model, "text"),
                (one.product, "muted"),
                (explanation(one), "text" if ready else "warning"),
            )

        return Table(columns, len(devices), cells, empty)

    def about(self, size: Size) -> list[Line]:
        one = self.device
        if one is None:
            return []
        width = self.app.size.width - 1
        facts = (
            ("model", one.model),
            ("product", one.product),
            ("device", one.device),
            ("transport id", one.transport),
        )
        lines: list[Line] = [[(f" {self.symbols.rule} {drawable(one.serial, self.symbols)}", "title")]]
        lines += self.wrapped("state", f"{one.state}: {explanation(one)}", width)
        lines += self.wrapped("adb says", one.note, width, "muted")
        for label, text in (*facts, ("plugged in at", one.path)):
            lines += self.wrapped(label, text, width)
        return lines

    def do_refresh(self) -> Reply:
        if not self._asking:
            self._asking = True
            self.run_worker(self._ask(), group="devices", exit_on_error=False)
            self.refresh_rows()
        return None

    async def _ask(self) -> None:
        try:
            self.devices, self._fault = await list_devices(), ""
        except EngineError as error:
            self.devices, self._fault = [], str(error)
        finally:
            self._asking, self._asked = False, time.strftime("%H:%M:%S")
        self.refresh_rows()
