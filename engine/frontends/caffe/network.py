"""A net as Caffe's TEST phase runs it: its inputs, its layers in order, and what each of them reads and makes."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence

from engine.errors import ModelError, nearest
from engine.frontends.caffe import upgrading
from engine.frontends.caffe.prototxt import Message

log = logging.getLogger("engine")

DATA_LAYERS = (
    "AnnotatedData",
    "Data",
    "DummyData",
    "HDF5Data",
    "ImageData",
    "Input",
    "MemoryData",
    "WindowData",
)
"""Layers whose tops are inputs of the network."""

DETECTORS = ("DetectionOutput", "YoloDetectionOutput", "Yolov3DetectionOutput")
"""Layers whose results have as many rows as they find objects, which no NPU can make; the net ends before them."""

LEFT_OUT = (
    "Accuracy",
    "ContrastiveLoss",
    "DetectionEvaluate",
    "EuclideanLoss",
    "HDF5Output",
    "HingeLoss",
    "InfogainLoss",
    "MultiBoxLoss",
    "MultinomialLogisticLoss",
    "Silence",
    "SmoothL1Loss",
)
"""Layers that only training and scoring need, besides those of forks whose type ends with Loss."""

DEPLOYED = {"SoftmaxWithLoss": "Softmax", "SoftmaxLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}
"""Losses that stand for the layer that a net for deployment has in their place."""

_PHASES = {"TRAIN": 0, "TEST": 1}


@dataclasses.dataclass(frozen=True)
class NetInput:
    """A blob that is fed: its name, the layer that declares it, and its shape; None where the file does not say it."""

    name: str
    layer: str
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that runs. `bottoms` and `tops` are names of values: a blob that layers write in place has several, of
    which the last is called like the blob and each earlier one BLOB/LAYER."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message


@dataclasses.dataclass(frozen=True)
class Net:
    """`outputs`: values that no layer reads, in the order in which layers write them."""

    inputs: tuple[NetInput, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]

    def values(self) -> list[str]:
        """The names of all inputs and of all that layers make."""
        return [*(given.name for given in self.inputs), *(top for layer in self.layers for top in layer.tops)]


def read(message: Message, where: str) -> Net:
    """The net that a prototxt describes. Raises ModelError for layers that read what nothing before them makes."""
    tracker = _Tracker(where)
    for given in _declared_inputs(message):
        tracker.declare(given)
    state = message.message("state")
    for layer in upgrading.layers(message):
        if _runs(layer, state):
            tracker.follow(layer)
    return tracker.net()


class _Tracker:
    """Follows which value a blob's name stands for, layer by layer."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._inputs: list[NetInput] = []
        self._layers: list[tuple[Message, str, str, list[int], list[int]]] = []
        self._current: dict[str, int] = {}
        self._made: list[tuple[str, str]] = []
        self._read: set[int] = set()

    def declare(self, given: NetInput) -> None:
        """Let a blob be an input."""
        if given.name in self._current:
            raise ModelError(f"blob {given.name!r} is made twice", where=f"{self._where}: {given.layer}")
        self._inputs.append(given)
        self._make(given.name, given.layer)

    def follow(self, message: Message) -> None:
        """Let a layer read and make its blobs."""
        name, kind = message.text("name"), message.text("type")
        bottoms, tops = message.scalars("bottom"), message.scalars("top")
        name = name or (tops[0] if tops else kind)
        where = f"{self._where}: {name}"
        if not kind:
            raise ModelError("the layer has no type", where=where)
        if kind in DATA_LAYERS:
            for given in _data_inputs(message, name, kind, tops, where):
                self.declare(given)
            return
        if kind in DEPLOYED:
            kind, bottoms, tops = DEPLOYED[kind], bottoms[:1], tops[:1] or [name]
        if kind in DETECTORS:
            log.warning("%s: %s is left out; decode %s on the CPU", where, kind, ", ".join(map(repr, bottoms)))
            return
        if kind in LEFT_OUT or kind.endswith("Loss"):
            if kind == "Silence":
                self._read.update(self._find(blob, where) for blob in bottoms)
            return
        if kind == "Dropout" and bottoms == tops:
            return
        read = [self._find(blob, where) for blob in bottoms]
        for blob in tops:
            if (blob in self._current and blob not in bottoms) or tops.count(blob) > 1:
                raise ModelError(f"blob {blob!r} is made twice", where=where, hint="give one of them another name")
        self._read.update(read)
        self._layers.append((message, name, kind, read, [self._make(blob, name) for blob in tops]))

    def net(self) -> Net:
        """What was followed, with a name for every value."""
        names = self._names()
        layers = tuple(
            Layer(name, kind, tuple(names[i] for i in read), tuple(names[i] for i in made), message)
            for message, name, kind, read, made in self._layers
        )
        outputs = [i for *_, made in self._layers for i in made if i not in self._read]
        return Net(tuple(self._inputs), layers, tuple(names[i] for i in outputs))

    def _names(self) -> list[str]:
        last = set(self._current.values())
        taken = {given.name for given in self._inputs}
        taken |= {blob for index, (blob, _) in enumerate(self._made) if index in last}
        own = {given.name for given in self._inputs}
        names: list[str] = []
        seen: Counter[str] = Counter()
        for index, (blob, layer) in enumerate(self._made):
            first_of_input = blob in own and seen[blob] == 0
            seen[blob] += 1
            if first_of_input or (index in last and blob not in own):
                names.append(blob)
                continue
            name, count = f"{blob}/{layer}", 1
            while name in taken:
                name, count = f"{blob}/{layer}_{count}", count + 1
            taken.add(name)
            names.append(name)
        return names

    def _make(self, blob: str, layer: str) -> int:
        self._made.append((blob, layer))
        self._current[blob] = len(self._made) - 1
        return self._current[blob]

    def _find(self, blob: str, where: str) -> int:
        if blob not in self._current:
            raise ModelError(
                f"reads blob {blob!r}, which nothing before it makes", where=where, hint=nearest(blob, self._current)
            )
        return self._current[blob]


def _runs(layer: Message, state: Message) -> bool:
    """Whether the rules of a layer let it run in the TEST phase, and in the net's own level and stages."""
    layer.ignore("phase", "param", "blobs_lr", "weight_decay", "loss_weight", "propagate_down")
    include, exclude = layer.messages("include"), layer.messages("exclude")
    if include and exclude:
        raise ModelError("has rules both to include and to exclude the layer", where=layer.where)
    if include:
        return any(_meets(rule, state) for rule in include)
    return not any(_meets(rule, state) for rule in exclude)


def _meets(rule: Message, state: Message) -> bool:
    phase = rule.choice("phase", _PHASES, "TEST")
    level, stages = state.integer("level"), set(state.scalars("stage"))
    return (
        phase == "TEST"
        and rule.integer("min_level", level) <= level <= rule.integer("max_level", level)
        and stages.issuperset(rule.scalars("stage"))
        and stages.isdisjoint(rule.scalars("not_stage"))
    )


def _declared_inputs(net: Message) -> list[NetInput]:
    """Inputs that the net itself declares, with `input_shape`, or four of `input_dim` each."""
    names = net.scalars("input")
    dims = net.integers("input_dim")
    shapes = [shape.integers("dim") for shape in net.messages("input_shape")]
    if not shapes:
        shapes = [dims[4 * index : 4 * index + 4] for index in range(len(names))]
    return [NetInput(name, name, _known(shapes[i] if i < len(shapes) else [])) for i, name in enumerate(names)]


def _data_inputs(message: Message, layer: str, kind: str, tops: Sequence[str], where: str) -> list[NetInput]:
    """What a layer of data feeds. Of data sets only the size of the crop is known, of their labels nothing."""
    shapes: list[list[int]] = []
    if kind == "Input":
        shapes = [shape.integers("dim") for shape in message.message("input_param").messages("shape")]
        return _shaped(layer, tops, shapes)
    if kind == "DummyData":
        param = message.message("dummy_data_param")
        shapes = [shape.integers("dim") for shape in param.messages("shape")]
        sizes = [param.integers(name) for name in ("num", "channels", "height", "width")]
        if not shapes and all(sizes):
            count = min(map(len, sizes))
            shapes = [[size[index] for size in sizes] for index in range(count)]
        return _shaped(layer, tops, shapes)
    transform = message.message("transform_param")
    told = [name for name in ("scale", "mean_value", "mean_file") if transform.has(name)]
    if told:
        log.warning("%s: its %s is not part of the network; set mean_values and std_values", where, " and ".join(told))
    crop = transform.integer("crop_size")
    if kind == "MemoryData":
        param = message.message("memory_data_param")
        shapes = [[param.integer(name) for name in ("batch_size", "channels", "height", "width")]]
    else:
        height, width = (message.message("image_data_param").integer(name) for name in ("new_height", "new_width"))
        shapes = [[1, 1 if transform.flag("force_gray") else 3, crop or height, crop or width]]
    return [NetInput(top, layer, _known(shapes[0]) if index == 0 else None) for index, top in enumerate(tops)]


def _shaped(layer: str, tops: Sequence[str], shapes: Sequence[Sequence[int]]) -> list[NetInput]:
    """One shape for all tops, or one for each."""
    if len(shapes) == 1:
        shapes = list(shapes) * len(tops)
    known = [_known(shapes[i] if i < len(shapes) else []) for i in range(len(tops))]
    return [NetInput(top, layer, shape) for top, shape in zip(tops, known, strict=True)]


def _known(shape: Sequence[int]) -> tuple[int, ...] | None:
    return tuple(shape) if shape and all(dim > 0 for dim in shape) else None
