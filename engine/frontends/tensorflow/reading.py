"""Reads a GraphDef from a file, and says what else a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from engine.errors import ModelError
from engine.frontends.reading import read_bytes
from engine.frontends.tensorflow.schema import CLASSES

FREEZE = (
    "freeze it: with TensorFlow 1 convert_variables_to_constants, with TensorFlow 2 convert_variables_to_constants_v2, "
    "and write the graph_def with SerializeToString"
)
"""How a graph with variables becomes a frozen one."""

# A SavedModel begins with the version of its format, a GraphDef with its first node or its versions.
_SAVED_MODEL_START = b"\x08"
_TEXT_STARTS = ("node {", "node{", "library {", "versions {", "saved_model_schema_version", "meta_graphs", "#")


def read_graph(path: Path) -> Any:
    """The GraphDef in `path`. Raises FileError, and ModelError for files that hold something else."""
    where = str(path)
    if path.is_dir() and (path / "saved_model.pb").is_file():
        raise ModelError("is a SavedModel, whose weights lie in files of their own", where=where, hint=FREEZE)
    data = read_bytes(path)
    start = data[:256].lstrip()
    if start.startswith(_SAVED_MODEL_START):
        raise ModelError("is a SavedModel or another kind of file, not a frozen graph", where=where, hint=FREEZE)
    if start.decode("latin-1").startswith(_TEXT_STARTS):
        hint = "read it with google.protobuf.text_format and write it with SerializeToString"
        raise ModelError("is a graph written as text, not as bytes", where=where, hint=hint)
    graph = CLASSES["GraphDef"]()
    try:
        graph.ParseFromString(data)
    except DecodeError as error:
        hint = "it is cut off or no TensorFlow graph; export or download it again"
        raise ModelError("is not a frozen TensorFlow graph", where=where, hint=hint) from error
    if not graph.node:
        raise ModelError("has no nodes", where=where, hint="is it a frozen TensorFlow graph?")
    return graph
