"""Translates a TorchScript module that torch has loaded into a graph; runs in a process that has torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from engine.errors import ConfigError, ModelError, nearest
from engine.frontends.making import GraphMaker
from engine.frontends.pytorch import eager, operators_all
from engine.frontends.pytorch.archive import Example
from engine.frontends.pytorch.interpreter import Interpreter
from engine.frontends.pytorch.program import Block, read_graph
from engine.frontends.pytorch.translation import Translation, WantsIntegers
from engine.frontends.pytorch.values import DTYPES, Refused, Tensor, Unknown

__all__ = ["Wishes", "load_module", "operators_all", "translate"]


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the caller asks for; `examples` are what the model was traced with, in the order of its inputs."""

    sizes: Sequence[Sequence[int]] | None = None
    inputs: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    examples: Sequence[Example] = ()


def load_module(path: str) -> Any:
    """The TorchScript module in a file, ready for inference; quantized operators as phones compute them."""
    torch = eager.torch()
    supported = torch.backends.quantized.supported_engines
    for engine in ("qnnpack", "fbgemm", "x86", "onednn"):
        if engine in supported:
            torch.backends.quantized.engine = engine
            break
    module = torch.jit.load(path, map_location="cpu")
    with contextlib.suppress(RuntimeError, AttributeError):  # one that is frozen has no such state
        module.eval()
    return module


def translate(
    module: Any, where: str, wishes: Wishes, tell: Callable[[int, int], None] = lambda done, total: None
) -> ir.Model:
    """The graph of `module.forward`. Raises ModelError, UnsupportedOperator, ConfigError."""
    if not module._c._has_method("forward"):
        raise ModelError("has no method forward", where=where, hint="save a module with a forward method")
    method = module._c._get_method("forward")
    graph = read_graph(method.graph)
    parameters = _parameters(module, method.schema, where)
    whole: set[str] = set()
    for _ in range(len(parameters) + 1):
        try:
            return _translate(module, graph, parameters, where, wishes, whole, tell)
        except WantsIntegers as wants:
            whole.add(str(wants))
    raise ModelError("reads an input as numbers of two kinds", where=where)


@dataclasses.dataclass(frozen=True)
class _Parameter:
    name: str
    type: Any
    default: Any
    has_default: bool


def _parameters(module: Any, schema: Any, where: str) -> list[_Parameter]:
    return [
        _Parameter(one.name, one.type, one.default_value if one.has_default_value() else None, one.has_default_value())
        for one in schema.arguments[1:]
    ]


def _translate(
    module: Any,
    graph: Block,
    parameters: Sequence[_Parameter],
    where: str,
    wishes: Wishes,
    whole: set[str],
    tell: Callable[[int, int], None],
) -> ir.Model:
    maker = GraphMaker(where)
    t = Translation(maker)
    inputs = _Inputs(t, parameters, wishes, whole)
    arguments = [inputs.make(one.name, one.type, one) for one in parameters]
    inputs.check_all_used()
    interpreter = Interpreter(t, tell)
    results = interpreter.run(graph, [module._c, *arguments])
    known = {one.content: name for name, one in interpreter.named.items() if not name.isdigit() and _is_known(one)}
    found: list[tuple[str, Any]] = []
    for value in results:
        _flatten(value, "", found)
    if wishes.outputs is None:
        outputs = [value for _, value in found]
        names = [_output_name(name, value, known, index) for index, (name, value) in enumerate(found)]
    else:
        outputs, names = _cut(interpreter, t, wishes.outputs, found, known), list(wishes.outputs)
    if interpreter.lost or not all(_is_known(one) for one in outputs):
        for refusal in interpreter.refusals:
            maker.refuse(*refusal)
        maker.check_refused()
        raise ModelError("an output is not a tensor, or depends on what is not known", where=where)
    values = [t.value(one) for one in outputs]
    for name in wishes.inputs or ():  # the caller may know a tensor by the name that TorchScript prints
        tensor = interpreter.named.get(name)
        if tensor is not None and not tensor.is_constant and not tensor.content.is_graph_input():
            maker.rename(tensor.content, name)
    return maker.model(values, _apart(names))


def _is_known(one: Any) -> bool:
    try:
        return isinstance(one, Tensor) and one.content is not None
    except Refused:
        return False


def _apart(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name] - 1}")
    return result


def _flatten(value: Any, name: str, found: list[tuple[str, Any]]) -> None:
    """The tensors of a result in order, with the keys of dictionaries."""
    if isinstance(value, dict):
        for key, one in value.items():
            _flatten(one, str(key), found)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _flatten(one, "", found)
    elif isinstance(value, (int, float)):
        found.append((name, Tensor(eager.torch().tensor(value))))
    elif value is not None:
        found.append((name, value))


def _output_name(key: str, value: Any, known: dict[Any, str], index: int) -> str:
    """The key of the dictionary, the name in the source, the path of the module, or the position."""
    if key or not _is_known(value):
        return key or f"out{index}"
    content = value.content
    if content in known if isinstance(content, ir.Value) else False:
        return known[content]
    own = str(content.name or "") if isinstance(content, ir.Value) else ""
    return own if own and not own.isdigit() and not content.is_graph_input() else f"out{index}"


def _cut(
    interpreter: Interpreter,
    t: Translation,
    names: Sequence[str],
    found: Sequence[tuple[str, Any]],
    known: dict[Any, str],
) -> list[Any]:
    """The tensors called `names`, as the graph or TorchScript calls them, or as outputs would be called."""
    ends = {_output_name(name, value, known, index): value for index, (name, value) in enumerate(found)}
    values = {value.name: Tensor(value) for value in t.made if value.name}
    outputs = []
    for name in names:
        one = ends.get(name) or values.get(name) or interpreter.named.get(name)
        if one is None:
            if interpreter.refusals:
                return [Unknown()]
            hint = nearest(name, [str(key) for key in (*ends, *values)])
            raise ConfigError(f"the model has no tensor {name!r}", where="outputs", hint=hint)
        outputs.append(one)
    if not outputs:
        raise ConfigError("is an empty list", where="outputs", hint="name at least one tensor, or leave it out")
    return outputs


class _Inputs:
    """Makes the arguments of `forward` one after another, with the sizes that were asked for."""

    def __init__(self, t: Translation, parameters: Sequence[_Parameter], wishes: Wishes, whole: set[str]) -> None:
        self._t = t
        self._wishes = wishes
        self._whole = whole
        self._names = [one.name for one in parameters]
        self._used = 0
        self._by_name: dict[str, Sequence[int]] | None = None
        sizes = wishes.sizes
        if wishes.inputs is not None and sizes is not None and all(n in self._names for n in wishes.inputs):
            if len(sizes) != len(wishes.inputs):
                self._mismatch(sizes, wishes.inputs)
            self._by_name = dict(zip(wishes.inputs, sizes, strict=True))
        elif wishes.inputs is not None and not all(n in self._names for n in wishes.inputs):
            sizes = None  # they are those of tensors inside
        self._sizes = sizes

    def make(self, name: str, kind: Any, parameter: _Parameter | None) -> Any:
        """An argument: an input of the graph for every tensor in it, defaults for what is none."""
        sort = kind.kind()
        if sort == "TensorType":
            return self._tensor(name)
        if sort == "OptionalType" and kind.getElementType().kind() == "TensorType":
            return self._tensor(name) if self._is_given(name) else None
        if sort == "OptionalType" and parameter is not None and not parameter.has_default:
            return None
        if parameter is not None and parameter.has_default:
            return eager.wrapped(parameter.default)
        if sort == "TupleType":
            return tuple(self.make(f"{name}_{i}", one, None) for i, one in enumerate(kind.elements()))
        if sort == "ListType" and kind.getElementType().kind() == "TensorType":
            count = len(self._sizes) - self._used if self._sizes is not None else 1
            return [self._tensor(f"{name}_{i}") for i in range(max(count, 1))]
        raise ModelError(
            f"input {name!r} is no tensor but {kind.annotation_str}",
            where=self._t.maker.where,
            hint="export a module whose forward takes tensors",
        )

    def _is_given(self, name: str) -> bool:
        if self._by_name is not None:
            return name in self._by_name
        if self._sizes is not None:
            return self._used < len(self._sizes)
        return self._used < len(self._wishes.examples)

    def _tensor(self, name: str) -> Tensor:
        index, self._used = self._used, self._used + 1
        examples = self._wishes.examples
        dtype = examples[index][1] if index < len(examples) else "float32"
        shape: Sequence[int]
        if self._by_name is not None and name in self._by_name:
            shape = self._by_name[name]
        elif self._by_name is None and self._sizes is not None and index < len(self._sizes):
            shape = self._sizes[index]
        elif self._sizes is not None and self._by_name is None:
            self._mismatch(self._sizes, self._names)
            raise AssertionError
        elif index < len(examples):
            shape = examples[index][0]
        else:
            raise ConfigError(
                f"the size of input {name!r} is not known: TorchScript does not keep it",
                where="input_size_list",
                hint="give one shape for every input, as [[1, 3, 224, 224]]",
            )
        kind = ir.DataType.INT64 if name in self._whole else DTYPES[dtype]
        return Tensor(self._t.maker.input(name, [int(d) for d in shape], kind, layout="nchw"))

    def check_all_used(self) -> None:
        """Refuse sizes that no input is left for."""
        if self._by_name is None and self._sizes is not None and len(self._sizes) > self._used:
            self._mismatch(self._sizes, self._names)

    def _mismatch(self, sizes: Sequence[Sequence[int]], names: Sequence[str]) -> None:
        raise ConfigError(
            f"gives {len(sizes)} shapes for {len(names)} inputs ({', '.join(names)})", where="input_size_list"
        )
