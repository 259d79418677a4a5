"""Reads layers of all three ages of Caffe's prototxt as layers of the newest."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import ModelError
from engine.frontends.caffe.prototxt import Message

_SECOND_AGE = {
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
_FIRST_AGE = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}
# Where the first age's fields, which all layers shared, belong now: to which message, under which names.
_FIRST_AGE_FIELDS = {
    "Convolution": (
        "convolution_param",
        {
            "num_output": "num_output",
            "biasterm": "bias_term",
            "pad": "pad",
            "kernelsize": "kernel_size",
            "group": "group",
            "stride": "stride",
        },
    ),
    "InnerProduct": ("inner_product_param", {"num_output": "num_output", "biasterm": "bias_term"}),
    "Pooling": ("pooling_param", {"pool": "pool", "kernelsize": "kernel_size", "stride": "stride", "pad": "pad"}),
    "LRN": ("lrn_param", {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"}),
    "Concat": ("concat_param", {"concat_dim": "concat_dim"}),
    "Data": ("transform_param", {"cropsize": "crop_size", "scale": "scale", "meanfile": "mean_file"}),
    "ImageData": ("transform_param", {"cropsize": "crop_size", "scale": "scale", "meanfile": "mean_file"}),
}


def layers(net: Message) -> list[Message]:
    """The layers of `net` in file order, all in the newest form: name, type, bottom, top and parameter messages."""
    old = net.messages("layers")
    if old and net.has("layer"):
        raise ModelError(
            "has layers of two ages, `layer` and `layers`",
            where=net.where,
            hint="upgrade it with upgrade_net_proto_text",
        )
    if any(isinstance(layer.fields.get("layer", [""])[0], Message) for layer in old):
        return list(_first_age(old))
    for layer in old:
        kind = layer.text("type")
        layer.fields["type"] = [_SECOND_AGE.get(kind, kind)]
    return old or net.messages("layer")


def _first_age(connections: list[Message]) -> Iterable[Message]:
    padded: dict[str, tuple[str, str]] = {}
    for connection in connections:
        old = connection.message("layer")
        bottoms, tops = connection.scalars("bottom"), connection.scalars("top")
        kind = old.text("type")
        if kind == "padding" and len(bottoms) == len(tops) == 1:
            padded[tops[0]] = (bottoms[0], old.text("pad", "0"))
            continue
        new = Message.like(connection)
        new.add("name", old.text("name"))
        new.add("type", _FIRST_AGE.get(kind, kind))
        holder, fields = _FIRST_AGE_FIELDS.get(_FIRST_AGE.get(kind, ""), ("", {}))
        inner = Message.like(connection)
        for name, renamed in fields.items():
            for value in old.scalars(name):
                inner.add(renamed, value)
        for bottom in bottoms:
            if bottom in padded:
                bottom, pad = padded[bottom]
                inner.add("pad", pad)
            new.add("bottom", bottom)
        for top in tops:
            new.add("top", top)
        if holder:
            new.add(holder, inner)
        yield new
