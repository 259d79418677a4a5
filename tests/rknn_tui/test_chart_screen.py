"""The charts screen: which chart is shown, what is drawn when, and where an export goes."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from rich.style import Style
from textual.app import App
from textual.geometry import Region
from textual.pilot import Pilot

from engine.errors import EngineError
from engine.estimates import CostTotals
from engine.summaries import LayerFacts, LayerSummary, SourceMap, TuneReport
from rknn_tui.bench.dialogue import Notice
from rknn_tui.charting import drawing
from rknn_tui.graph.layer_values import LayerValues
from rknn_tui.keymap import DEFAULT
from rknn_tui.palette import ROLES, Palette
from rknn_tui.screens.charts import ChartsScreen
from rknn_tui.settings import Settings
from rknn_tui.symbols import ASCII, UNICODE, Symbols
from rknn_tui.widgets import chart as chart_widget

LAYERS = tuple(LayerSummary(at, f"/m.{at}/conv", "Conv", (), (1, 8), "float32") for at in range(8))


@dataclasses.dataclass
class Data:
    """What a workbench would give."""

    path: str = ""
    layers: tuple[LayerSummary, ...] = LAYERS
    layer_values: dict[str, LayerValues] = dataclasses.field(default_factory=dict)
    source_map: SourceMap | None = None
    tune_report: TuneReport | None = None
    in_force: int | None = None
    target: str = "rk3588"
    cost_totals: CostTotals | None = None
    target_totals: dict[str, CostTotals | EngineError] = dataclasses.field(default_factory=dict)
    comparisons: int = 0
    layer_facts: LayerFacts | None = None

    def compare_targets(self) -> None:
        self.comparisons += 1


class OneScreen(App[None]):
    """An app of nothing but the charts."""

    folder = Path(__file__).resolve().parents[2] / "rknn_tui"
    CSS_PATH: ClassVar = [folder / "app.tcss", folder / "screens" / "charts.tcss"]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, data: Data, symbols: Symbols = UNICODE) -> None:
        super().__init__(ansi_color=True)
        self.palette = Palette("plain", True, True, dict.fromkeys(ROLES, Style()), {})
        self.symbols, self.keymap, self.settings = symbols, DEFAULT, Settings()
        self.bench = SimpleNamespace(path=data.path, refuse_to_write_in=lambda folder: None)
        self.notices: list[Notice] = []
        self.tune = SimpleNamespace(notices=self.notices, perform=lambda action: None)
        self.charts = ChartsScreen(self, data)  # type: ignore[arg-type]
        self.left = ""

    def get_default_screen(self) -> Any:
        return self.charts

    def go_to(self, name: str) -> None:
        self.left = name

    def rows(self) -> list[str]:
        """The screen as text."""
        return [
            "".join(segment.text for segment in strip).rstrip()
            for strip in self.charts._compositor.render_strips(self.size)
        ]


def values(lowest: float = 0.9) -> dict[str, LayerValues]:
    return {layer.name: LayerValues("int8", entire=lowest if layer.index == 5 else 0.999) for layer in LAYERS}


async def shown(pilot: Pilot[None], *keys: str) -> list[str]:
    await pilot.press(*keys)
    await pilot.pause()
    assert isinstance(pilot.app, OneScreen)
    return pilot.app.rows()


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (200, 50)])
@pytest.mark.parametrize("symbols", [UNICODE, ASCII], ids=["unicode", "ascii"])
async def test_every_chart_can_be_reached_and_says_what_it_is(size: tuple[int, int], symbols: Symbols) -> None:
    app = OneScreen(Data(path="/models/det.onnx", layer_values=values()), symbols)
    async with app.run_test(size=size) as pilot:
        rows = await shown(pilot)
        assert rows[0] == " charts  det.onnx"
        assert rows[1].startswith(" cosine by layer")
        assert f"{symbols.marker}cosine" in rows[-3]
        assert "] next" in rows[-1]
        titles = [rows[1]]
        for _ in range(7):
            titles.append((await shown(pilot, "right_square_bracket"))[1])
        assert [" ".join(title.split()[:3]) for title in titles] == [
            *("cosine by layer", "where the error", "time by layer", "memory over the", "time by operator"),
            *("time by target", "candidates of the", "values of a"),
        ]
        assert "cosine by layer" in (await shown(pilot, "j"))[1], "after the last comes the first"
        assert "values" in (await shown(pilot, "left_square_bracket"))[1]
        assert "where the error" in (await shown(pilot, "g", "tab"))[1]
        assert symbols.unicode or all(row.isascii() for row in app.rows())
        await pilot.press("escape")
        assert app.left == "tune"


async def test_an_empty_chart_names_the_key_that_fills_it() -> None:
    app = OneScreen(Data())
    async with app.run_test(size=(80, 24)) as pilot:
        assert "a among the layers analyses" in "\n".join(await shown(pilot))
        assert "i among the layers traces" in "\n".join(await shown(pilot, "tab"))
        await shown(pilot, "tab", "e")
        assert app.notices[-1] == Notice("nothing to export: no estimate yet", "warning")


async def test_a_chart_is_drawn_once_and_then_only_where_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def counted(chart: Any, *rest: Any) -> Any:
        drawn.append(chart.id)
        return drawing.as_text(chart, *rest)

    monkeypatch.setattr(chart_widget, "as_text", counted)
    data = Data(layer_values=values())
    app = OneScreen(data)
    async with app.run_test(size=(80, 24)) as pilot:
        before = await shown(pilot)
        drawn.clear()
        app.charts.numbers_changed()
        app.charts.show_frame()
        assert drawn == [], "nothing is another one"

        view = app.charts.view
        regions: list[Region] = []
        refresh = view.refresh

        def recorded(*changed: Region, **how: Any) -> Any:
            regions.extend(changed or [view.size.region])
            return refresh(*changed, **how)

        monkeypatch.setattr(view, "refresh", recorded)
        data.layer_values = values(0.91)
        app.charts.numbers_changed()
        assert drawn == ["cosine"]
        await pilot.pause()
        after = app.rows()
        cells = {(x, y) for one in regions for y in range(one.y, one.bottom) for x in range(one.x, one.right)}
        changed = {
            (x, y - 1)
            for y, (old, new) in enumerate(zip(before, after, strict=True))
            for x, (a, b) in enumerate(zip(old.ljust(80), new.ljust(80), strict=True))
            if a != b
        }
        assert changed
        assert changed <= cells
        assert len(cells) < 80 * 20 / 2

        drawn.clear()
        await pilot.resize_terminal(60, 16)
        await pilot.pause()
        assert set(drawn) == {"cosine"}
        assert app.rows()[1].startswith(" cosine by layer")
        assert max(map(len, app.rows())) <= 60


async def test_an_export_goes_beside_the_model_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    app = OneScreen(Data(path=str(folder / "det.onnx"), layer_values=values()))
    async with app.run_test(size=(200, 24)) as pilot:
        rows = await shown(pilot, "e")
        assert f"wrote det.cosine.txt and det.cosine.csv to {folder}" in rows[-2]
    with (folder / "det.cosine.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["entire"]) for row in table] == [value.entire for value in values().values()]
    assert "0.90000 at #5 /m.5/conv" in (folder / "det.cosine.txt").read_text()


async def test_an_export_finds_another_folder_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    app = OneScreen(Data(path=str(tmp_path / "gone" / "det.onnx"), layer_values=values()))
    async with app.run_test(size=(120, 24)) as pilot:
        await shown(pilot, "e")
        assert app.notices[-1] == Notice(f"wrote det.cosine.txt and det.cosine.csv to {here}")
        (here / "det.cosine.txt").unlink()
        (here / "det.cosine.txt").mkdir()
        await shown(pilot, "e")
        assert app.notices[-1].level == "error"
        assert "is a folder, not a file" in app.notices[-1].text
