"""Caffe nets of all ages: names, phases, inputs, weights, cuts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from caffe_models import IMAGE, caffemodel, feeds_of, floats, layer, loaded, net, ours, run, save

from engine.errors import ConfigError, FileError, ModelError, UnsupportedOperator
from engine.frontends import caffe
from engine.frontends.caffe.weights import SCHEMA
from engine.graph.describe import describe_tensor
from engine.graph.provenance import sources

CONVOLUTION = "convolution_param { num_output: 4 kernel_size: 3 pad: 1 }"
WEIGHTS = [floats(4, 4, 3, 3), floats(4)]


def test_the_last_result_in_place_has_the_name_of_the_blob(tmp_path: Path) -> None:
    text = net(
        layer("Convolution", CONVOLUTION, "x", "c", name="conv")
        + layer("BatchNorm", "", "c", "c", name="norm")
        + layer("ReLU", "", "c", "c", name="relu")
        + layer("Dropout", "", "c", "c", name="drop")
    )
    paths = save(tmp_path, text, {"conv": WEIGHTS, "norm": [floats(4), np.abs(floats(4)), floats(1)]})
    model = loaded(paths)
    made = [(node.outputs[0].name, sources(node)) for node in model.graph]
    assert made == [("c/conv", ("conv",)), ("c/norm", ("norm",)), ("c", ("relu",))]
    assert [v.name for v in model.graph.outputs] == ["c"]
    cut = loaded(paths, outputs=["c/norm"])
    assert [v.name for v in cut.graph.outputs] == ["c/norm"]


def test_an_input_keeps_its_name_when_a_layer_writes_it_in_place(tmp_path: Path) -> None:
    model = loaded(save(tmp_path, net(layer("ReLU", "", "x", "x", name="relu"))))
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [v.name for v in model.graph.outputs] == ["x/relu"]
    described = describe_tensor(model.graph.inputs[0])
    assert (described.shape, described.layout) == (IMAGE["x"], "nchw")


def test_unread_blobs_are_outputs_in_the_order_they_are_written(tmp_path: Path) -> None:
    text = net(layer("ReLU", "", "x", "z") + layer("Split", "", "x", "m b a") + layer("TanH", "", "m", "c"))
    text += 'layer { name: "quiet" type: "Silence" bottom: "b" }'
    assert [v.name for v in loaded(save(tmp_path, text)).graph.outputs] == ["z", "a", "c"]


def test_blobs_are_never_called_like_what_lies_inside_a_layer(tmp_path: Path) -> None:
    text = net(layer("Swish", "", "x", "s/Sigmoid", name="s") + layer("ReLU", "", "x", "s/Mul", name="s"))
    assert [v.name for v in loaded(save(tmp_path, text)).graph.outputs] == ["s/Sigmoid", "s/Mul"]


_TRAINING = """
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param { batch_size: 64 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 6 scale: 0.0078 mean_value: 127 } data_param { batch_size: 50 } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 3 kernel_size: 6 } }
layer { name: "drop" type: "Dropout" bottom: "c" top: "c" }
layer { name: "extra" type: "ReLU" bottom: "c" top: "extra" exclude { phase: TEST } }
layer { name: "staged" type: "ReLU" bottom: "c" top: "staged" include { phase: TEST stage: "deploy" } }
layer { name: "acc" type: "Accuracy" bottom: "c" bottom: "label" top: "acc" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "label" top: "loss" }
"""


def test_a_net_for_training_is_read_as_its_test_phase(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = loaded(save(tmp_path, _TRAINING, {"c": [floats(3, 3, 6, 6), floats(3)]}))
    assert [(v.name, v.shape.numpy()) for v in model.graph.inputs if v.shape] == [("data", (1, 3, 6, 6))]
    assert [v.name for v in model.graph.outputs] == ["loss"]
    assert [node.op_type for node in model.graph] == ["Conv", "Softmax"]
    assert "set mean_values and std_values" in caplog.text


def test_stages_of_the_net_choose_layers(tmp_path: Path) -> None:
    text = 'state { phase: TEST stage: "deploy" }\n' + _TRAINING
    model = loaded(save(tmp_path, text), outputs=["staged"])
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]


@pytest.mark.parametrize(
    "text",
    [
        'input: "x" input_dim: 1 input_dim: 4 input_dim: 7 input_dim: 9',
        'input: "x" input_shape { dim: 1 dim: 4 dim: 7 dim: 9 }',
        'input: "x" input_shape < dim: [1, 4, 7, 9] >',
        "layer { name: 'd' type: 'DummyData' top: 'x' dummy_data_param { shape { dim: 1 dim: 4 dim: 7 dim: 9 } } }",
        "layer { name: 'd' type: 'DummyData' top: 'x' dummy_data_param { num: 1 channels: 4 height: 7 width: 9 } }",
        "layer { name: 'd' type: 'MemoryData' top: 'x' top: 'l' memory_data_param { batch_size: 1 channels: 4 "
        "height: 7 width: 9 } }",
    ],
)
def test_inputs_are_declared_in_many_ways(tmp_path: Path, text: str) -> None:
    model = loaded(save(tmp_path, f"{text}\n{layer('ReLU')}"))
    assert [(v.name, v.shape.numpy()) for v in model.graph.inputs if v.shape] == [("x", (1, 4, 7, 9))]


def test_sizes_are_those_of_inputs_that_outputs_depend_on(tmp_path: Path) -> None:
    paths = save(tmp_path, _TRAINING.replace("crop_size: 6", ""), {"c": [floats(3, 3, 6, 6), floats(3)]})
    model = loaded(paths, input_size_list=[[1, 3, 6, 6]])
    assert [v.name for v in model.graph.inputs] == ["data"]
    cut = loaded(save(tmp_path, _TRAINING, {"c": [floats(3, 3, 6, 6), floats(3)]}), inputs=["c"])
    assert [(v.name, v.shape.numpy()) for v in cut.graph.inputs if v.shape] == [("c", (1, 3, 1, 1))]


_SECOND_AGE = """
input: "x" input_dim: 1 input_dim: 4 input_dim: 7 input_dim: 9
layers { name: "c" type: CONVOLUTION bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "p" type: POOLING bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "n" type: LRN bottom: "p" top: "n" lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 } }
layers { name: "d" type: DROPOUT bottom: "n" top: "n" dropout_param { dropout_ratio: 0.5 } }
layers { name: "i" type: INNER_PRODUCT bottom: "n" top: "i" inner_product_param { num_output: 5 } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "i" bottom: "label" }
"""
_FIRST_AGE = """
input: "x" input_dim: 1 input_dim: 4 input_dim: 7 input_dim: 9
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "x" top: "padded" }
layers { layer { name: "c" type: "conv" num_output: 4 kernelsize: 3 biasterm: true } bottom: "padded" top: "c" }
layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }
layers { layer { name: "p" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "c" top: "p" }
layers { layer { name: "n" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.75 } bottom: "p" top: "n" }
layers { layer { name: "i" type: "innerproduct" num_output: 5 } bottom: "n" top: "i" }
layers { layer { name: "loss" type: "softmax_loss" } bottom: "i" bottom: "label" }
"""
_NEWEST = (
    layer("Convolution", CONVOLUTION, "x", "c")
    + layer("ReLU", "", "c", "c", name="r")
    + layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }", "c", "p")
    + layer("LRN", "lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 }", "p", "n")
    + layer("InnerProduct", "inner_product_param { num_output: 5 }", "n", "i")
    + layer("Softmax", "", "i", "loss")
)


def test_all_three_ages_of_the_format_mean_the_same(tmp_path: Path) -> None:
    weights = {"c": WEIGHTS, "i": [floats(5, 48), floats(5)]}
    expected = ours(tmp_path, _NEWEST, weights)
    for text in (_SECOND_AGE, _FIRST_AGE):
        model, blobs = save(tmp_path, text, weights)
        assert blobs is not None
        for old in (False, True):
            blobs.write_bytes(caffemodel(weights, old=old))
            found = run(caffe.load(model, blobs), feeds_of(IMAGE))
            np.testing.assert_array_equal(found["loss"], expected["loss"])


def test_weights_are_read_however_their_numbers_are_written(tmp_path: Path) -> None:
    array = floats(4)
    model, _ = save(tmp_path, net(layer("Bias")))
    blobs = tmp_path / "net.caffemodel"
    written = []
    for kind in ("double", "half", "loose", "parts"):
        message = SCHEMA["NetParameter"]()
        blob = message.layer.add(name=b"y").blobs.add()
        blob.shape.dim.append(4)
        if kind == "double":
            blob.double_data.append(array.astype(np.float64).tobytes())
        elif kind == "half":
            blob.raw_data_type, blob.raw_data = 2, array.astype(np.float16).tobytes()
        elif kind == "parts":
            blob.data.extend([array[:1].tobytes(), array[1:].tobytes()])
        else:
            blob.MergeFromString(SCHEMA["LooseBlobProto"](data=array.tolist()).SerializeToString())
        blobs.write_bytes(message.SerializeToString())
        written.append(run(caffe.load(model, blobs), feeds_of(IMAGE))["y"])
    for found in written:
        np.testing.assert_allclose(found, feeds_of(IMAGE)["x"] + array[:, None, None], atol=1e-3)


def test_all_that_is_wrong_with_weights_is_told_at_once(tmp_path: Path) -> None:
    layers = "".join(layer("Convolution", CONVOLUTION, "x", name) for name in ("one", "two", "three", "four"))
    paths = save(
        tmp_path, net(layers), {"one": [floats(4, 4, 3, 3)], "two": [floats(4, 4, 2, 2), floats(4)], "four": WEIGHTS}
    )
    with pytest.raises(ModelError) as caught:
        loaded(paths)
    text = str(caught.value)
    assert "one has 1 blobs, not 2" in text
    assert "blob 0 of two has the shape [4, 4, 2, 2], not [4, 4, 3, 3]" in text
    assert "three has none" in text
    assert "four" not in text


def test_layers_share_weights_by_the_name_of_a_parameter(tmp_path: Path) -> None:
    shared = 'param { name: "w" } param { name: "b" } ' + CONVOLUTION
    layers = layer("Convolution", shared, "x", "a") + layer("Convolution", shared, "x", "b")
    for weights in ({"a": WEIGHTS}, None):
        found = ours(tmp_path, layers, weights)
        np.testing.assert_array_equal(found["a"], found["b"])


def test_layers_of_one_name_take_weights_in_order(tmp_path: Path) -> None:
    layers = layer("Bias", "", "x", "a", name="same") + layer("Bias", "", "x", "b", name="same")
    model, _ = save(tmp_path, net(layers))
    blobs = tmp_path / "net.caffemodel"
    blobs.write_bytes(caffemodel({"same": [np.zeros(4)]}) + caffemodel({"same": [np.ones(4)]}))
    found = run(caffe.load(model, blobs), feeds_of(IMAGE))
    np.testing.assert_allclose(found["b"] - found["a"], 1, rtol=1e-5)


def test_made_up_weights_are_always_the_same_and_keep_activations_finite(tmp_path: Path) -> None:
    layers, before = "", "x"
    for index in range(40):
        name = f"c{index}"
        layers += layer("Convolution", CONVOLUTION, before, name) + layer("BatchNorm", "", name, name, name=f"n{index}")
        layers += layer("ReLU", "", name, name, name=f"r{index}")
        before = name
    first, second = ours(tmp_path, layers), ours(tmp_path, layers)
    np.testing.assert_array_equal(first["c39"], second["c39"])
    assert np.isfinite(first["c39"]).all()
    assert first["c39"].std() > 0


def test_inputs_are_ordered_by_their_names_or_those_of_their_layers(tmp_path: Path) -> None:
    text = "".join(
        f'layer {{ name: "in_{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: 1 dim: {size} }} }} }}\n'
        for name, size in (("a", 2), ("b", 3), ("c", 4))
    ) + layer("Concat", "", "a b c")
    paths = save(tmp_path, text)
    assert [v.name for v in loaded(paths, input_name=["c", "in_a"]).graph.inputs] == ["c", "a", "b"]
    with pytest.raises(ConfigError, match="no input 'd'"):
        loaded(paths, input_name=["d"])
    with pytest.raises(ConfigError, match="twice"):
        loaded(paths, input_name=["a", "a"])


def test_sizes_are_given_to_inputs(tmp_path: Path) -> None:
    paths = save(tmp_path, 'input: "x" input_dim: 1 input_dim: 3 input_dim: -1 input_dim: -1\n' + layer("ReLU"))
    with pytest.raises(ConfigError, match="size of input 'x'"):
        loaded(paths)
    model = loaded(paths, input_size_list=[[1, 3, 5, 6]])
    assert model.graph.outputs[0].shape is not None
    assert model.graph.outputs[0].shape.numpy() == (1, 3, 5, 6)
    for wrong in ([[1, 3]] * 2, [[1, 3, 0, 2]], ["1"], [5]):
        with pytest.raises(ConfigError, match="input_size_list"):
            loaded(paths, input_size_list=wrong)


def test_a_batch_in_the_file_is_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = save(tmp_path, net(layer("ReLU"), {"x": (10, 3, 4, 5)}))
    model = loaded(paths)
    assert model.graph.outputs[0].shape is not None
    assert model.graph.outputs[0].shape.numpy() == (10, 3, 4, 5)
    assert "takes 10 pictures; input_size_list=[[1, 3, 4, 5]] for one" in caplog.text
    caplog.clear()
    single = loaded(paths, input_size_list=[[1, 3, 4, 5]]).graph.outputs[0].shape
    assert single is not None
    assert single.numpy() == (1, 3, 4, 5)
    assert not caplog.text


def test_a_net_is_cut_at_its_blobs(tmp_path: Path) -> None:
    text = net(
        layer("Convolution", "convolution_param { num_output: 2 kernel_size: 3 }", "x", "a")
        + layer("ReLU", "", "a", "b")
        + layer("Warp", "", "b", "c")
        + layer("TanH", "", "c", "d")
    )
    paths = save(tmp_path, text)
    with pytest.raises(UnsupportedOperator, match=r"Warp \(c\)"):
        loaded(paths)
    inner = loaded(paths, inputs=["a"], outputs=["b"])
    assert [(v.name, v.shape.numpy()) for v in inner.graph.inputs if v.shape] == [("a", (1, 2, 5, 7))]
    assert [node.op_type for node in inner.graph] == ["Relu"]
    behind = loaded(paths, inputs=["c"], input_size_list=[[1, 2, 3, 4]])
    assert [node.op_type for node in behind.graph] == ["Tanh"]
    with pytest.raises(ConfigError, match="size of input 'c'"):
        loaded(paths, inputs=["c"])
    with pytest.raises(ConfigError, match="'dd'"):
        loaded(paths, outputs=["dd"])


def test_all_that_is_not_supported_is_told_at_once(tmp_path: Path) -> None:
    text = net(
        layer("Warp", "warp_param { a: WAY b { c: 1 } }", "x", "a")
        + layer("ReLU", "", "a", "b")
        + layer("Python", "python_param { module: 'm' layer: 'L' }", "b", "c", name="py")
        + layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }", "x", "d")
    )
    with pytest.raises(UnsupportedOperator) as caught:
        loaded(save(tmp_path, text))
    assert "Warp (a), Python (py), Pooling (d: STOCHASTIC pooling)" in str(caught.value)
    assert "replace it by layers of Caffe" in caught.value.hint


def test_what_searches_for_objects_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = net(
        layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", "x", "p")
        + layer("Flatten", "", "p", "loc")
        + layer("Sigmoid", "", "loc", "conf")
        + layer("PriorBox", "prior_box_param { min_size: 3 }", "p x", "priors")
        + layer(
            "DetectionOutput", "detection_output_param { num_classes: 2 nms_param { top_k: 9 } }", "loc conf priors"
        )
    )
    model = loaded(save(tmp_path, text))
    assert [v.name for v in model.graph.outputs] == ["conf", "priors"]
    assert "DetectionOutput is left out; decode 'loc', 'conf', 'priors'" in caplog.text


def test_fields_that_have_no_effect_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    param = (
        "convolution_param { num_output: 2 kernel_size: 3 kernal_h: 3 engine: CAFFE weight_filler { type: 'msra' } }"
    )
    loaded(save(tmp_path, net(layer("Convolution", param))))
    assert "without effect: y: convolution_param.kernal_h" in caplog.text
    assert "engine" not in caplog.text.replace("engine:", "")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (layer("ReLU", "", "later") + layer("ReLU", "", "x", "later"), "reads blob 'later', which nothing before"),
        (layer("ReLU", "", "x", "y") + layer("TanH", "", "x", "y", name="t"), "t: blob 'y' is made twice"),
        (layer("ReLU", "", "x z"), "reads blob 'z'"),
        (layer("Concat", "concat_param { axis: 4 }"), "its axis 4 is none of 'x'"),
        (layer("Eltwise", "", "x"), "cannot read 1 blobs"),
        (layer("ReLU", "", "x", "a b"), "makes 1 blobs, not 2"),
        (layer("Convolution", "convolution_param { num_output: 2147483647 kernel_size: 3 }"), "y: its weights would"),
        (layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 stride: 0 }"), "y: its window"),
        (layer("Convolution", "convolution_param { num_output: 3 kernel_size: 3 group: 2 }"), "in 2 groups"),
        (layer("Convolution", "convolution_param { num_output: 4 kernel_size: 30 }"), "y"),
        (
            layer("Convolution", "convolution_param { num_output: many kernel_size: 3 }"),
            "line 3: num_output is many, not a whole",
        ),
        (layer("Reshape", "reshape_param { shape { dim: 5 dim: -1 } }"), "cannot become"),
        (layer("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }"), "cannot be that"),
        (layer("Crop", "crop_param { offset: 2000000000 }", "x x"), "does not lie in"),
        (layer("Tile", "tile_param { tiles: 2000000000 }"), "more than"),
        (layer("Interp", "interp_param { height: 2000000000 width: 2 }"), "more than"),
        (layer("Slice", "slice_param { slice_point: 3 slice_point: 2 }", "x", "a b c"), "cannot be cut at"),
        (layer("PriorBox", "", "x x"), "min_size"),
        (layer("Permute", "permute_param { order: 1 order: 1 }"), "the order"),
        (layer("LRN", "lrn_param { local_size: 4 }"), "local_size is 4"),
        (layer("Power", "power_param { power: 1e999 }"), "power is 1e999, not a finite number"),
        (layer("ReLU", "relu_param { negative_slope { } }"), "negative_slope is a message"),
        (layer("Pooling", "pooling_param { pool: MEAN kernel_size: 2 }"), "pool is 'MEAN'"),
        ("layer { name: 'a' }", "the layer has no type"),
        ("", "has no outputs"),
    ],
)
def test_a_layer_that_cannot_be_is_named(tmp_path: Path, layers: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        loaded(save(tmp_path, net(layers)))
    assert said in str(caught.value)
    assert str(tmp_path / "net.prototxt") in str(caught.value)


def test_files_that_are_something_else_are_told(tmp_path: Path) -> None:
    model, blobs = save(tmp_path, net(layer("Bias")), {"y": [np.zeros(4)]})
    assert blobs is not None
    with pytest.raises(ModelError, match="is not a text file"):
        caffe.load(blobs, model)
    with pytest.raises(ModelError, match="not a caffemodel"):
        caffe.load(model, model)
    with pytest.raises(FileError, match="does not exist"):
        caffe.load(model, tmp_path / "none.caffemodel")
    blobs.write_bytes(b"\x89HDF\r\n")
    with pytest.raises(ModelError, match="HDF5"):
        caffe.load(model, blobs)
    blobs.write_bytes(caffemodel({}) + b"\x0a\x01n")
    with pytest.raises(ModelError, match="holds no weights"):
        caffe.load(model, blobs)
