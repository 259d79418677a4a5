"""A model of ONNX on the board's processor, by ONNX Runtime where the board's Python has it."""

from __future__ import annotations

import time
from typing import Any, Sequence  # noqa: UP035 - Python 3.7 has it there

from .library import ModelFault

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


def open_onnx(path: str, options: dict[str, Any]) -> OnnxModel:
    """Open the model at `path`, in this process; of `options`, which are those of the NPU, none counts here.

    Raises ModelFault where onnxruntime is missing or refuses the model.
    """
    return OnnxModel(path)


class OnnxModel:
    """A model that is open under ONNX Runtime, with the calls of `RknnModel`."""

    def __init__(self, path: str) -> None:
        """See `open_onnx`."""
        try:
            import onnxruntime
        except Exception as error:  # a package for another processor or numpy ends in many ways
            raise ModelFault(
                0,
                f"the board's Python has no onnxruntime that works: {error}",
                "`python3 -m pip install onnxruntime` on the board, or run a binary of the vendor's compiler",
            ) from None
        self.api, self.driver = f"onnxruntime {onnxruntime.__version__}", ""
        settings = onnxruntime.SessionOptions()
        # Fake quantization is to stay as it is written, so that the result is the simulator's.
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
        settings.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises many classes without a common base
            raise ModelFault(
                0,
                f"{self.api} does not open the model: {error}",
                "a newer onnxruntime on the board may know more operators",
            ) from None
        self._inputs = [_told(one) for one in self._session.get_inputs()]
        self._outputs = [_told(one) for one in self._session.get_outputs()]

    def describe(self) -> dict[str, Any]:
        """Inputs and outputs, and the version of ONNX Runtime."""
        return {
            "inputs": [dict(one) for one in self._inputs],
            "outputs": [dict(one) for one in self._outputs],
            "api": self.api,
            "driver": "",
            "custom_string": "",
        }

    def run(self, inputs: Sequence[tuple[dict[str, Any], Any]]) -> list[tuple[dict[str, Any], bytes]]:
        """One inference on inputs in the model's order, as `RknnModel.run`; layouts are the model's own. Outputs are
        float32, integers and booleans. Raises ModelFault."""
        import numpy as np

        found = []
        for array in self._infer(self._feeds(inputs)):
            kept = np.ascontiguousarray(array, np.float32) if array.dtype.kind == "f" else np.ascontiguousarray(array)
            found.append(({"dtype": str(kept.dtype), "shape": list(array.shape)}, kept.tobytes()))
        return found

    def measure(
        self, inputs: Sequence[tuple[dict[str, Any], Any]], runs: int, warmup: int, lock: Any
    ) -> dict[str, list[float]]:
        """Microseconds of `runs` inferences after `warmup` others (`call_us`); `run_us` is empty. Raises ModelFault."""
        feeds = self._feeds(inputs)
        calls = []
        with lock:
            for number in range(warmup + runs):
                start = time.perf_counter()
                self._infer(feeds)
                if number >= warmup:
                    calls.append((time.perf_counter() - start) * 1e6)
        return {"call_us": calls, "run_us": []}

    def layer_table(self) -> str:
        """Raises ModelFault: there is none."""
        raise ModelFault(0, "ONNX Runtime on the board's processor tells no times of layers", "measure on the NPU")

    def memory(self) -> dict[str, int | None]:
        """Raises ModelFault: ONNX Runtime does not tell."""
        raise ModelFault(0, "ONNX Runtime does not tell what memory a model takes", "ask for it on the NPU")

    def close(self) -> None:
        """Let go of the model; may be called again."""
        self._session = None

    def _feeds(self, inputs: Sequence[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
        import numpy as np

        if self._session is None:
            raise ModelFault(0, "the model is closed")
        if len(inputs) != len(self._inputs):
            raise ModelFault(0, f"{len(inputs)} inputs were given to a model of {len(self._inputs)}")
        feeds = {}
        for place, (told, content) in enumerate(inputs):
            wanted = self._inputs[place]
            if told.get("dtype") != wanted["dtype"]:
                raise ModelFault(0, f"input {wanted['name']!r} is {told.get('dtype')} instead of {wanted['dtype']}")
            try:
                feeds[wanted["name"]] = np.frombuffer(content, wanted["dtype"]).reshape(told["shape"])
            except (ValueError, TypeError, KeyError) as error:
                raise ModelFault(0, f"input {wanted['name']!r} does not fit its shape: {error}") from None
        return feeds

    def _infer(self, feeds: dict[str, Any]) -> list[Any]:
        try:
            return list(self._session.run(None, feeds))
        except Exception as error:  # ONNX Runtime raises many classes without a common base
            raise ModelFault(0, f"{self.api} does not run the model: {error}") from None


def _told(port: Any) -> dict[str, Any]:
    """What ONNX Runtime tells of an input or output, in the words of the NPU's runtime; sizes that it leaves open
    are 0."""
    dims = [one if isinstance(one, int) else 0 for one in port.shape]
    dtype = _TYPES.get(port.type, "")
    if not dtype:
        raise ModelFault(0, f"{port.name!r} is {port.type}, which cannot be brought to and from a board")
    return {
        "name": port.name,
        "dims": dims,
        "fmt": "nchw" if len(dims) == 4 else "",
        "dtype": dtype,
        "qnt": "none",
        "scale": 0.0,
        "zero_point": 0,
        "size": 0,
    }
