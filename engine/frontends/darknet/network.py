"""A Darknet network while it becomes a graph: the layers so far, and what every kind of section needs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.darknet.activations import ACTIVATIONS
from engine.frontends.darknet.cfg import Section
from engine.frontends.darknet.weights import Array, Weights
from engine.frontends.making import GraphMaker

Handler = Callable[["Network", Section], ir.Value]
"""Makes the nodes of a section and returns its output."""

HANDLERS: dict[str, Handler] = {}
"""By section type."""

BECOMES: dict[str, tuple[str, ...]] = {}
"""By section type, with a word about what changes it where it does, the ONNX operators besides its activation."""

BATCH_NORMALIZATION_EPSILON = 1e-6
"""What is added to a variance under the root. Darknet's forks differ: the first adds 1e-6 to the root, later ones 1e-5
under it, and OpenCV, which most people run such networks with, 1e-6 under it. Only variances below 0.01 show it."""


def section(
    *types: str, becomes: tuple[str, ...] = (), variants: Mapping[str, tuple[str, ...]] | None = None
) -> Callable[[Handler], Handler]:
    """Let the function read sections of these types; `variants` become other operators than `becomes`."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(types, handler))
        for detail, operators in {"": becomes, **(variants or {})}.items():
            BECOMES.update({f"[{name}]{detail and ' '}{detail}": operators for name in types})
        return handler

    return register


class Network:
    """`current` is the output of the section before, at first the input. Images are four-dimensional, what connected
    layers make has two dimensions."""

    def __init__(self, maker: GraphMaker, weights: Weights, image: ir.Value) -> None:
        self.maker = maker
        self.weights = weights
        self.current = image
        self.layers: list[tuple[str, ir.Value | None]] = []
        """Every layer so far: its name and output, None for detections, which are not computed."""
        self.named: set[ir.Value] = set()
        """Outputs of layers, which have their names."""

    def node(self, op_type: str, inputs: list[ir.Value | None], at: Section, part: str, **attributes: Any) -> ir.Value:
        """Add a node to the layer `at`; `part` is what its output is called behind the layer's name."""
        return self.maker.node(op_type, inputs, f"{at.name}.{part}", source=at.name, **attributes)

    def constant(self, array: Array | list[int] | float, at: Section, part: str) -> ir.Value:
        """Add a constant to the layer `at`."""
        return self.maker.constant(array, f"{at.name}.{part}")

    def weight(self, shape: tuple[int, ...], at: Section, part: str) -> ir.Value:
        """A constant of the next numbers of the weights file."""
        return self.constant(self.weights.take(shape, at.name, part), at, part)

    def refuse(self, at: Section, detail: str = "", hint: str = "") -> None:
        """Note that the section asks for what cannot be done."""
        self.maker.refuse(at.type, at.name, detail, hint)

    def refuse_options(self, at: Section, *keys: str, besides: int = 0) -> None:
        """Refuse whole-number options that are set to something else."""
        for key in keys:
            if at.whole(key, besides) != besides:
                self.refuse(at, f"{key}={at.text(key)[:20]}")

    def image(self) -> ir.Value:
        """The current output as an image of four dimensions."""
        return self.as_image(self.current)

    def as_image(self, value: ir.Value) -> ir.Value:
        """The value in four dimensions: what a connected layer made is an image of one point."""
        shape = self.maker.shape(value)
        if len(shape) == 4:
            return value
        return self.maker.node("Unsqueeze", [value, self.maker.constant([2, 3], "axes")], f"{value.name}.image")

    def size(self, value: ir.Value) -> tuple[int, int, int, int]:
        """Samples, channels, height and width of an image."""
        batch, channels, height, width = self.maker.shape(value)
        return batch, channels, height, width

    def layer(self, at: Section, number: int) -> ir.Value:
        """The output of the layer that a section names: by index from 0, or counted back from itself where negative.

        Raises ModelError where there is no such layer before it.
        """
        index = number + at.index if number < 0 else number
        if not 0 <= index < at.index:
            raise ModelError(
                f"reads layer {number}, which is not before it", where=at.where, hint="layers count from 0 behind [net]"
            )
        name, value = self.layers[index]
        if value is None:
            self.refuse(at, f"reads {name}", "detections are decoded outside of the network")
            return self.current
        return value

    def activate(self, value: ir.Value, at: Section, default: str) -> ir.Value:
        """The layer's activation of `value`."""
        kind = at.text("activation", default)
        if kind not in ACTIVATIONS:
            self.refuse(at, f"activation {kind[:40]!r}")
            return value
        function, _ = ACTIVATIONS[kind]
        return function(self.maker, value, at.name)

    def normalize(
        self, value: ir.Value, at: Section, bias: Array, scale: Array, mean: Array, variance: Array
    ) -> ir.Value:
        """Batch normalization of the channels of `value`. Raises ModelError for variances below 0."""
        if (variance < 0).any():
            what = "its variances are not all positive"
            raise ModelError(what, where=at.where, hint="are the weights of this cfg?")
        inputs: list[ir.Value | None] = [value]
        arrays = {"scales": scale, "biases": bias, "means": mean, "variances": variance}
        inputs += [self.constant(array, at, what) for what, array in arrays.items()]
        return self.node("BatchNormalization", inputs, at, "normalized", epsilon=BATCH_NORMALIZATION_EPSILON)
