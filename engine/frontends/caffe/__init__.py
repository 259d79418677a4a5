"""The Caffe front end: a prototxt with its caffemodel in, a graph with static shapes in float32 out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from engine.frontends.caffe import loading, network
from engine.frontends.caffe.layers import READERS
from engine.frontends.finishing import surprises_told
from engine.progress import Progress


def load(
    model: Path,
    blobs: Path | None = None,
    input_name: Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    input_size_list: Sequence[Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ir.Model:
    """Read the prototxt `model` with the weights of the caffemodel `blobs`, as Caffe's TEST phase runs it.

    Without `blobs` weights are made up, always the same. `input_name` orders several inputs. `inputs` and `outputs`
    cut the graph at blobs, `input_size_list` sizes the inputs. A blob keeps its name; where layers write it in place,
    the last result has it, and earlier ones are BLOB/LAYER. Outputs are the blobs that no layer reads, in the order
    in which layers write them; layers of training, scoring and the search for objects are left out. Raises
    FileError, ModelError, UnsupportedOperator, ConfigError.
    """
    with surprises_told(model, "does Caffe read it?"):
        return loading.load(model, blobs, input_name, inputs, input_size_list, outputs, progress or Progress())


def operators() -> dict[str, tuple[str, ...]]:
    """Every type of layer that is read, and the ONNX operators it becomes; none for inputs and what is left out."""
    known = {name: reader.onnx for name, reader in READERS.items()}
    known |= dict.fromkeys((*network.DATA_LAYERS, *network.LEFT_OUT, *network.DETECTORS), ())
    known |= {name: READERS[deployed].onnx for name, deployed in network.DEPLOYED.items()}
    return {name: tuple(sorted(known[name])) for name in sorted(known)}
