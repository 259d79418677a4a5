"""Darknet's two files: names and ends of networks, versions of headers, and what is wrong with them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, FileError, ModelError, UnsupportedOperator
from engine.frontends.darknet import load, operators
from engine.graph.provenance import sources
from tests.engine.frontends.darknet_models import Layer, cfg, image, loaded, numbers, run, weights, write

CONVOLUTION: Layer = ("convolutional", {"filters": 4, "size": 1, "activation": "leaky"})
PARTS = numbers(4), numbers(12, 1)
DETECTOR: list[Layer] = [
    CONVOLUTION,
    ("convolutional", {"filters": 6, "size": 1, "activation": "linear"}),
    ("yolo", {"mask": "0", "anchors": "1,1", "classes": 1, "num": 1}),
    ("route", {"layers": "-3"}),
    ("upsample", {"stride": 2}),
    ("yolo", {"mask": "0", "anchors": "1,1", "classes": 1, "num": 1}),
]
DETECTOR_PARTS = (*PARTS, numbers(6, 2), numbers(24, 3))


def test_a_detector_ends_at_what_feeds_its_detections(tmp_path: Path) -> None:
    model = loaded(tmp_path, DETECTOR, *DETECTOR_PARTS)
    assert [v.name for v in model.graph.outputs] == ["pre_yolo_0", "pre_yolo_1"]
    first, second = run(model, image())
    assert first.shape == (1, 6, 8, 8) and second.shape == (1, 4, 16, 16)
    assert {name for node in model.graph for name in sources(node)} == {
        "000_convolutional",
        "001_convolutional",
        "004_upsample",
    }


def test_other_networks_end_at_their_last_layer_and_every_layer_can_be_named(tmp_path: Path) -> None:
    model = loaded(tmp_path, [CONVOLUTION, ("avgpool", {}), ("softmax", {}), ("cost", {"type": "sse"})], *PARTS)
    assert run(model, image())[0].shape == (1, 4, 1, 1)
    files = write(tmp_path, cfg(DETECTOR), weights(*DETECTOR_PARTS))
    model = load(*files, outputs=["004_upsample", "pre_yolo_0", "000_convolutional"])
    assert [v.name for v in model.graph.outputs] == ["004_upsample", "pre_yolo_0", "000_convolutional"]
    model = load(*files, ["000_convolutional"])
    assert [(v.name, tuple(v.shape or ())) for v in model.graph.inputs] == [("000_convolutional", (1, 4, 8, 8))]
    with pytest.raises(ConfigError, match="004_upsample"):
        load(*files, outputs=["004_upsampled"])


@pytest.mark.parametrize("kind", ["yolo", "region", "detection", "Gaussian_yolo"])
def test_what_feeds_detections_of_any_kind_has_one_name(tmp_path: Path, kind: str) -> None:
    model = loaded(tmp_path, [CONVOLUTION, (kind, {"anchors": "1,1", "num": 1})], *PARTS)
    assert [v.name for v in model.graph.outputs] == ["pre_yolo_0"]


def test_another_input_size(tmp_path: Path) -> None:
    files = write(tmp_path, cfg([CONVOLUTION]), weights(*PARTS))
    model = load(*files, input_size_list=[[2, 3, 16, 12]])
    assert [v.shape for v in model.graph.outputs] == [(2, 4, 16, 12)]
    with pytest.raises(ConfigError, match="input_size_list"):
        load(*files, input_size_list=[[3, 16, 12]])
    with pytest.raises(ModelError, match="its input would have the shape"):
        load(*files, input_size_list=[[1, 3, 10**6, 10**6]])


@pytest.mark.parametrize("version", [(0, 1), (0, 2), (1, 0), (0, 5)])
def test_both_headers(tmp_path: Path, version: tuple[int, int]) -> None:
    data = weights(*PARTS, major=version[0], minor=version[1])
    (found,) = run(load(*write(tmp_path, cfg([CONVOLUTION]), data)), image())
    (expected,) = run(loaded(tmp_path, [CONVOLUTION], *PARTS), image())
    np.testing.assert_array_equal(found, expected)


def test_matrices_of_old_files_lie_the_other_way_round(tmp_path: Path) -> None:
    layers: list[Layer] = [("connected", {"output": 5, "activation": "linear"})]
    matrix = numbers(5 * 192, 1).reshape(5, 192)
    old = write(tmp_path, cfg(layers), weights(numbers(5), np.ascontiguousarray(matrix.T), major=1001, minor=0))
    (found,) = run(load(*old), image())
    np.testing.assert_allclose(found, image().reshape(1, -1) @ matrix.T + numbers(5), atol=1e-5)


def test_blanks_comments_and_the_first_of_equal_options(tmp_path: Path) -> None:
    text = "# a net\n\n[net]\n width = 8 \nheight=8#px\r\nchannels\t=3\n; more\n[convolutional]\nfilters=4\nfilters=7\n"
    text += "size=1 # one point\n activation = leaky\n"
    (found,) = run(load(*write(tmp_path, text, weights(*PARTS))), image())
    (expected,) = run(loaded(tmp_path, [CONVOLUTION], *PARTS), image())
    np.testing.assert_array_equal(found, expected)


def test_missing_weights_are_told(tmp_path: Path) -> None:
    files = write(tmp_path, cfg([CONVOLUTION]), weights(*PARTS))
    with pytest.raises(FileError, match=r"net\.cfg: its weights are missing"):
        load(files[0], None)
    with pytest.raises(FileError, match=r"other\.weights: does not exist"):
        load(files[0], tmp_path / "other.weights")


def test_weights_that_end_early_and_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelError, match="the weights of 000_convolutional are 12 numbers, and 11 of 15 are left"):
        load(*write(tmp_path, cfg([CONVOLUTION]), weights(*PARTS)[:-4]))
    with caplog.at_level(logging.WARNING, "engine"):
        load(*write(tmp_path, cfg([CONVOLUTION]), weights(*PARTS, numbers(3))))
    assert "12 bytes at its end belong to no layer" in caplog.text


def test_weights_that_are_no_numbers_or_of_another_network(tmp_path: Path) -> None:
    spoiled = PARTS[1].copy()
    spoiled[5] = np.nan
    with pytest.raises(ModelError, match="weights of 000_convolutional are not all finite"):
        loaded(tmp_path, [CONVOLUTION], PARTS[0], spoiled)
    with pytest.raises(ModelError, match="variances are not all positive"):
        loaded(tmp_path, [("batchnorm", {})], -np.ones(12))


def test_all_that_cannot_be_done_is_told_at_once(tmp_path: Path) -> None:
    layers: list[Layer] = [
        ("convolutional", {"filters": 4, "xnor": 1, "activation": "wavy"}),
        ("lstm", {"output": 5}),
        ("contrastive", {}),
        ("yolo", {}),
        ("shortcut", {"from": -2, "weights_type": "per_channel"}),
    ]
    with pytest.raises(UnsupportedOperator) as caught:
        loaded(tmp_path, layers, *PARTS)
    for told in ("000_convolutional: xnor=1", "'wavy'", "001_lstm", "002_contrastive", "weights_type=per_channel"):
        assert told in str(caught.value)


HUGE = 2**31 - 1
NET = "[net]\nwidth=8\nheight=8\nchannels=3\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "width=8",
        "[net",
        "[]",
        "hello",
        "[convolutional]\nfilters=4",
        "[net]\nwidth=8\nheight=8\n[avgpool]",
        "[net]\nwidth=8\nheight=-8\nchannels=3\n[avgpool]",
        f"[net]\nwidth={HUGE}\nheight={HUGE}\nchannels={HUGE}\n[avgpool]",
        f"[net]\ninputs={HUGE}\n[avgpool]",
        "[net]\nwidth=" + "9" * 5000 + "\nheight=8\nchannels=3\n[avgpool]",
        NET,
        NET + "[convolutional]\nfilters=-4",
        NET + "[convolutional]\nfilters=four",
        NET + "[convolutional]\nfilters=4\nsize=0",
        NET + "[convolutional]\nfilters=4\nsize=99",
        NET + "[convolutional]\nfilters=4\nstride=-1",
        NET + "[convolutional]\nfilters=4\ngroups=2",
        NET + "[convolutional]\nfilters=4\npadding=-1",
        NET + f"[convolutional]\nfilters={HUGE}\nsize={HUGE}\npad=1",
        NET + f"[convolutional]\nfilters=4\npadding={HUGE}",
        NET + f"[deconvolutional]\nfilters=1\nstride={HUGE}",
        NET + f"[connected]\noutput={HUGE}",
        NET + f"[maxpool]\nsize={HUGE}\npadding={HUGE}",
        NET + "[maxpool]\nsize=9\npadding=0",
        NET + "[maxpool]\nsize=2\nstride=0",
        NET + f"[upsample]\nstride={HUGE}",
        NET + "[upsample]\nstride=2\nscale=nan",
        NET + "[upsample]\nstride=64\n[upsample]\nstride=64\n[upsample]\nstride=64\n[upsample]\nstride=64",
        NET + f"[reorg]\nstride={HUGE}",
        NET + f"[softmax]\ngroups={HUGE}",
        NET + "[softmax]\ntemperature=0",
        NET + "[route]\nlayers=-1",
        NET + "[route]\nlayers=0",
        NET + "[route]\nlayers=",
        NET + "[route]",
        NET + "[avgpool]\n[route]\nlayers=99999999999999999999",
        NET + "[avgpool]\n[route]\nlayers=" + "0," * 100000,
        NET + "[avgpool]\n[route]\nlayers=0\ngroups=2\ngroup_id=2",
        NET + "[avgpool]\n[shortcut]",
        NET + "[maxpool]\nsize=2\nstride=2\n[avgpool]\n[shortcut]\nfrom=0",
        NET + "[avgpool]\n[sam]\nfrom=7",
        NET + "[maxpool]\nsize=2\nstride=2\n[scale_channels]\nfrom=0",
        NET + "[avgpool]\n[maxpool]\nsize=3\npadding=9",
        NET + "[yolo]\n[yolo]",
        NET + "[dropout]\n" * 10**6,
        NET + "a=b\n" * 10**6,
        NET + "[\0",
    ],
)
def test_hostile_cfgs_end_in_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    files = write(tmp_path, text, weights(*PARTS))
    begun = time.process_time()
    with pytest.raises((ModelError, FileError), match=r"net\.cfg|net\.weights"):
        load(*files)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("data", [b"", b"\0", bytes(15), bytes(16), b"\xff" * 20, b"\xff" * 4000])
def test_weights_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises((ModelError, FileError), match=r"net\.weights"):
        load(*write(tmp_path, cfg([CONVOLUTION]), data))


def test_as_many_layers_as_may_be_load_in_time(tmp_path: Path) -> None:
    layers: list[Layer] = [("maxpool", {"size": 1}), *[("shortcut", {"from": -1})] * 3998]
    begun = time.process_time()
    loaded(tmp_path, layers)
    assert time.process_time() - begun < 5


def test_operators_are_listed() -> None:
    known = operators()
    assert list(known) == sorted(known)
    assert known["[convolutional]"] == ("Conv", "BatchNormalization")
    assert known["activation=mish"] == ("Mish",)
    assert {"[yolo]", "[route]", "[scale_channels]", "activation=linear"} <= set(known)
