"""The one place that makes ONNX Runtime sessions, so that every number comes from the same arithmetic."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import onnx
import onnx_ir as ir
import onnxruntime

from engine.errors import ModelError

Optimization = Literal["none", "exact", "fast"]

_LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "exact": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "fast": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

# Protobuf cannot hold more in one message.
LARGEST_MODEL = 2**31 - 1


def newest_opset() -> int:
    """The newest standard opset that the installed onnx can describe; ONNX Runtime refuses what it cannot run."""
    return int(onnx.defs.onnx_opset_version())


def make_session(
    model: bytes | onnx.ModelProto, *, optimization: Optimization = "exact", threads: int | None = None
) -> onnxruntime.InferenceSession:
    """A CPU session for `model`.

    optimization: 'none' for one-shot runs; 'exact' keeps fake quantization as it is written (Q/DQ pairs are not turned
    into integer kernels, which would change results); 'fast' adds layout changes that alter the order of sums, and is
    for float inference only. Raises ModelError with ONNX Runtime's reason.
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
    data = model if isinstance(model, bytes) else serialize(model)
    try:
        # Without a fallback nothing is printed when a corrupt model is refused.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises many classes without a common base
        raise ModelError(f"ONNX Runtime refuses the model: {reason(error)}") from error


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
