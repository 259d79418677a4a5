"""Packages of every kind, and damage to them: to their bytes, and to what is in them under sums that are right."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import tempfile
import zipfile
from pathlib import Path

from engine.cli_packages import package_facts
from engine.files import members, package
from engine.files.compiled import compiled
from engine.files.stored import Stored
from engine.graph.layers import layers
from engine.quantization.quantized import Corrections, Quantized
from engine.quantization.table import Table
from engine.session import Session
from tests.engine.frontends.mutations import Form, mutate
from tests.small_networks import built, network
from tests.small_networks import random as numbers

FORMS: dict[str, Form] = {
    "manifest.json": "text",
    "graph.onnx": "protobuf",
    "table.cfg": "text",
    "weights.bin": "bytes",
    "corrections.bin": "bytes",
    "npu/rk3588.rknn": "bytes",
}


def load(path: Path) -> None:
    """Read a package as sessions and `inspect` do; the process that tries damaged files calls this."""
    Session().load_rknn(path)
    package_facts(path)
    for binary in package.read_compiled(path):
        binary.read()


def stored_model() -> Stored:
    """A small model with a constant that lies apart, corrections, wishes and a compiled model."""
    proto = network(
        {"x": (1, 3, 8, 8)},
        "c = Conv (x, w, b)\nr = Relu (c)\nd = Conv (r, v)\ny = Softmax <axis = 1> (d)",
        {"w": numbers(32, 3, 3, 3), "b": numbers(32), "v": numbers(5, 32, 1, 1)},
    )
    with tempfile.TemporaryDirectory() as folder:
        session = built(Path(folder), proto, [[numbers(1, 3, 8, 8)]], custom_string="Zürich", mean_values=[[1, 2, 3]])
        corrections = Corrections({"c": numbers(32, 3, 3, 3, seed=4)}, {"c": numbers(32, seed=5), "d": numbers(5)})
        table = Table(session.table.rows, {"c": "int16", "r": "int16"})
        quantized = Quantized(session.model, layers(session.model), table, corrections=corrections)
        stored = Stored(quantized, session.config, "int8", 1, "mse + bias correction", ("c",), 7)
        binary = compiled(bytes(range(256)) * 8, "rk3588", "2.3.2", {"host": "x86_64"})
        return stored.with_compiled(binary)


@functools.cache
def example() -> bytes:
    """The package of `stored_model`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.rknn"
        package.write(path, stored_model())
        return path.read_bytes()


def damaged(number: int) -> bytes:
    """The example with damage; odd numbers are damaged in a member whose sum is made right again."""
    source = random.Random(f"package {number}")
    if number % 2 == 0:
        return mutate(example(), source.choice(("bytes", "bytes", "archive")), source)
    name = source.choice(sorted(FORMS))
    content = unpacked(example())
    content[name] = mutate(content[name], FORMS[name], source)
    return packed(content if name == members.MANIFEST else summed(content))


def unpacked(data: bytes) -> dict[str, bytes]:
    """The members of a package, the manifest included."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(content: dict[str, bytes]) -> bytes:
    """A zip of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def summed(content: dict[str, bytes]) -> dict[str, bytes]:
    """The members with a manifest that lists them as they are."""
    manifest = json.loads(content["manifest.json"])
    manifest["members"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in content.items()
        if name != members.MANIFEST
    }
    return {**content, "manifest.json": json.dumps(manifest).encode()}
