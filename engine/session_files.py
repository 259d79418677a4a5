"""What a session writes besides packages: the quantized model for other runtimes."""

from __future__ import annotations

from pathlib import Path

from engine.files.writing import replacing
from engine.ort import serialize
from engine.session_state import SessionState, path_from
from engine.simulator.quantized_onnx import to_qdq


class FilesSession(SessionState):
    """A session that writes its model in other forms."""

    def export_qdq(self, path: str | Path) -> Path:
        """Write the built model, for as many samples at once as it was built for, as ONNX with Q/DQ nodes.

        Any runtime of ONNX computes with it nearly what the simulator does; see `engine.simulator.quantized_onnx`. An
        existing file is replaced only when the new one is complete. Raises OrderError before `build`, ModelError for a
        model that ONNX cannot hold, FileError.
        """
        built = self._require_quantized("export_qdq")
        file = path_from(path, "path")
        data = serialize(to_qdq(built.quantized))
        with replacing(file) as target:
            target.write(data)
        return file
