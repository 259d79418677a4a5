"""The one place that makes ONNX Runtime sessions, so that every number comes from the same arithmetic."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import onnx
import onnx.helper
import onnx_ir as ir
import onnxruntime

from engine.errors import ModelError

Optimization = Literal["none", "exact", "fast"]

_LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "exact": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "fast": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

# One sample gains little from more, and each of some hundred sessions of single layers has its own.
_SIMULATION_THREADS = 4

# Protobuf cannot hold more in one message.
LARGEST_MODEL = 2**31 - 1


def newest_opset() -> int:
    """The newest standard opset that the installed onnx can describe; ONNX Runtime refuses what it cannot run."""
    return int(onnx.defs.onnx_opset_version())


def make_session(
    model: bytes | onnx.ModelProto,
    *,
    optimization: Optimization = "exact",
    threads: int | None = None,
    shared_memory: bool = False,
    apart: Mapping[str, Any] | None = None,
) -> onnxruntime.InferenceSession:
    """A CPU session for `model`; `apart` are the arrays of constants that it says are in a file of their own,
    which are not copied.

    optimization: 'none' for one-shot runs; 'exact' keeps fake quantization as it is written (Q/DQ pairs are not turned
    into integer kernels, which would change results); 'fast' adds layout changes that alter the order of sums, and is
    for float inference only. shared_memory: whether it takes memory from one arena with others of its kind, which
    hundreds of small sessions should. Raises ModelError with ONNX Runtime's reason.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _LEVELS[optimization]
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # The default order works back from the outputs, so that tensors which are only measured wait in memory.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # Spinning threads burn a core between short runs, which a shared machine or a laptop notices.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if shared_memory:
        _register_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    data = model if isinstance(model, bytes) else serialize(model)
    try:
        if apart:
            # Else kernels would copy each of them into an order of their own.
            options.add_session_config_entry("session.disable_prepacking", "1")
            values = [
                onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                    array, onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                )
                for array in apart.values()
            ]
            options.add_external_initializers(list(apart), values)
        # Without a fallback nothing is printed when a corrupt model is refused.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises many classes without a common base
        raise ModelError(f"ONNX Runtime refuses the model: {reason(error)}") from error


def make_simulation(
    model: bytes | onnx.ModelProto, *, threads: int | None = None, shared_memory: bool = False
) -> onnxruntime.InferenceSession:
    """A session for a lowered graph, or a part of one: its results are the same whether it runs in whole or in parts.

    Nothing is fused across layers, which costs no time: between them lies rounding. And there is one number of threads,
    since some kernels go by it in where they part their sums.
    """
    threads = threads or simulation_threads()
    return make_session(model, optimization="none", threads=threads, shared_memory=shared_memory)


def simulation_threads() -> int:
    """How many threads compute a simulated layer."""
    return min(os.cpu_count() or 1, _SIMULATION_THREADS)


@functools.cache
def _register_arena() -> None:
    """Make the arena that sessions share; ONNX Runtime allows one a process."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # 1: grow by what is asked for; the default doubles.
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1}))


def run(session: onnxruntime.InferenceSession, names: list[str] | None, feeds: dict[str, Any]) -> list[Any]:
    """The outputs `names` (None: all) of one run. Raises ModelError with ONNX Runtime's reason."""
    try:
        return list(session.run(names, feeds))
    except Exception as error:
        raise ModelError(f"ONNX Runtime failed: {reason(error)}") from error


def serialize(model: onnx.ModelProto | ir.Model) -> bytes:
    """The model as bytes. Raises ModelError when it is larger than one protobuf message can be."""
    proto = ir.serde.serialize_model(model) if isinstance(model, ir.Model) else model
    if proto.ByteSize() > LARGEST_MODEL:
        raise ModelError("the model is larger than 2 GB", hint="cut it with `inputs` and `outputs`")
    return bytes(proto.SerializeToString())


def reason(error: Exception) -> str:
    """ONNX Runtime's message in one line, without its status prefix and source locations."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"(?:/[\w.@+-]+)+\.(?:cc|h):\d+ [^ ]+(?: \[with [^\]]*\])? ?", "", text)
    return text[:500]
