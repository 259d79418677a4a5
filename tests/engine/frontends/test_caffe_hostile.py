"""Broken and hostile Caffe files end in an error of ours, soon and without much memory."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import random
import re
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from caffe_models import IMAGE, caffemodel, floats, layer, net, save

from engine.errors import EngineError, ModelError
from engine.frontends import caffe
from engine.frontends.caffe.prototxt import parse

_LONGEST = 5.0
_LAYERS = (
    layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 }", "x", "c")
    + layer("BatchNorm", "batch_norm_param { eps: 0.001 }", "c", "c", name="n")
    + layer("Scale", "scale_param { bias_term: true axis: 1 }", "c", "c", name="s")
    + layer("PReLU", "", "c", "c", name="r")
    + layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }", "c", "p")
    + layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 }", "p", "l")
    + layer("Slice", "slice_param { slice_point: 1 }", "l", "u v", name="cut")
    + layer("Deconvolution", "convolution_param { num_output: 2 kernel_size: 4 stride: 2 }", "v", "d")
    + layer("Crop", "crop_param { axis: 2 offset: 1 }", "d x", "k")
    + layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", "u", "q")
    + layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 } axis: 0 }", "q", "f")
    + layer("InnerProduct", "inner_product_param { num_output: 5 }", "f", "i")
    + layer("Softmax", "softmax_param { axis: 1 }", "i", "o")
    + layer("PriorBox", "prior_box_param { min_size: 3 max_size: 5 aspect_ratio: 2 step: 2 }", "l x", "b")
    + layer("Interp", "interp_param { zoom_factor: 2 }", "k", "z")
    + layer("Upsample", "upsample_param { scale: 2 }", "u", "w")
    + layer("Normalize", "norm_param { across_spatial: false }", "w", "e")
    + layer("Tile", "tile_param { axis: 1 tiles: 2 }", "e", "t")
)
_WEIGHTS = {
    "c": [floats(4, 4, 3, 3), floats(4)],
    "n": [floats(4), np.abs(floats(4)), floats(1)],
    "s": [floats(4), floats(4)],
    "r": [floats(4)],
    "d": [floats(3, 2, 4, 4), floats(2)],
    "i": [floats(5, 20), floats(5)],
    "e": [floats(1)],
}
_NUMBERS = ["0", "-1", "2147483647", "-2147483648", "99999999999999999999", "1e30", "nan", "", '"x"', "{ }", "65536"]


def _tried(model: Path, blobs: Path | None) -> None:
    """Load, and let only errors of ours be raised, soon."""
    began = time.monotonic()
    with contextlib.suppress(EngineError):
        caffe.load(model, blobs)
    assert time.monotonic() - began < _LONGEST


def _mutated_text(text: str, source: random.Random) -> str:
    kind = source.randrange(5)
    words = text.split(" ")
    at = source.randrange(len(words))
    if kind == 0:
        return text[: source.randrange(len(text))]
    if kind == 1:
        places = list(re.finditer(r"\b\d+\b", text))
        place = source.choice(places)
        return text[: place.start()] + source.choice(_NUMBERS) + text[place.end() :]
    if kind == 2:
        words[at], other = words[source.randrange(len(words))], words[at]
        words.insert(source.randrange(len(words)), other)
    elif kind == 3:
        del words[at : at + source.randrange(1, 9)]
    else:
        letters = list(text)
        for _ in range(source.randrange(1, 4)):
            letters[source.randrange(len(letters))] = source.choice('{}[]<>:"#\\0159abz \n')
        return "".join(letters)
    return " ".join(words)


def _mutated_bytes(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    if source.random() < 0.3:
        return bytes(changed[: source.randrange(len(changed))])
    for _ in range(source.randrange(1, 6)):
        # Near the start of blobs lie sizes; elsewhere mostly numbers.
        changed[source.randrange(len(changed))] = source.choice([0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)])
    return bytes(changed)


def _fuzz(folder: Path, count: int, seed: int) -> None:
    source = random.Random(seed)
    text, weights = net(_LAYERS), caffemodel(_WEIGHTS)
    model, blobs = save(folder, text, _WEIGHTS)
    assert blobs is not None
    caffe.load(model, blobs)
    for index in range(count):
        model.write_text(_mutated_text(text, source) if index % 3 else text)
        blobs.write_bytes(_mutated_bytes(weights, source) if index % 3 == 0 else weights)
        _tried(model, None if index % 6 == 1 else blobs)


def test_mutated_files_raise_errors_of_ours(tmp_path: Path) -> None:
    _fuzz(tmp_path, 90, seed=1)


@pytest.mark.slow
def test_many_mutated_files_raise_errors_of_ours_within_a_gigabyte(tmp_path: Path) -> None:
    # In a process of its own: other tests take memory too.
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        growth = pool.submit(_growth, tmp_path).result()
    assert growth < 1 << 20


def _growth(folder: Path) -> int:
    """KiB that the process grew by at most."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _fuzz(folder, 1500, seed=2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a { " * 100_000, "more than 64 deep"),
        ("a < " * 10, "ends before the '>'"),
        ("layer { name: 'a", "cannot be read at"),
        ("layer } ", "a colon or a bracket is missing"),
        ("layer: { name: [1, 2 ", "has no value"),
        ("[a.b", "does not end"),
        ("#" * 100_000 + "\n@", "line 2: cannot be read at '@'"),
        ("name: " + '"x" ' * 50_000 + "}", "a field's name should stand where '}' does"),
        ("layer { name: 'a' name: 'b' type: 'ReLU' }", "name is 2 values, not one"),
        ("layer { } layers { }", "two ages"),
        ("layer: 5", "layer is 5, not a message"),
    ],
)
def test_text_that_is_none_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        caffe.load(save(tmp_path, text)[0])
    assert said in str(caught.value)
    assert "line " in str(caught.value)
    assert time.monotonic() - began < _LONGEST


def test_all_of_the_text_format_is_read() -> None:
    text = """
    # a comment with { and "
    one: 0x1F, two: -2; three: - 3 four: 010
    real: 1.5f real: .5 real: [ -1e-3, 2 ]  # behind
    words: "a\\303\\251\\n" 'b"' "c"
    inner < deep: { flag: t } >
    [some.extension]: 7
    """
    read = parse(text, "file")
    assert [read.integer(name) for name in ("one", "two", "three", "four")] == [31, -2, -3, 8]
    assert read.numbers("real") == [1.5, 0.5, -0.001, 2]
    assert read.text("words") == 'aé\nb"c'
    assert read.message("inner").message("deep").flag("flag")
    assert read.integer("some.extension") == 7


def test_weights_are_not_made_up_without_bound(tmp_path: Path) -> None:
    layers = layer("InnerProduct", "inner_product_param { num_output: 700000 }")
    with pytest.raises(ModelError, match=r"y: it has more than"):
        caffe.load(save(tmp_path, net(layers, IMAGE))[0])


@pytest.mark.slow
def test_a_net_of_very_many_layers_is_refused(tmp_path: Path) -> None:
    layers = "".join(f'layer{{name:"a{i}"type:"ReLU"bottom:"x"top:"a{i}"}}' for i in range(21_000))
    with pytest.raises(ModelError, match="21001 blobs"):
        caffe.load(save(tmp_path, net(layers))[0])
