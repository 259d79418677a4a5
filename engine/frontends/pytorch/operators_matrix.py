"""Matrix products, Einstein sums and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.frontends.pytorch.operators_activation import gelu
from engine.frontends.pytorch.operators_arithmetic import binary
from engine.frontends.pytorch.operators_normalization import layer_norm
from engine.frontends.pytorch.table import Arguments, operator
from engine.frontends.pytorch.translation import Translation
from engine.frontends.pytorch.values import Refused, Tensor


def linear(t: Translation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b: Gemm for matrices, MatMul and Add for more dimensions."""
    if weight.rank != 2:
        product = t.emit("MatMul", x, t.transpose(weight, list(range(weight.rank))[::-1]))
        return product if bias is None else t.emit("Add", product, bias)
    if x.rank == 2:
        inputs = [x, weight] if bias is None else [x, weight, bias]
        return t.emit("Gemm", *inputs, transB=1)
    product = t.emit("MatMul", x, t.transpose(weight, [1, 0]))
    return product if bias is None else t.emit("Add", product, bias)


@operator("linear", becomes="Add Gemm MatMul Transpose")
def _linear(t: Translation, a: Arguments) -> Tensor:
    return linear(t, t.as_float(a.tensor("input")), a.tensor("weight"), a.optional("bias"))


def _scaled(t: Translation, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else t.emit("Mul", x, t.scalar(factor))


@operator("addmm", becomes="Add Gemm Mul")
def _addmm(t: Translation, a: Arguments) -> Tensor:
    alpha, beta = a.number("alpha", 1), a.number("beta", 1)
    return t.emit("Gemm", a.tensor("mat1"), a.tensor("mat2"), a.tensor("self"), alpha=float(alpha), beta=float(beta))


@operator("matmul", "mm", "bmm", "mv", "dot", "inner", "linalg_matmul", "__matmul__", becomes="MatMul")
def _matmul(t: Translation, a: Arguments) -> Tensor:
    one, other = list(a.values())[:2]
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        raise Refused("multiplies something that is no tensor")
    return t.emit("MatMul", t.as_float(one), t.as_float(other))


@operator("outer", "ger", becomes="Mul Reshape")
def _outer(t: Translation, a: Arguments) -> Tensor:
    one, other = list(a.values())[:2]
    return binary(t, "Mul", t.reshape(one, (*one.shape, 1)), t.reshape(other, (1, *other.shape)))


@operator("baddbmm", becomes="Add MatMul Mul")
def _baddbmm(t: Translation, a: Arguments) -> Tensor:
    product = _scaled(t, t.emit("MatMul", a.tensor("batch1"), a.tensor("batch2")), a.number("alpha", 1))
    beta = a.number("beta", 1)
    return product if beta == 0 else t.emit("Add", product, _scaled(t, a.tensor("self"), beta))


@operator("addbmm", becomes="Add MatMul Mul ReduceSum")
def _addbmm(t: Translation, a: Arguments) -> Tensor:
    product = t.emit("ReduceSum", t.emit("MatMul", a.tensor("batch1"), a.tensor("batch2")), [0], keepdims=0)
    product = _scaled(t, product, a.number("alpha", 1))
    return t.emit("Add", product, _scaled(t, a.tensor("self"), a.number("beta", 1)))


@operator("addmv", becomes="Add MatMul Mul")
def _addmv(t: Translation, a: Arguments) -> Tensor:
    product = _scaled(t, t.emit("MatMul", a.tensor("mat"), a.tensor("vec")), a.number("alpha", 1))
    return t.emit("Add", product, _scaled(t, a.tensor("self"), a.number("beta", 1)))


@operator("einsum", becomes="MatMul Mul ReduceSum Reshape Transpose")
def _einsum(t: Translation, a: Arguments) -> Tensor:
    tensors = a.tensors("tensors")
    terms, result = _terms(str(a.get("equation")), tensors)
    one, letters = tensors[0], terms[0]
    for index in range(1, len(tensors)):
        later = set("".join(terms[index + 1 :])) | set(result)
        one, letters = _contract(t, one, letters, tensors[index], terms[index], later)
    summed = [i for i, letter in enumerate(letters) if letter not in result]
    if summed:
        one = t.emit("ReduceSum", one, summed, keepdims=0)
        letters = "".join(letter for letter in letters if letter in result)
    return t.transpose(one, [letters.index(letter) for letter in result])


def _terms(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """One letter a dimension for every tensor and the result; what `...` stands for has capital letters of its own."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise Refused(f"names {len(terms)} tensors of {len(tensors)} in {equation!r}")
    free = [chr(code) for code in range(0x3B1, 0x3B1 + 24)]
    widest = 0
    for index, (term, tensor) in enumerate(zip(terms, tensors, strict=True)):
        count = tensor.rank - len(term.replace("...", ""))
        if "..." in term:
            widest = max(widest, count)
            terms[index] = term.replace("...", "".join(free[:count][::-1]))
        if len(terms[index]) != tensor.rank or len(set(terms[index])) != tensor.rank:
            raise Refused(f"cannot do {equation!r} of {list(tensor.shape)}")
    dots = "".join(free[:widest][::-1])
    if not arrow:
        letters = "".join(terms)
        result = dots + "".join(sorted(one for one in set(letters) if letters.count(one) == 1 and one not in dots))
    else:
        result = result.replace("...", dots)
    if len(set(result)) != len(result) or not set(result) <= set("".join(terms)):
        raise Refused(f"cannot do {equation!r}")
    return terms, result


def _contract(
    t: Translation, one: Tensor, first: str, other: Tensor, second: str, later: set[str]
) -> tuple[Tensor, str]:
    """The product of two tensors, summed over the letters of both that nothing later needs."""
    sizes = dict(zip(second, other.shape, strict=True))
    sizes.update({letter: max(n, sizes.get(letter, 1)) for letter, n in zip(first, one.shape, strict=True)})
    only_one = [i for i, letter in enumerate(first) if letter not in second and letter not in later]
    if only_one:
        one = t.emit("ReduceSum", one, only_one, keepdims=0)
        first = "".join(letter for i, letter in enumerate(first) if i not in only_one)
    only_other = [i for i, letter in enumerate(second) if letter not in first and letter not in later]
    if only_other:
        other = t.emit("ReduceSum", other, only_other, keepdims=0)
        second = "".join(letter for i, letter in enumerate(second) if i not in only_other)
    batch = [letter for letter in first if letter in second and letter in later]
    summed = [letter for letter in first if letter in second and letter not in later]
    rows = [letter for letter in first if letter not in second]
    columns = [letter for letter in second if letter not in first]
    one = t.transpose(one, [first.index(letter) for letter in (*batch, *rows, *summed)])
    other = t.transpose(other, [second.index(letter) for letter in (*batch, *summed, *columns)])
    one = t.expand(one, [sizes[letter] for letter in (*batch, *rows, *summed)])
    other = t.expand(other, [sizes[letter] for letter in (*batch, *summed, *columns)])
    b, r, s, c = (([sizes[letter] for letter in group]) for group in (batch, rows, summed, columns))
    product = t.emit(
        "MatMul", t.reshape(one, [*b, math.prod(r), math.prod(s)]), t.reshape(other, [*b, math.prod(s), math.prod(c)])
    )
    return t.reshape(product, [*b, *r, *c]), "".join((*batch, *rows, *columns))


def attention(
    t: Translation,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """softmax(q k' scale + mask) v, over the last two dimensions; and the softmax (https://arxiv.org/abs/1706.03762)."""
    factor = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
    order = list(range(key.rank))
    order[-1], order[-2] = order[-2], order[-1]
    scores = _scaled(t, t.emit("MatMul", query, t.transpose(key, order)), factor)
    if causal:
        shape = scores.shape[-2:]
        mask = t.constant(np.tril(np.ones(shape, bool)))
    if mask is not None:
        if mask.is_float:
            scores = t.emit("Add", scores, mask)
        else:
            scores = t.emit("Where", mask, scores, t.scalar(float(np.finfo(np.float32).min)))
    weights = t.emit("Softmax", scores, axis=-1)
    return t.emit("MatMul", weights, value), weights


@operator("scaled_dot_product_attention", becomes="Add MatMul Mul Softmax Transpose Where Reshape Expand")
def _sdpa(t: Translation, a: Arguments) -> Tensor:
    query, key, value = a.tensor("query"), a.tensor("key"), a.tensor("value")
    if a.number("dropout_p") > 0:
        raise Refused("drops elements at random, as in training", "call eval() before exporting")
    if a.flag("enable_gqa") and key.shape[-3] != query.shape[-3]:
        key, value = (_grouped(t, x, query.shape[-3] // x.shape[-3]) for x in (key, value))
    scale = None if a.get("scale") is None else a.number("scale")
    return attention(t, query, key, value, a.optional("attn_mask"), scale=scale, causal=a.flag("is_causal"))[0]


def _grouped(t: Translation, x: Tensor, times: int) -> Tensor:
    """Every head as often as there are queries for it."""
    *before, heads, length, width = x.shape
    wide = t.expand(t.reshape(x, [*before, heads, 1, length, width]), [*before, heads, times, length, width])
    return t.reshape(wide, [*before, heads * times, length, width])


def _heads(t: Translation, x: Tensor, heads: int) -> Tensor:
    batch, length, width = x.shape
    return t.transpose(t.reshape(x, (batch, length, heads, width // heads)), [0, 2, 1, 3])


def multi_head(
    t: Translation,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    weights: tuple[Tensor, Tensor | None, Tensor, Tensor | None],
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Attention of several heads, of tensors [batch, length, width]; `weights` are the joint projection's and the last
    one's, each with its bias. Returns the weights of attention too, by head."""
    joint, joint_bias, last, last_bias = weights
    width = query.shape[-1]
    pieces = []
    for index, x in enumerate((query, key, value)):
        rows = slice(index * width, (index + 1) * width)
        bias = None if joint_bias is None else t.constant(t.array(joint_bias)[rows])
        pieces.append(_heads(t, linear(t, x, t.constant(t.array(joint)[rows]), bias), heads))
    mixed, by_head = attention(t, pieces[0], pieces[1], pieces[2], mask)
    return linear(t, t.reshape(t.transpose(mixed, [0, 2, 1, 3]), query.shape), last, last_bias), by_head


def _mask(t: Translation, mask: Tensor | None, kind: int | None, heads: int) -> Tensor | None:
    """A mask as attention takes it. Kind 0 is [length, length], 1 is [batch, length] of keys; where it is true is left
    out."""
    if mask is None:
        return None
    if kind == 1 and mask.rank == 2:
        mask = t.reshape(mask, (mask.shape[0], 1, 1, mask.shape[1]))
    elif mask.rank == 3:
        mask = t.reshape(mask, (mask.shape[0] // heads, heads, *mask.shape[1:]))
    return mask if mask.is_float else t.emit("Not", mask)


_ATTENTION = "Add Gemm MatMul Mul Not ReduceMean Reshape Softmax Transpose Where"


@operator("_native_multi_head_attention", becomes=_ATTENTION)
def _native_multi_head(t: Translation, a: Arguments) -> tuple[Tensor, Tensor | None]:
    weights = (a.tensor("qkv_weight"), a.optional("qkv_bias"), a.tensor("proj_weight"), a.optional("proj_bias"))
    heads = a.integer("num_head", 1)
    mask = _mask(t, a.optional("mask"), a.get("mask_type"), heads)
    result, by_head = multi_head(t, a.tensor("query"), a.tensor("key"), a.tensor("value"), heads, weights, mask)
    if not a.flag("need_weights"):
        return result, None
    averaged = a.flag("average_attn_weights")
    return result, t.emit("ReduceMean", by_head, [1], keepdims=0) if averaged else by_head


@operator("_transformer_encoder_layer_fwd", becomes=f"{_ATTENTION} Div Erf LayerNormalization Relu")
def _encoder_layer(t: Translation, a: Arguments) -> Tensor:
    x, heads = a.tensor("src"), a.integer("num_heads", 1)
    weights = (a.tensor("qkv_weight"), a.optional("qkv_bias"), a.tensor("proj_weight"), a.optional("proj_bias"))
    mask = _mask(t, a.optional("mask"), a.get("mask_type"), heads)
    epsilon, first = a.number("eps", 1e-5), a.flag("norm_first")

    def norm(one: Tensor, which: int) -> Tensor:
        return layer_norm(t, one, 1, a.tensor(f"norm_weight_{which}"), a.optional(f"norm_bias_{which}"), epsilon)

    def attend(one: Tensor) -> Tensor:
        return multi_head(t, one, one, one, heads, weights, mask)[0]

    def feed_forward(one: Tensor) -> Tensor:
        inner = linear(t, one, a.tensor("ffn_weight_1"), a.optional("ffn_bias_1"))
        inner = gelu(t, inner) if a.flag("use_gelu") else t.emit("Relu", inner)
        return linear(t, inner, a.tensor("ffn_weight_2"), a.optional("ffn_bias_2"))

    if first:
        x = t.emit("Add", x, attend(norm(x, 1)))
        return t.emit("Add", x, feed_forward(norm(x, 2)))
    x = norm(t.emit("Add", x, attend(x)), 1)
    return norm(t.emit("Add", x, feed_forward(x)), 2)
