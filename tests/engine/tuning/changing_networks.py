"""Quantized networks with samples, and random sequences of edits to them, for tests of live evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from engine import demo
from engine.config import Config
from engine.graph.layers import layers
from engine.ort import make_simulation, run
from engine.quantization.dataset import Dataset
from engine.quantization.edits import Edits
from engine.quantization.preprocessing import input_specs
from engine.quantization.quantized import Quantized
from engine.quantization.table import GRIDS
from engine.session import Session
from engine.simulator.lowering import Source, lower
from tests.small_networks import Array, built, integers, network, random
from tests.zoo import FOLDER

# Fused layers with tensors within, a residual, a join that an input takes part in, several outputs of one layer and of
# the model, one of integers and one that is an input; and kernels whose sums depend on how they are run.
BRANCHES = """
a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1, b1)
ar = Relu (a)
s = Conv <kernel_shape = [1, 1]> (ar, w2, b2)
g = Sigmoid (s)
sw = Mul (s, g)
r = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2> (sw, w3)
sum = Add (r, ar)
act = Relu (sum)
p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (act)
q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (act)
e = Elu (q)
j = Concat <axis = 1> (p, e, side)
lo, hi = Split <axis = 1, num_outputs = 2> (j)
m = Mul (lo, hi)
t = Transpose <perm = [0, 2, 3, 1]> (m)
mean = ReduceMean <keepdims = 1> (t, axes)
u = Resize <mode = "nearest"> (j, , twice)
y = Conv <kernel_shape = [1, 1]> (u, w4)
hs = HardSwish (y)
pooled = GlobalAveragePool (j)
flat = Flatten (pooled)
scores = Gemm (flat, w5, b5)
z = Softmax <axis = -1> (scores)
best = ArgMax <axis = -1> (scores)
"""
BRANCH_CONSTANTS = {
    "w1": random(8, 3, 3, 3), "b1": random(8), "w2": random(8, 8, 1, 1, seed=1), "b2": random(8, seed=1),
    "w3": random(8, 4, 3, 3, seed=2, spread=0.3), "twice": np.array([1, 1, 2, 2], np.float32), "axes": integers(1, 2),
    "w4": random(5, 20, 1, 1, seed=3), "w5": random(20, 6), "b5": random(6),
}  # fmt: skip

# What ONNX Runtime would fuse across layers: products and sums, normalization and Gelu written out, a softmax; and a
# recurrent layer.
TOKENS = """
n = LayerNormalization (x, gain, shift)
qm = MatMul (n, wq)
qb = Add (qm, bq)
kk = MatMul (n, wk)
vv = MatMul (n, wv)
kt = Transpose <perm = [0, 2, 1]> (kk)
sc = MatMul (qb, kt)
sm = Softmax <axis = -1> (sc)
ctx = MatMul (sm, vv)
h = Add (ctx, x)
mu = ReduceMean (h, last)
d = Sub (h, mu)
sq = Mul (d, d)
var = ReduceMean (sq, last)
ve = Add (var, epsilon)
sd = Sqrt (ve)
nrm = Div (d, sd)
f = MatMul (nrm, wf)
fb = Add (f, bf)
fr = Div (fb, root)
er = Erf (fr)
e1 = Add (er, one)
ge = Mul (fb, e1)
sp = Softplus (ge)
f2 = MatMul (sp, wg)
h2 = Add (f2, h)
tr = Transpose <perm = [1, 0, 2]> (h2)
l, lh, lc = LSTM <hidden_size = 16> (tr, lw, lr, lb)
ls = Squeeze (l, first)
tt = Transpose <perm = [1, 2, 0]> (ls)
mean = ReduceMean (tt, last)
"""
TOKEN_CONSTANTS = {
    "gain": random(72), "shift": random(72), "wq": random(72, 72, spread=0.1), "bq": random(72),
    "wk": random(72, 72, seed=1, spread=0.1), "wv": random(72, 72, seed=2, spread=0.1),
    "last": integers(-1), "first": integers(1), "epsilon": np.array(1e-5, np.float32),
    "wf": random(72, 288, spread=0.1), "bf": random(288), "root": np.array(np.sqrt(2), np.float32),
    "one": np.array(1, np.float32), "wg": random(288, 72, spread=0.05), "lw": random(1, 64, 72, spread=0.1),
    "lr": random(1, 64, 16, spread=0.1), "lb": random(1, 128),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Subject:
    """A quantized model with samples."""

    quantized: Quantized
    samples: Sequence[Mapping[str, Array]]

    def __repr__(self) -> str:
        return f"a network of {len(self.quantized.layers)} layers"


def quantized_of(session: Session) -> Quantized:
    """What a session built."""
    return Quantized(session.model, layers(session.model), session.table)


def branches(folder: Path) -> Subject:
    proto = network(
        {"x": (1, 3, 8, 8), "side": (1, 4, 4, 4)},
        BRANCHES,
        BRANCH_CONSTANTS,
        ["hs", "z", "best", "mean", "side", "ar"],
    )
    samples = [(random(1, 3, 8, 8, seed=seed), random(1, 4, 4, 4, seed=seed)) for seed in (1, 2)]
    session = built(folder, proto, samples)
    return Subject(quantized_of(session), [{"x": x, "side": side} for x, side in samples])


def tokens(folder: Path) -> Subject:
    proto = network({"x": (1, 10, 72)}, TOKENS, TOKEN_CONSTANTS, ["mean", "lh", "ge"])
    samples = [(random(1, 10, 72, seed=seed),) for seed in (1, 2)]
    return Subject(quantized_of(built(folder, proto, samples)), [{"x": x} for (x,) in samples])


def digits(folder: Path) -> Subject:
    session = Session(Config(mean_values=(demo.MEAN,), std_values=(demo.STD,)))
    session.load_onnx(demo.MODEL)
    session.build(dataset=demo.DATASET)
    return Subject(quantized_of(session), samples_of(session, demo.DATASET, 2))


def classifier(folder: Path) -> Subject:
    """The text direction classifier of the zoo."""
    name = "ch_ppocr_mobile_v2.0_cls_infer"
    photos = sorted((FOLDER / "photos").glob("*.jpg"))[:4]
    dataset = folder / "photos.txt"
    dataset.write_text("".join(f'"{photo}"\n' for photo in photos))
    session = Session(Config(mean_values=((127.5,) * 3,), std_values=((127.5,) * 3,)))
    session.load_onnx(FOLDER / "onnx" / name / f"{name}.onnx", input_size_list=[[1, 3, 48, 192]])
    session.build(dataset=dataset)
    return Subject(quantized_of(session), samples_of(session, dataset, 1))


def samples_of(session: Session, dataset: Path, count: int) -> list[dict[str, Array]]:
    """The first samples of a dataset as the session's model takes them."""
    found = Dataset(dataset, input_specs(session.config, session.summary().inputs))
    return [sample for sample, _ in zip(found, range(count), strict=False)]


def between(quantized: Quantized) -> list[str]:
    """The tensors that lie between layers."""
    inputs = [value.name or "" for value in quantized.model.graph.inputs]
    return inputs + [name for layer in quantized.layers for name in layer.outputs]


def rebuilt(
    quantized: Quantized, sample: Mapping[str, Array], only: frozenset[Source] | None = None
) -> dict[str, Array]:
    """Every tensor between layers, from the whole model in one session."""
    names = between(quantized)
    proto = lower(quantized, further=names, only=only)
    outputs = [output.name for output in proto.graph.output][-len(names) :]
    return dict(zip(names, run(make_simulation(proto), outputs, dict(sample)), strict=True))


@st.composite
def edits_of(draw: st.DrawFn, quantized: Quantized) -> Edits:
    """Any edits that the model takes: wishes for tensors between and within layers and for inputs, other ranges."""
    table = quantized.table
    inputs = [value.name or "" for value in quantized.model.graph.inputs]
    tensors = [n for n in (*inputs, *quantized.makers) if n in table.rows]
    wishes = {}
    for name in draw(st.lists(st.sampled_from(tensors), unique=True, max_size=6)):
        gridless = table.quantizer(name, "int8") is None
        wishes[name] = "float16" if gridless else draw(st.sampled_from(["float16", "int16", "int8"]))
    constants = quantized.model.graph.initializers
    rows = [name for name, row in table.rows.items() if row.dtype in GRIDS and name not in constants]
    ranges = {}
    for name in draw(st.lists(st.sampled_from(rows), unique=True, max_size=3)):
        factor = draw(st.sampled_from([0.25, 0.8, 1.5, 3.0]))
        ranges[name] = (table.rows[name].min * factor, table.rows[name].max * factor)
    return Edits(wishes, ranges)
