"""The calls of `RKNN` that load a model of each framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from engine.api_calls import toolkit_call


class LoadingCalls(ABC):
    """One call a framework, with the toolkit's arguments; `_load_call` does what `Session`'s call of that name does."""

    @abstractmethod
    def _load_call(self, call: str, *arguments: Any) -> int:
        """Load by that call of a session into a fresh one; returns 0 or raises EngineError."""

    @toolkit_call(-1)
    def load_onnx(
        self,
        model: str,
        inputs: Sequence[str] | None = None,
        input_size_list: Sequence[Sequence[int]] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> int:
        """Load an ONNX model, from the tensors `inputs` (of these sizes) to those `outputs`. Returns 0 or -1."""
        return self._load_call("load_onnx", model, inputs, input_size_list, outputs)

    @toolkit_call(-1)
    def load_tflite(self, model: str) -> int:
        """Load a TensorFlow Lite model; a quantized one keeps its parameters. Returns 0 or -1."""
        return self._load_call("load_tflite", model)

    @toolkit_call(-1)
    def load_tensorflow(
        self, tf_pb: str, inputs: Sequence[str], input_size_list: Sequence[Sequence[int]], outputs: Sequence[str]
    ) -> int:
        """Load a frozen TensorFlow graph, from the operations `inputs` (of these sizes) to those `outputs`.

        Returns 0 or -1.
        """
        return self._load_call("load_tensorflow", tf_pb, inputs, input_size_list, outputs)

    @toolkit_call(-1)
    def load_caffe(self, model: str, blobs: str | None = None, input_name: Sequence[str] | None = None) -> int:
        """Load a Caffe prototxt with its caffemodel `blobs`; None makes weights up. `input_name`: the order of several
        inputs. Returns 0 or -1."""
        return self._load_call("load_caffe", model, blobs, input_name)

    @toolkit_call(-1)
    def load_darknet(self, model: str, weight: str) -> int:
        """Load a Darknet cfg with its weights; it ends at what feeds its [yolo] layers. Returns 0 or -1."""
        return self._load_call("load_darknet", model, weight)

    @toolkit_call(-1)
    def load_pytorch(self, model: str, input_size_list: Sequence[Sequence[int]]) -> int:
        """Load a TorchScript file, with one size for each input; needs the package torch. Returns 0 or -1."""
        return self._load_call("load_pytorch", model, input_size_list)
