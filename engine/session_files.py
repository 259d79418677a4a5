"""What a session writes: its model as a package, and as ONNX for other runtimes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from engine.files import package
from engine.files.writing import replacing
from engine.ort import serialize
from engine.quantization.corrected import corrected_model
from engine.session_state import SessionState, path_from
from engine.simulator.quantized_onnx import to_qdq


class FilesSession(SessionState):
    """A session that writes its model; an existing file is replaced only when the new one is complete."""

    def export(self, path: str | Path) -> Path:
        """Write the built model as a package. Raises OrderError before `build`, FileError."""
        built = self._require_built("export")
        file = path_from(path, "export_path")
        package.write(file, built.stored)
        return file

    def export_onnx(self, path: str | Path) -> Path:
        """Write the float model with the corrected weights and biases of the build, as plain ONNX without Q/DQ."""
        built = self._require_built("export_onnx")
        return _write(path, corrected_model(built.single))

    def export_qdq(self, path: str | Path) -> Path:
        """Write the built model, for as many samples at once as it was built for, as ONNX with Q/DQ nodes.

        Any runtime of ONNX computes with it nearly what the simulator does; see `engine.simulator.quantized_onnx`.
        Raises OrderError before `build`, ModelError for a model that ONNX cannot hold, FileError.
        """
        built = self._require_quantized("export_qdq")
        return _write(path, to_qdq(built.quantized))


def _write(path: str | Path, model: ir.Model | onnx.ModelProto) -> Path:
    file = path_from(path, "path")
    data = serialize(model)
    with replacing(file) as target:
        target.write(data)
    return file
