"""A graph of any size with what makes real ones busy: splits, joins, residual and long skips, blocks in its names."""

from __future__ import annotations

from engine.summaries import LayerSummary

STAGE = 8
"""Blocks between the two ends of a long skip; the longest go over four stages."""


def graph(count: int) -> tuple[LayerSummary, ...]:
    """`count` layers, the first one the model's input.

    A block has eleven: a convolution, a split, two residual units, the join, a convolution, and the sum with a skip.
    """
    made: list[LayerSummary] = []
    makers: dict[str, str] = {}

    def add(path: str, op: str, *reads: str, parts: int = 1) -> str:
        outputs = tuple(f"{path}/{op}_output_{part}" for part in range(parts))
        name, shape, source = outputs[0], (1, 64 // parts, 40, 40), f"{path}/{op}"
        inputs = tuple(dict.fromkeys(makers[tensor] for tensor in reads))
        makers.update(dict.fromkeys(outputs, name))
        made.append(
            LayerSummary(len(made), name, op, inputs, shape, "float32", sources=(source,), outputs=outputs, reads=reads)
        )
        return name

    last = far = farthest = add("images", "Input")
    block = 0
    while len(made) < count:
        path = f"/stages.{block // STAGE}/blocks.{block % STAGE}"
        before = last
        last = add(f"{path}/cv1", "Conv", last)
        half = add(path, "Split", last, parts=2)
        joined = [half, half.replace("_output_0", "_output_1")]
        for unit in range(2):
            inner = add(f"{path}/m.{unit}/cv1", "Conv", joined[-1])
            inner = add(f"{path}/m.{unit}/cv2", "Conv", inner)
            joined.append(add(f"{path}/m.{unit}", "Add", inner, joined[-1]))
        block += 1
        if block % (4 * STAGE) == 0:
            joined.append(farthest)
            farthest = before
        last = add(path, "Concat", *joined)
        last = add(f"{path}/cv2", "Conv", last)
        if block % STAGE == 0:
            before = far
        last = add(path, "Add", last, before)
        far = last if block % STAGE == 0 else far
    return tuple(made[:count])
