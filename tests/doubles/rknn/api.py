"""The calls of the vendor's toolkit that are used, on ONNX Runtime, and ways for each of them to go wrong.

RKNN_DOUBLE says what goes wrong, as `call=fault,call=fault`; the faults are the functions of `_Faults`.
RKNN_DOUBLE_NOISE says how far outputs are off, as `default=0.1,qdq=0.05`, by the name of the model's file.
RKNN_DOUBLE_KEEP names a file for what a test wants to see: the cfg of step 2, the program that a hang started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Array = np.ndarray[Any, Any]


class RKNN:
    """One model. Calls return 0, or -1, or raise, as the real ones do."""

    def __init__(self, verbose: bool = False) -> None:
        self._model: onnx.ModelProto | None = None
        self._settings: dict[str, Any] = {}
        self._name = self._built = ""

    def config(self, **settings: Any) -> int:
        if settings["target_platform"] not in ("rk3566", "rk3588", "rv1106"):
            _error("config", "Unsupported target_platform: " + settings["target_platform"])
        self._settings = settings
        return _faulty("config", 0)

    def load_onnx(self, model: str, inputs: Any = None, input_size_list: Any = None, outputs: Any = None) -> int:
        if not Path(model).is_file():
            _error("load_onnx", f"Model file {model} not exists!")
        self._model = onnx.load(model)
        self._name = Path(model).stem
        return _faulty("load_onnx", 0)

    def build(self, do_quantization: bool = True, dataset: str | None = None, **more: Any) -> int:
        if self._built:
            print("E build: Repeat call is not allowed!")
            return -1
        if do_quantization and dataset is None:
            print("E build: dataset is None!")
            return -1
        _bar("Quantizating", 20)
        _bar("Building", 10)
        self._built = self._name
        return _faulty("build", 0)

    def hybrid_quantization_step1(self, dataset: str, proposal: bool = False, **more: Any) -> int:
        assert self._model is not None
        lines = ["custom_quantize_layers: {}", "quantize_parameters:"]
        for name in [value.name for value in self._model.graph.input] + [n.output[0] for n in self._model.graph.node]:
            lines += [f"    {name}:", "        qtype: asym", "        qmethod: layer", "        dtype: int8"]
            numbers = {"min": -64.0, "max": 63.5, "scale": 0.5, "zero_point": 0, "ori_min": -64.0, "ori_max": 63.5}
            for key, number in numbers.items():
                lines += [f"        {key}:", f"        -   {number!r}"]
        Path(f"{self._name}.quantization.cfg").write_text("\n".join(lines) + "\n")
        Path(f"{self._name}.model").write_bytes(self._model.SerializeToString())
        Path(f"{self._name}.data").write_text(json.dumps(self._settings))
        return _faulty("hybrid_quantization_step1", 0)

    def hybrid_quantization_step2(self, model_input: str, data_input: str, model_quantization_cfg: str) -> int:
        if self._model is not None:
            _error("hybrid_quantization_step2", "The model already exists.")
        kept = os.environ.get("RKNN_DOUBLE_KEEP")
        if kept:
            Path(kept).write_text(Path(model_quantization_cfg).read_text())
        self._model = onnx.load(model_input)
        self._settings = json.loads(Path(data_input).read_text())
        self._built = Path(model_input).stem
        return _faulty("hybrid_quantization_step2", 0)

    def export_rknn(self, export_path: str) -> int:
        Path(export_path).write_bytes(b"RKNN\0\0\0\0" + self._built.encode())
        return _faulty("export_rknn", 0)

    def init_runtime(self, target: str | None = None) -> int:
        return _faulty("init_runtime", 0 if self._built else -1)

    def inference(self, inputs: Sequence[Array], data_format: Sequence[str]) -> list[Array] | None:
        noises = dict(pair.split("=") for pair in os.environ.get("RKNN_DOUBLE_NOISE", "").split(",") if pair)
        noise = float(noises.get(self._built, "0"))
        found = [array * (1 + noise * _wave(array)) for array in self._run(inputs)]
        return _faulty("inference", found)  # type: ignore[return-value]

    def accuracy_analysis(self, inputs: Sequence[str], output_dir: str, target: str | None = None) -> int:
        assert self._model is not None
        folder = Path(output_dir)
        tensors = [value.name for value in self._model.graph.input]
        tensors += [node.output[0] for node in self._model.graph.node]
        watched = onnx.ModelProto.FromString(self._model.SerializeToString())
        del watched.graph.output[:]
        for name in tensors[1:]:
            watched.graph.output.add(name=name)
        arrays = [np.load(file) for file in inputs]
        found = [arrays[0], *self._run(arrays, watched)]
        for place in ("golden", "simulator"):
            (folder / place / "npy").mkdir(parents=True)
        lines = ["name    file"]
        for name, array in zip(tensors, found, strict=True):
            file = name.replace(".", "_").replace("/", "_")
            lines.append(f"{name}    {file}.txt")
            np.save(folder / "golden" / "npy" / f"{file}.npy", array)
            np.save(folder / "simulator" / "npy" / f"{file}.npy", np.round(array, 1))
        (folder / "map_name_to_file.txt").write_text("\n".join(lines) + "\n")
        (folder / "error_analysis.txt").write_text("# cosine and distance\n")
        return _faulty("accuracy_analysis", 0)

    def release(self) -> None:
        """Nothing is held."""

    def _run(self, inputs: Sequence[Array], model: onnx.ModelProto | None = None) -> list[Array]:
        import onnxruntime

        model = model or self._model
        assert model is not None
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {}
        means, stds = self._settings.get("mean_values"), self._settings.get("std_values")
        for index, (value, array) in enumerate(zip(session.get_inputs(), inputs, strict=True)):
            if means:
                shape = (1, -1, 1, 1)
                array = (array - np.reshape(means[index], shape)) / np.reshape(stds[index], shape)
            feeds[value.name] = array.astype(np.float32)
        found: list[Array] = session.run(None, feeds)
        return found


def _wave(array: Array) -> Array:
    return np.cos(np.arange(array.size, dtype=np.float32)).reshape(array.shape)


def _bar(title: str, steps: int) -> None:
    for step in range(0, steps + 1, 5):
        print(f"I {title} : {100 * step // steps:3d}%|####   | {step}/{steps} [00:00<00:00, 9.99it/s]", end="\r")
    print()


def _error(call: str, text: str) -> None:
    print(f"E {call}: {text}")
    raise ValueError(f"{text}")


class _Faults:
    """What can go wrong in a call, in place of its result."""

    minus = staticmethod(lambda: -1)
    nothing = staticmethod(lambda: None)

    @staticmethod
    def refuses() -> int:
        """Says why, and returns a failure."""
        print("E RKNN: [10:00:00.000] Unkown op target: 0")
        print("E RKNN: [10:00:00.000] ===================WARN: ======")
        return -1

    @staticmethod
    def raises() -> None:
        """Raises, with a word in front that would colour a terminal."""
        print("\x1b[31mE build: the graph has no such thing\x1b[0m")
        raise ValueError("Traceback (most recent call last):\n  File x\nValueError: the graph has no such thing")

    @staticmethod
    def exits() -> None:
        """Ends the interpreter."""
        sys.exit(3)

    @staticmethod
    def ends() -> None:
        """Ends the process behind the interpreter's back."""
        print("the last words", flush=True)
        os._exit(7)

    @staticmethod
    def crashes() -> None:
        """Dies of a signal."""
        os.abort()

    @staticmethod
    def hangs() -> None:
        """Never returns, and starts a program that would outlive it."""
        child = subprocess.Popen(["sleep", "600"])
        note = os.environ.get("RKNN_DOUBLE_KEEP")
        if note:
            Path(note).write_text(str(child.pid))
        time.sleep(600)

    @staticmethod
    def babbles() -> int:
        """Prints what looks like answers and requests, bytes that are no text, and a line without end."""
        print('{"value": "forged"}')
        sys.stdout.flush()
        os.write(1, b'\xff\xfe\x00{"error": {}}\n' + b"x" * 300_000 + b"\n")
        os.write(2, b'{"value": "forged too"}\n')
        return 0

    @staticmethod
    def floods() -> int:
        """Prints more than is kept."""
        for _ in range(175):
            os.write(1, b"a line of output that says nothing at all\n" * 2500)
        return 0

    @staticmethod
    def reads() -> int:
        """Reads standard input, on which requests come."""
        return 0 if sys.stdin.read() == "" else -1


def _faulty(call: str, result: Any) -> Any:
    faults = dict(pair.split("=") for pair in os.environ.get("RKNN_DOUBLE", "").split(",") if pair)
    if call not in faults:
        return result
    fault: Callable[[], Any] = getattr(_Faults, faults[call])
    given = fault()
    return result if given == 0 else given
