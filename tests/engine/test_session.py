"""What a session tells of its model, and that building again changes only what was built."""

from __future__ import annotations

from pathlib import Path

from engine import demo
from engine.config import Config
from engine.session import Session
from engine.summaries import ModelSummary


def loaded() -> Session:
    session = Session(Config(mean_values=((0.0,),), std_values=((255.0,),), target_platform="rk3588"))
    session.load(demo.MODEL)
    return session


def precisions(summary: ModelSummary) -> dict[str, str]:
    return {layer.name: layer.precision for layer in summary.layers}


def test_a_loaded_model_is_described_as_its_file_is(tmp_path: Path) -> None:
    session = loaded()
    summary = session.summary()
    assert (summary.framework, summary.opset, summary.built, summary.target) == ("ONNX", 13, "", "rk3588")
    assert [(t.name, t.shape, t.layout) for t in summary.inputs] == [("image", (1, 1, 24, 24), "nchw")]
    assert summary.layers[0].op == "Input"
    assert set(precisions(summary).values()) == {""}
    sources = [source for layer in summary.layers for source in layer.sources]
    assert {"stem_conv", "stem_norm", "stem_clip", "joined", "probabilities"} <= set(sources)

    session.build(dataset=demo.DATASET)
    session.export(tmp_path / "digits.rknn")
    again = Session()
    assert again.load(tmp_path / "digits.rknn").opset == 13


def test_every_layer_and_input_has_the_precision_that_it_was_built_in() -> None:
    session = loaded()
    session.build(dataset=demo.DATASET)
    quantized = precisions(session.summary())
    assert quantized.pop("probabilities") == "float16"
    assert set(quantized.values()) == {"int8"}
    session.build(do_quantization=False)
    assert set(precisions(session.summary()).values()) == {"float16"}


def test_building_again_leaves_no_trace_of_the_build_before() -> None:
    session = loaded()
    session.build(dataset=demo.DATASET)
    first = session.table
    session.build(do_quantization=False)
    session.build(dataset=demo.DATASET, rknn_batch_size=3)
    assert session.table.rows == first.rows
    assert session.summary().outputs[0].shape == (3, 10)
