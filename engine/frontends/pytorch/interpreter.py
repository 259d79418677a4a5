"""Carries out a TorchScript graph: plain values by computing them, tensors by writing ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from engine.errors import ModelError
from engine.frontends.pytorch import eager, plain
from engine.frontends.pytorch.program import Block, Step, module_of, read_graph
from engine.frontends.pytorch.table import VIEWS, Arguments, find
from engine.frontends.pytorch.translation import Translation, axis_of
from engine.frontends.pytorch.values import (
    SCALAR_TYPES,
    Record,
    Refused,
    Spoiled,
    Tensor,
    Unknown,
    tensors_in,
    unknown_in,
)
from engine.frontends.pytorch.writing import part_writer, writer_for

_MOST_STEPS = 2_000_000
_MOST_TRIPS = 20_000
_DEEPEST_CALLS = 50
# What torch computes of constants beside the operators that are translated.
_CONSTANT_ONLY = {
    "aten::_weight_norm",
    "aten::linspace",
    "aten::logspace",
    "aten::eye",
    "aten::hann_window",
    "aten::hamming_window",
    "aten::norm_except_dim",
    "aten::linalg_norm",
    "aten::linalg_inv",
    "aten::inverse",
    "aten::nonzero",
    "aten::nonzero_numpy",
    "aten::masked_select",
    "aten::bincount",
    "aten::item",
    "aten::conj",
    "aten::diag",
    "aten::diagonal",
    "aten::outer",
    "aten::complex",
    "aten::tril_indices",
    "aten::triu_indices",
    "aten::cartesian_prod",
    "aten::combinations",
    "aten::_shape_as_tensor",
    "quantized::conv_prepack",
    "quantized::linear_prepack",
    "quantized::conv1d_prepack",
    "quantized::conv2d_prepack",
}
# Constants that are quantized so keep their grid, and no other processor is asked for.
_NEVER_FOLDED = {
    "aten::cuda",
    "aten::cpu",
    "aten::fake_quantize_per_tensor_affine",
    "aten::fake_quantize_per_channel_affine",
    "aten::fused_moving_avg_obs_fake_quant",
}
_FACTORIES = {"arange", "zeros", "ones", "full", "empty", "linspace", "eye", "scalar_tensor", "logspace"}
_FACTORIES |= {"hann_window", "hamming_window", "tril_indices", "triu_indices"}
_WHAT_IS_KEPT = {"aten::detach", "aten::clone", "aten::contiguous", "aten::to", "aten::alias", "aten::t"}
_WHAT_IS_KEPT |= {"aten::transpose", "aten::permute", "aten::view", "aten::reshape", "aten::unsqueeze"}


class Interpreter:
    """Runs a module's graph. `tell` is called with the steps done and those of the graph."""

    def __init__(self, t: Translation, tell: Callable[[int, int], None] = lambda done, total: None) -> None:
        self.t = t
        self._tell = tell
        self._steps = 0
        self._total = 1
        self._calls = 0
        self._overlay: dict[tuple[int, str], Any] = {}
        self._objects: list[Any] = []
        self._paths: dict[int, str] = {}
        self._attributes: dict[tuple[int, str], Any] = {}
        self.named: dict[str, Tensor] = {}
        self.refusals: list[tuple[str, str, str, str]] = []
        self.lost = False

    def run(self, graph: Block, arguments: Sequence[Any]) -> list[Any]:
        """The graph's results for these arguments."""
        self._total = max(len(graph.steps), 1)
        return self._run(graph, arguments, {}, top=True)

    def _run(self, block: Block, arguments: Sequence[Any], known: dict[int, Any], *, top: bool = False) -> list[Any]:
        known.update(zip(block.inputs, arguments, strict=True))
        for index, step in enumerate(block.steps):
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise ModelError("runs too long", where=self.t.maker.where, hint="do its loops end?")
            if top:
                self._tell(index, self._total)
            inputs = [known[number] for number in step.inputs]
            results = self._step(step, inputs, known)
            if len(results) != len(step.outputs):
                raise ValueError(f"{step.kind} makes {len(results)} values, not {len(step.outputs)}")
            known.update(zip(step.outputs, results, strict=True))
        return [known[number] for number in block.outputs]

    def _step(self, step: Step, inputs: list[Any], known: dict[int, Any]) -> list[Any]:
        if step.kind == "prim::Constant":
            return [self._constant(step)]
        if step.kind == "prim::If":
            return self._if(step, inputs, known)
        if step.kind == "prim::Loop":
            return self._loop(step, inputs, known)
        if step.kind == "prim::CallMethod":
            return self._call(step, inputs)
        if step.kind == "prim::GetAttr":
            return [self._attribute(inputs[0], step.attribute)]
        if step.kind == "prim::SetAttr":
            if isinstance(inputs[0], Record):
                inputs[0].attributes[step.attribute] = inputs[1]
            else:
                self._overlay[id(inputs[0]), step.attribute] = inputs[1]
            return []
        if step.kind == "prim::CreateObject":
            return [Record(step.type)]
        self._place(step, inputs)
        try:
            return self._compute(step, inputs)
        except Spoiled:
            self._spoil(step, inputs)
        except Refused as refused:
            self._refuse(step, refused)
            self._spoil(step, inputs)
        return [Unknown()] * len(step.outputs)

    def _spoil(self, step: Step, inputs: list[Any]) -> None:
        """What a node writes to that was not translated is not known any more; of a list, nothing is."""
        if step.kind in plain.MUTATING or step.kind == "prim::RaiseException":
            self.lost = True
        target = inputs[0] if find(step.kind)[1] or (step.kind.endswith("_") and inputs) else None
        if "out" in step.names:
            target = inputs[step.names.index("out")]
        if isinstance(target, Tensor):
            target.spoil()

    def _constant(self, step: Step) -> Any:
        return eager.wrapped(step.constant)

    def _place(self, step: Step, inputs: list[Any]) -> None:
        """Tell the translation where it stands: the module's path, as far as it can be told, and the operator."""
        name = step.kind.partition("::")[2]
        owner = next((module_of(one.label) for one in inputs[1:] if isinstance(one, Tensor) and one.label), "")
        owner = owner or next((module_of(self._paths[id(one)]) for one in inputs if id(one) in self._paths), "")
        debug = step.debug_names[0] if step.debug_names else name
        # TorchScript leaves out the lists that modules stand in.
        if owner and (not step.scope or owner == step.scope or owner.endswith(f".{step.scope}")):
            base = owner
        elif step.scope:
            own = name.strip("_")
            base = step.scope if step.scope.rpartition(".")[2] == own else f"{step.scope}/{own}"
        else:
            base = debug
        self.t.base = self.t.source = base

    def _compute(self, step: Step, inputs: list[Any]) -> list[Any]:
        unknown = next((found for one in inputs if (found := unknown_in(one)) is not None), None)
        if unknown is not None and isinstance(inputs[0], Unknown) and not plain.builds(step.kind):
            return [unknown] * len(step.outputs) if plain.keeps(step.kind) else self._unreadable(step, unknown)
        if unknown is not None and not plain.keeps(step.kind):
            return self._unreadable(step, unknown)
        tensors = [tensor for one in inputs for tensor in tensors_in(one)]
        done = plain.compute(step, inputs, tensors)
        if done is not None:
            return done
        handler, in_place = find(step.kind)
        if handler is None and step.kind not in _CONSTANT_ONLY:
            raise Refused()
        arguments = Arguments(zip(step.names, inputs, strict=True))
        if self._is_constant(step, tensors, handler is not None):
            result = self._by_torch(step, inputs, in_place)
        elif handler is None:
            raise Refused("depends on data that is known at run time only")
        else:
            result = handler(self.t, arguments)
        return self._results(step, arguments, result, in_place)

    def _unreadable(self, step: Step, unknown: Unknown) -> list[Any]:
        """The results of what reads an unknown; that nothing here knows the operator is told as well."""
        if unknown.reason:
            raise Refused(unknown.reason)
        if find(step.kind)[0] is None and not plain.knows(step.kind) and step.kind not in _CONSTANT_ONLY:
            raise Refused()
        raise Spoiled()

    def _is_constant(self, step: Step, tensors: list[Tensor], known: bool) -> bool:
        if (step.kind.startswith("quantized::") or step.kind in _NEVER_FOLDED) and step.kind not in _CONSTANT_ONLY:
            return False
        if not tensors:
            return step.kind.partition("::")[2] in _FACTORIES or step.kind in _CONSTANT_ONLY or not known
        return all(tensor.is_constant for tensor in tensors)

    def _by_torch(self, step: Step, inputs: list[Any], in_place: bool) -> Any:
        values = [eager.unwrapped(one) for one in inputs]
        name = step.kind.partition("::")[2]
        if name in _FACTORIES:
            sizes = values[0] if isinstance(values[0], list) else [n for n in values[:2] if isinstance(n, (int, float))]
            elements = 1.0
            for size in sizes:
                elements *= max(abs(size), 1)
            if elements > eager.MOST_ELEMENTS:
                raise Refused(f"makes a constant of {elements:g} elements")
        if name == "empty":
            return Tensor(eager.torch().zeros(sizes, dtype=_dtype(step, values)))
        # A model may have been traced on another processor.
        cpu = eager.torch().device("cpu")
        values = [cpu if isinstance(value, type(cpu)) else value for value in values]
        if in_place and isinstance(values[0], eager.torch().Tensor):
            values[0] = values[0].clone()  # other names keep what they have; `assign` tells those that share it
        label = inputs[0].label if inputs and isinstance(inputs[0], Tensor) and step.kind in _WHAT_IS_KEPT else ""
        named = {key: value for key, value in zip(step.names, values, strict=False) if key in step.keywords}
        values = [value for key, value in zip(step.names, values, strict=False) if key not in step.keywords]
        return eager.wrapped(eager.call(step.kind, step.overload, values, named), label)

    def _results(self, step: Step, arguments: Arguments, result: Any, in_place: bool) -> list[Any]:
        if in_place or "out" in arguments:
            target = arguments.get("out") if "out" in arguments else next(iter(arguments.values()))
            if not isinstance(target, Tensor) or not isinstance(result, Tensor):
                raise Refused("writes in place into something that is no tensor")
            if result is not target:
                target.assign(self.t.cast(result, target.dtype) if result.dtype != target.dtype else result)
            result = target
        elif step.kind in VIEWS:
            self._share(step, arguments, result)
        results = [result] if len(step.outputs) == 1 else list(result)
        if len(step.outputs) == 0:
            results = []
        for one, debug in zip(results, step.debug_names, strict=False):
            self._name(step, one, debug)
        return results

    def _share(self, step: Step, arguments: Arguments, result: Any) -> None:
        base = next(iter(arguments.values()))
        if not isinstance(base, Tensor):
            return
        parts = tensors_in(result)
        start = 0
        for index, one in enumerate(parts):
            if one is base:
                continue
            if isinstance(result, Tensor):
                write = writer_for(self.t, step.kind, arguments)
            else:
                write = part_writer(self.t, step.kind, arguments, one, index, start)
                start += one.shape[axis_of(arguments.integer("dim"), one.rank)] if one.rank == base.rank else 0
            one.view_of(base, self._reader(step, arguments, None if isinstance(result, Tensor) else index), write)

    def _reader(self, step: Step, arguments: Arguments, index: int | None) -> Callable[[Tensor], Tensor]:
        def read(base: Tensor) -> Tensor:
            values = [base, *list(arguments.values())[1:]]
            if base.is_constant:
                made = self._by_torch(step, values, False)
            else:
                handler, _ = find(step.kind)
                made = handler(self.t, Arguments(zip(arguments, values, strict=True))) if handler else None
            if index is not None and isinstance(made, (list, tuple)):
                made = made[index]
            if not isinstance(made, Tensor):
                raise Refused("reads a view of a tensor that was written to since")
            return made

        return read

    def _name(self, step: Step, one: Any, debug: str) -> None:
        """Give the result the name that the source model has for it, where this step made it."""
        for tensor in tensors_in(one):
            value = tensor.content
            if isinstance(value, ir.Value):
                if str(value.name or "").startswith(f"{self.t.base}/") and value.producer() is not None:
                    self.t.maker.rename(value, self.t.base)
                if isinstance(one, Tensor):
                    self.named.setdefault(debug, tensor)

    def _refuse(self, step: Step, refused: Refused) -> None:
        where = self.t.source + (f" at {step.place}" if step.place else "")
        self.refusals.append((step.kind, where, refused.detail, refused.hint))

    def _if(self, step: Step, inputs: list[Any], known: dict[int, Any]) -> list[Any]:
        condition = self._decided(step, inputs[0], "branches on data that is known at run time only")
        if condition is None:
            self.lost = self.lost or any(_writes(block) for block in step.blocks)
            return [Unknown()] * len(step.outputs)
        return self._run(step.blocks[0 if condition else 1], [], known)

    def _loop(self, step: Step, inputs: list[Any], known: dict[int, Any]) -> list[Any]:
        reason = "loops as often as data says that is known at run time only"
        carried = inputs[2:]
        most, going = self._decided(step, inputs[0], reason), self._decided(step, inputs[1], reason)
        trip = 0
        while most is not None and going and trip < int(most):
            if trip >= _MOST_TRIPS:
                self._place(step, inputs)
                self._refuse(step, Refused(f"loops more than {_MOST_TRIPS} times"))
                self.lost = True
                return [Unknown()] * len(step.outputs)
            results = self._run(step.blocks[0], [trip, *carried], known)
            going, carried = self._decided(step, results[0], reason), results[1:]
            trip += 1
        if most is None or going is None:
            self.lost = self.lost or _writes(step.blocks[0])
            return [Unknown()] * len(step.outputs)
        return list(carried)

    def _decided(self, step: Step, value: Any, reason: str) -> int | None:
        if isinstance(value, Tensor) and value.is_constant and value.content.numel() == 1:
            return int(value.content.item())
        if isinstance(value, (bool, int)):
            return int(value)
        if not isinstance(value, Unknown) or value.reason:
            self._place(step, [])
            hint = "trace the model with torch.jit.trace, which takes the branches that the example takes"
            self._refuse(step, Refused(reason, hint))
        return None

    def _call(self, step: Step, inputs: list[Any]) -> list[Any]:
        """A method of a module that is known by its interface only, which inlining leaves."""
        module = inputs[0]
        if not isinstance(module, (eager.torch()._C.ScriptModule, eager.torch()._C.ScriptObject)):
            self._place(step, [])
            self._refuse(step, Refused(f"calls {step.attribute} of an object"))
            self.lost = True
            return [Unknown()] * len(step.outputs)
        self._calls += 1
        if self._calls > _DEEPEST_CALLS * 20:
            raise ModelError("calls itself without end", where=self.t.maker.where)
        results = self._run(read_graph(module._get_method(step.attribute).graph), inputs, {})
        return results if len(step.outputs) == len(results) else [results[0] if results else None]

    def _attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Unknown):
            return Unknown()
        if isinstance(owner, Record):
            return owner.attributes.get(name, Unknown("is not set"))
        if isinstance(owner, tuple) and hasattr(owner, name):
            return getattr(owner, name)
        key = (id(owner), name)
        if key in self._overlay:
            return self._overlay[key]
        if key not in self._attributes:
            classes = eager.torch()._C
            if not isinstance(owner, (classes.ScriptModule, classes.ScriptObject)):
                raise ModelError(f"takes {name!r} of something that is no module", where=self.t.maker.where)
            value = owner.getattr(name) if hasattr(owner, "getattr") else getattr(owner, name)
            path = f"{self._paths[id(owner)]}.{name}" if self._paths.get(id(owner)) else name
            made = eager.wrapped(value, path)
            self._objects.append((owner, made))  # kept, so that their numbers stay their own
            if not isinstance(made, (Tensor, int, float, str, bool, type(None), list, tuple, dict)):
                self._paths[id(made)] = path
            self._attributes[key] = made
        return self._attributes[key]


def _dtype(step: Step, values: Sequence[Any]) -> Any:
    """The type that a factory is asked for, as torch has it."""
    number = values[step.names.index("dtype")] if "dtype" in step.names else None
    return getattr(eager.torch(), SCALAR_TYPES.get(6 if number is None else number, "float32"))


def _writes(block: Block) -> bool:
    """Whether something in the block writes to what others may read."""
    return any(
        step.kind in plain.MUTATING
        or (step.kind.endswith("_") and not step.kind.endswith("__"))
        or any(_writes(inner) for inner in step.blocks)
        for step in block.steps
    )
