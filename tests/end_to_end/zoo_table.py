"""Takes every model of the zoo through everything and prints a row each: `python -m tests.end_to_end.zoo_table`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from engine.errors import EngineError
from engine.session import Session
from tests.end_to_end import zoo_models
from tests.end_to_end.zoo_models import (
    COSINE,
    DIFFERENCE,
    FAR,
    QUANTIZED_COSINE,
    ROUNDING,
    Agreement,
    ZooModel,
    agreement,
    cosine,
)
from tests.zoo import FOLDER


@dataclasses.dataclass
class Row:
    """What was found of a model; what was not reached is None or empty. `faults` are what went wrong.

    `graph` is the float graph's agreement with the reference, `reference` that of the build without calibration, and
    `rounded` the difference of the float graph with its weights and all that it computes rounded to float16.
    """

    model: ZooModel
    layers: int = 0
    load_seconds: float | None = None
    quantized: bool = False
    graph: Agreement | None = None
    reference: Agreement | None = None
    rounded: float = 0.0
    int8_cosine: float | None = None
    analysis: str = ""
    package: str = ""
    app: str = ""
    seconds: float = 0.0
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def near(self) -> bool:
        """Whether the build without calibration is as near to the reference as is asked."""
        found, graph = self.reference, self.graph
        if found is None or graph is None:
            return False
        if self.quantized:
            return found.cosine >= QUANTIZED_COSINE and found.far <= FAR and found.top
        exact = graph.cosine >= COSINE and graph.difference <= DIFFERENCE
        return exact and found.cosine >= COSINE and found.difference <= self.allowed

    @property
    def allowed(self) -> float:
        """How far float16 may be from the reference, in parts of an output's range."""
        return max(DIFFERENCE, ROUNDING * self.rounded)


def examine(model: ZooModel, folder: Path, *, app: bool = False) -> Row:
    """Load, compare with the reference, build int8, analyse, export and load again, and with `app` open in the app."""
    row = Row(model)
    begun = time.perf_counter()
    made = _attempt(row, "load", lambda: _load(row))
    if made is not None:
        _attempt(row, "reference", lambda: _compare(row, made))
        if _attempt(row, "int8", lambda: _quantize(row, made, folder)) is not None:
            _attempt(row, "analysis", lambda: _analyze(row, made, folder))
            _attempt(row, "package", lambda: _package(row, made, folder))
        if app:
            _attempt(row, "app", lambda: _open(row, made, folder))
    row.seconds = time.perf_counter() - begun
    return row


def _attempt(row: Row, step: str, work: Callable[[], Session | None]) -> Session | None:
    try:
        return work()
    except (EngineError, ImportError, AssertionError) as error:
        row.faults.append(f"{step}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    except Exception as error:  # whatever a half-done front end raises is a row of the table, not its end
        row.faults.append(f"{step}: SURPRISE {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return None


def _load(row: Row) -> Session:
    made, row.load_seconds = zoo_models.loaded(row.model)
    row.layers = len(made.summary().layers)
    row.quantized = zoo_models.came_quantized(made)
    return made


def _compare(row: Row, made: Session) -> None:
    row.graph = agreement(row.model, made, zoo_models.infer_float(row.model, made))
    if not row.quantized:
        row.rounded = agreement(row.model, made, zoo_models.infer_rounded(row.model, made)).difference
    made.build(do_quantization=False)
    row.reference = agreement(row.model, made, zoo_models.infer(row.model, made))
    if not row.near:
        row.faults.append(f"reference: {_told(row, row.graph, row.reference)}")


def _told(row: Row, graph: Agreement, found: Agreement) -> str:
    if not row.quantized:
        exact = f"in float32 cosine {graph.cosine:.6f}, difference {graph.difference:.1e} of the range"
        return f"{exact}; in float16 {found.cosine:.6f}, {found.difference:.1e}, of {row.allowed:.1e} that may be"
    return f"cosine {found.cosine:.6f}, {found.far:.2%} far, the largest is {'the same' if found.top else 'another'}"


def _quantize(row: Row, made: Session, folder: Path) -> Session:
    path, _ = zoo_models.dataset(row.model, made, folder)
    made.build(dataset=path)
    outputs = zoo_models.infer(row.model, made)
    agreement(row.model, made, outputs)  # names and shapes
    known = [tensor.name for tensor in made.summary().outputs]
    expected = zoo_models.references(row.model, made)
    row.int8_cosine = min(cosine(one, other) for one, other in zip(outputs, expected, strict=True))
    bad = [name for name, one in zip(known, outputs, strict=True) if not np.isfinite(one).all()]
    assert not bad, f"not finite: {bad}"
    return made


def _analyze(row: Row, made: Session, folder: Path) -> None:
    _, sample = zoo_models.dataset(row.model, made, folder)
    report = zoo_models.analyzed(made, sample)
    assert report.layers and report.outputs, "the report is empty"
    row.analysis = "ok"


def _package(row: Row, made: Session, folder: Path) -> None:
    before, after = zoo_models.infer(row.model, made), zoo_models.packaged(row.model, made, folder)
    same = all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert same, "the package computes something else"
    row.package = "ok"


def _open(row: Row, made: Session, folder: Path) -> None:
    place = folder / "app"
    place.mkdir()
    zoo_models.shown_by_the_app(row.model, made, place)
    row.app = "ok"


_COLUMNS = {
    "model": 38,
    "layers": 6,
    "load s": 6,
    "kind": 9,
    "float32": 8,
    "rounded": 8,
    "float16": 8,
    "cosine": 8,
    "far": 6,
    "top": 5,
    "int8 cos": 8,
    "analysis": 8,
    "package": 7,
    "app": 3,
    "s": 5,
}
"""With their widths. `float32`, `rounded` and `float16` are the largest differences from the reference in parts of the
output's range: of the float graph, of the same with all numbers rounded to float16, and of the float16 build. `cosine`,
`far` and `top` are of the build without calibration, which for a model that came quantized has its own parameters."""


def _cells(row: Row) -> tuple[str, ...]:
    graph, found = row.graph, row.reference
    return (
        row.model.label,
        str(row.layers or "-"),
        "-" if row.load_seconds is None else f"{row.load_seconds:.2f}",
        "quantized" if row.quantized else "float",
        "-" if graph is None else f"{graph.difference:.1e}",
        "-" if graph is None or row.quantized else f"{row.rounded:.1e}",
        "-" if found is None or row.quantized else f"{found.difference:.1e}",
        "-" if found is None else f"{found.cosine:.6f}",
        "-" if found is None or not row.quantized else f"{found.far:.1%}",
        "-" if found is None or not row.quantized else ("same" if found.top else "OTHER"),
        "-" if row.int8_cosine is None else f"{row.int8_cosine:.4f}",
        row.analysis or "-",
        row.package or "-",
        row.app or "-",
        f"{row.seconds:.1f}",
    )


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a model failed somewhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.zoo_table", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models or frameworks, or parts of their names")
    parser.add_argument("--app", action="store_true", help="open each in the app as well")
    arguments = parser.parse_args(words)
    chosen = [m for m in zoo_models.models() if not arguments.names or any(name in m.label for name in arguments.names)]
    if not chosen:
        print(f"no such models in {FOLDER}; set RKNN_TUI_ZOO to a folder of real models", file=sys.stderr)
        return 2
    print(_line(tuple(_COLUMNS)))
    rows = []
    for model in chosen:
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(examine(model, Path(name), app=arguments.app))
        print(_line(_cells(rows[-1])), "ok" if not rows[-1].faults else "FAILED", flush=True)
        for fault in rows[-1].faults:
            print(f"    {fault}", flush=True)
    failed = [row.model.label for row in rows if row.faults]
    print(f"{len(rows) - len(failed)} of {len(rows)} models ok" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


def _line(cells: Sequence[str]) -> str:
    first, *rest = zip(cells, _COLUMNS.values(), strict=True)
    return " ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


if __name__ == "__main__":
    sys.exit(main())
