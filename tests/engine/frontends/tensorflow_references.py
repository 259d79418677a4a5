"""Makes and reads tests/data/tensorflow_references.npz: small graphs, inputs, and what TensorFlow computes from them.

Making it needs TensorFlow, which the tests do not: `pip install tensorflow-cpu`, then run this file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).resolve().parents[2] / "data" / "tensorflow_references.npz"
LARGEST = 400_000


@dataclasses.dataclass(frozen=True)
class Reference:
    """A GraphDef, what its placeholders were fed, and what its node `output` made of that."""

    name: str
    graph: bytes
    inputs: dict[str, np.ndarray]
    output: np.ndarray


def write(references: list[Reference], path: Path) -> None:
    """One array of all bytes, and one of JSON that tells what they are."""
    index, data = [], b""
    for reference in references:
        arrays = {**reference.inputs, "output": reference.output}
        index.append(
            {
                "name": reference.name,
                "graph": len(reference.graph),
                "arrays": [[key, str(array.dtype), array.shape] for key, array in arrays.items()],
            }
        )
        data += reference.graph + b"".join(array.tobytes() for array in arrays.values())
    packed = {"index": json.dumps(index).encode(), "data": data}
    np.savez_compressed(path, **{key: np.frombuffer(value, np.uint8) for key, value in packed.items()})


def read(path: Path = RESULT) -> list[Reference]:
    """The references in a file."""
    with np.load(path) as stored:
        index, data = json.loads(stored["index"].tobytes()), stored["data"].tobytes()
    references, at = [], 0
    for entry in index:
        graph, at = data[at : at + entry["graph"]], at + entry["graph"]
        arrays = {}
        for key, dtype, shape in entry["arrays"]:
            array = np.frombuffer(data, dtype, int(np.prod(shape)), at).reshape(shape)
            arrays[key], at = array, at + array.nbytes
        references.append(Reference(entry["name"], graph, arrays, arrays.pop("output")))
    return references


def make(tf: Any) -> list[Reference]:
    """Every case, built and run."""
    from tensorflow_cases import Graph, sweep

    found = []
    for number, (name, build) in enumerate(sweep()):
        version = 1 if name.startswith("frames/") else 2
        (tf.compat.v1.disable_control_flow_v2 if version == 1 else tf.compat.v1.enable_control_flow_v2)()
        with tf.Graph().as_default() as graph:
            case = Graph(tf, number)
            output = tf.identity(build(case), name="output")
            with tf.compat.v1.Session() as session:
                result = session.run(output, {f"{key}:0": array for key, array in case.feeds.items()})
        found.append(Reference(name, graph.as_graph_def().SerializeToString(), case.feeds, np.asarray(result)))
    return found


def main() -> None:
    """Write the file."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its convolutions round otherwise on each processor
    import tensorflow as tf

    RESULT.parent.mkdir(exist_ok=True)
    found = make(tf)
    write(found, RESULT)
    size = RESULT.stat().st_size
    print(f"{RESULT}: {len(found)} cases, {size} bytes, TensorFlow {tf.__version__}")
    if size > LARGEST:
        sys.exit(f"larger than {LARGEST} bytes")


if __name__ == "__main__":
    main()
