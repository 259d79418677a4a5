"""The bundled model as a package with a binary for a stand-in of the vendor's runtime, which answers as our simulator.

Nothing is computed on the board: the stand-in knows the images that it is to be given.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from engine import demo
from engine.config import Config
from engine.files import package
from engine.ort import make_simulation, run, serialize
from engine.quantization.dataset import read_sample
from engine.quantization.preprocessing import input_specs
from engine.session import Session
from engine.simulator.lowering import lower
from tests.doubles import librknnrt
from tests.doubles.board_models import Answer, Port, Step, stand_in_model
from tests.doubles.boards_fixtures import ConnectedBoard

Array = np.ndarray[Any, Any]
LIBRARY = "/usr/lib/librknnrt.so"
MEMORY = (12_160, 43_520, 81_920, 0, 0)
"""Bytes of weights, between layers, DMA, SRAM, free SRAM, as the stand-in tells them."""
CUSTOM = "digits"


@dataclasses.dataclass(frozen=True)
class CompiledDemo:
    """`package` is ours with the binary in it, `binary` the binary alone, for `target`. `photos` are image files,
    `images` the same as uint8 in NHWC, `outputs` what the simulator gives for them; `layers` are the names of the
    layers in the runtime's table with their microseconds."""

    package: Path
    binary: Path
    target: str
    photos: tuple[Path, ...]
    images: tuple[Array, ...]
    outputs: tuple[Array, ...]
    layers: dict[str, int]


def compiled_demo(
    folder: Path, target: str = "rk3588", settings: dict[str, object] | None = None, *, dumps: bool = True
) -> CompiledDemo:
    """Build the bundled model for `target`; `settings` are the stand-in's, see librknnrt.c."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"mean_values": [list(demo.MEAN)], "std_values": [list(demo.STD)], "target_platform": target}
    session = Session(Config.from_mapping(config))
    (spec,) = input_specs(session.config, session.load(demo.MODEL).inputs)
    session.build(dataset=demo.DATASET)
    single = session._require_built("").single
    names = [name for layer in single.layers for name in layer.outputs]
    wide = make_simulation(serialize(lower(single, further=[n for n in names if n not in _outputs(single)])))
    ours = [*_outputs(single), *(n for n in names if n not in _outputs(single))]
    operators = {layer.name: layer.op for layer in single.layers}

    photos = tuple(path for path, _ in demo.test_samples()[:4])
    images, outputs, answers = [], [], []
    for photo in photos:
        plain = read_sample([photo], [dataclasses.replace(spec, mean=(), std=())])[spec.name]
        normalized = read_sample([photo], [spec])[spec.name]
        tensors = dict(zip(ours, run(wide, None, {spec.name: normalized}), strict=True))
        found = [tensors[name] for name in _outputs(single)]
        last = np.ascontiguousarray(plain.transpose(0, 2, 3, 1))
        given = tensors if dumps else {}
        # As a caller hands a picture over, and as files are read for an analysis.
        for form in (last.astype(np.uint8), last.astype(np.float32)):
            answers.append(Answer([form], found, given, operators))
        images.append(last.astype(np.uint8))
        outputs.append(found[0])
    answers.append(Answer(None, [np.zeros_like(outputs[0])]))
    layers = {layer.name: 100 + 10 * index for index, layer in enumerate(single.layers)}
    steps = [Step(operators[name], name, time) for name, time in layers.items()]
    binary = stand_in_model(
        folder / f"digits.{target}.rknn",
        target,
        [Port(spec.name, spec.shape, scale=1 / 255, zero_point=-128)],
        [
            Port(value.name or "", outputs[0].shape, scale=1 / 256, zero_point=-128)
            for value in single.model.graph.outputs
        ],
        answers,
        steps,
        memory=MEMORY,
        custom_string=CUSTOM,
        settings=settings,
    )
    path = session.export(folder / "digits.rknn")
    package.with_compiled(path, binary.read_bytes(), target, "a stand-in")
    return CompiledDemo(path, binary, target, photos, tuple(images), tuple(outputs), layers)


def _outputs(single: Any) -> list[str]:
    return [value.name or "" for value in single.model.graph.outputs]


def with_runtime(found: ConnectedBoard, version: tuple[int, int] = (2, 0)) -> ConnectedBoard:
    """A board that has the stand-in of the vendor's runtime."""
    found.board.write(LIBRARY, librknnrt.library(version).read_bytes())
    return found
