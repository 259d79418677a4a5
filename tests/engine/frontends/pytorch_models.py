"""Small TorchScript models, and what torch itself makes of them beside what the front end does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from engine.frontends.finishing import finish
from engine.frontends.pytorch import operators
from engine.frontends.pytorch.program import Block, read_graph
from engine.frontends.pytorch.translate import Wishes, translate
from engine.graph.execution import run_float

torch: Any = pytest.importorskip("torch")
nn: Any = torch.nn
F: Any = torch.nn.functional

_ALWAYS = {"Identity", "Cast", "Expand", "Reshape", "Transpose", "Slice"}


def made_of(*operators_of: Any) -> Any:
    """A module in evaluation mode whose layers are run one after another."""
    return nn.Sequential(*operators_of).eval()


class Calls(nn.Module):  # type: ignore[misc]
    """Calls a function, so that one can be traced with parameters as constants."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        result = self.function(*inputs)
        return result if isinstance(result, (torch.Tensor, dict)) else tuple(flat(result))


def floats(*shape: int, seed: int = 0) -> Any:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scripted(module: Any) -> Any:
    """The module or function as torch.jit.script makes it, loaded as from a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _reloaded(torch.jit.script(module))


def traced(module: Any, *inputs: Any) -> Any:
    """The module or function as torch.jit.trace makes it, loaded as from a file."""
    module = module if isinstance(module, nn.Module) else Calls(module)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return _reloaded(torch.jit.trace(module.eval(), inputs, check_trace=False, strict=False))


def _reloaded(module: Any) -> Any:
    import io

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not isinstance(module, torch.jit.ScriptModule):  # a function, which only a module can hold
            raise TypeError("script a module")
        torch.jit.save(module, stream)
        stream.seek(0)
        return torch.jit.load(stream)


def graph_of(module: Any, *inputs: Any, outputs: Sequence[str] | None = None) -> ir.Model:
    """What the front end makes of a TorchScript module, for inputs of these shapes and types."""
    examples = [(list(one.shape), str(one.dtype).removeprefix("torch.")) for one in inputs]
    model = translate(module, "net.pt", Wishes(None, None, outputs, examples))
    _check_table(module, model)
    return finish(model, "net.pt", keep_inputs=[value.name or "" for value in model.graph.inputs])


def _check_table(module: Any, model: ir.Model) -> None:
    """What is written is what the table of operators says."""
    table = operators()
    kinds = {step.kind for step in _steps(read_graph(module._c._get_method("forward").graph))}
    allowed = set(_ALWAYS)
    for kind in kinds:
        allowed |= set(table.get(kind, ())) | set(table.get(kind.rstrip("_"), ()))
        if kind.endswith("_"):  # which may write into a part of a tensor
            allowed |= {"Concat", "Gather"}
    assert {node.op_type for node in model.graph} <= allowed, kinds


def _steps(block: Block) -> Iterator[Any]:
    for step in block.steps:
        yield step
        for inner in step.blocks:
            yield from _steps(inner)


def flat(value: Any) -> list[Any]:
    """The tensors of a result in order."""
    if isinstance(value, dict):
        return [one for item in value.values() for one in flat(item)]
    if isinstance(value, (list, tuple)):
        return [one for item in value for one in flat(item)]
    return [] if value is None else [value]


def check(module: Any, *inputs: Any, tolerance: float = 1e-5) -> ir.Model:
    """Assert that the front end's graph of a TorchScript module computes what torch does; returns the graph."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = flat(module(*[one.clone() for one in inputs]))
    model = graph_of(module, *inputs)
    feeds = {value.name or "": one.numpy() for value, one in zip(model.graph.inputs, inputs, strict=True)}
    found = run_float(model, feeds)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        wanted = other.dequantize().numpy() if other.is_quantized else other.numpy()
        assert one.shape == wanted.shape
        scale = max(float(np.abs(wanted).max(initial=0)) if wanted.dtype.kind == "f" else 1.0, 1.0)
        np.testing.assert_allclose(
            one.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance * scale
        )
    return model


def check_traced(function: Any, *inputs: Any, tolerance: float = 1e-5) -> ir.Model:
    """`check` of a module or function that is traced with these inputs."""
    return check(traced(function, *inputs), *inputs, tolerance=tolerance)


def check_scripted(module: Any, *inputs: Any, tolerance: float = 1e-5) -> ir.Model:
    """`check` of a module that is scripted."""
    return check(scripted(module.eval()), *inputs, tolerance=tolerance)
