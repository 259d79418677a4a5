"""Models that came quantized are simulated as integer arithmetic gives it, to the step."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.frontends.finishing import finish
from engine.frontends.making import GraphMaker
from engine.graph.layers import layers
from engine.quantization.quantize import given_only
from engine.quantization.quantized import Quantized
from engine.simulator.lowering import lower
from engine.simulator.runner import Simulator
from engine.simulator.stepwise import Stepwise

Array = np.ndarray[Any, Any]
CHANNELS, SIZE = 8, 6


class Product:
    """A 3x3 convolution of unsigned bytes with signed weights, as integer engines compute it."""

    def __init__(self, draw: np.random.Generator, inputs: int, channel: bool, ends: tuple[float, float] | None) -> None:
        self.weight = draw.integers(-127, 128, (CHANNELS, inputs, 3, 3))
        self.bias = draw.integers(-2000, 2000, CHANNELS)
        self.scales = np.float32(draw.uniform(0.001, 0.01, CHANNELS if channel else 1)).astype(np.float64)
        self.scale = float(np.float32(draw.uniform(0.02, 0.2)))
        self.zero = int(draw.integers(0, 200))
        self.ends = ends

    def add(self, maker: GraphMaker, name: str, value: Any, scale: float) -> Any:
        """The convolution, its limits and the grid that it ends on, in real values."""
        shaped = self.scales.reshape(-1, 1, 1, 1)
        weight = maker.constant((self.weight * shaped).astype(np.float32), f"{name}.weight")
        axis = 0 if self.scales.size > 1 else None
        maker.quantized(weight, "int8", self.scales, [0] * self.scales.size, axis)
        bias = maker.constant((self.bias * scale * self.scales).astype(np.float32), f"{name}.bias")
        made = maker.node("Conv", [value, weight, bias], f"{name}.conv", pads=[1, 1, 1, 1])
        if self.ends is not None:
            ends = [maker.constant(end, f"{name}.end") for end in self.ends]
            made = maker.node("Clip", [made, *ends], f"{name}.clip")
        return maker.quantized(made, "uint8", [self.scale], [self.zero])

    def run(self, stored: Array, zero: int, scale: float) -> Array:
        """The stored output of the stored input."""
        padded = np.pad(stored.astype(np.int64) - zero, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        sums = np.einsum("chwij,ocij->ohw", windows, self.weight) + self.bias.reshape(-1, 1, 1)
        factors = (scale * self.scales / self.scale).astype(np.float32).reshape(-1, 1, 1)
        steps = np.rint(sums.astype(np.float32) * factors)
        if self.ends is not None:
            steps = np.clip(steps, *(np.rint(np.float32(end) / np.float32(self.scale)) for end in self.ends))
        return np.clip(steps + self.zero, 0, 255)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([None, (0.0, 6.0), (-1.0, 1.0)]))
def test_convolutions_end_on_the_very_steps(seed: int, channel: bool, ends: tuple[float, float] | None) -> None:
    draw = np.random.default_rng(seed)
    scale, zero = float(np.float32(draw.uniform(0.01, 0.1))), int(draw.integers(0, 256))
    products = [Product(draw, inputs, channel, ends) for inputs in (3, CHANNELS, CHANNELS)]
    maker = GraphMaker("net")
    value = maker.quantized(maker.input("x", [1, 3, SIZE, SIZE]), "uint8", [scale], [zero])
    at = scale
    for index, product in enumerate(products):
        value, at = product.add(maker, f"p{index}", value, at), product.scale
    model = finish(maker.model([value], ["y"]), "net")
    seen = layers(model)
    quantized = Quantized(model, seen, given_only(model, seen))

    stored = draw.integers(0, 256, (3, SIZE, SIZE))
    expected, grid = stored, (zero, scale)
    for product in products:
        expected, grid = product.run(expected, *grid), (product.zero, product.scale)
    real = ((stored - zero) * np.float32(scale)).astype(np.float32)[None]
    found = Simulator(quantized).run({"x": real})[0][0]
    assert np.array_equal(np.rint(found / grid[1]) + grid[0], expected)
    # Layer by layer it is the same, and nothing is rescaled to real values in between.
    assert np.array_equal(Stepwise(quantized, [{"x": real}]).value(0, "y")[0], found)
    assert "whole" in str(lower(quantized).graph.initializer)
