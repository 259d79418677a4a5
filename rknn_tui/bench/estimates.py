"""What a change of precisions will do to the outputs, told at once from the traced error sources."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence

from engine.summaries import LayerSummary, SourceMap

_FINE = ("int16", "float16")


class NoiseEstimate:
    """Predicts the outputs' noise by adding up the sources that are left.

    A layer's weights make noise while it computes in int8, a tensor's rounding while its maker or one of its readers
    does (Pandey et al. 2023, arXiv 2302.05397: errors of single places add up well). Sources were traced while the
    layers were in the precisions `traced`; a layer that was finer then has none in the list.
    """

    def __init__(self, sources: SourceMap, layers: Sequence[LayerSummary], traced: Mapping[str, str]) -> None:
        self._traced = dict(traced)
        self._readers: dict[str, list[str]] = collections.defaultdict(list)
        # Where the outputs are judged by what a layer reads, that layer's own rounding comes after.
        judged = {part.tensor for part in sources.total.parts}
        for layer in layers:
            for tensor in layer.reads:
                if tensor not in judged:
                    self._readers[tensor].append(layer.name)
        self._weights: dict[str, float] = {}
        self._tensors: dict[str, tuple[str, float]] = {}
        self._made: dict[str, list[str]] = collections.defaultdict(list)
        self._of_layer: dict[str, list[str]] = collections.defaultdict(list)
        for source in sources.sources:
            if source.kind == "weights":
                self._weights[source.name] = source.share
            else:
                maker = source.layer or source.name
                self._tensors[source.name] = (maker, source.share)
                self._made[maker].append(source.name)
                for name in (maker, *self._readers[source.name]):
                    self._of_layer[name].append(source.name)

    def left(self, precisions: Mapping[str, str], among: Iterable[str] | None = None) -> float | None:
        """The share (0..1 and more) of the traced noise that is left under `precisions`, which hold every layer's.

        `among`: layers outside of these are known to be as they were traced. None where a layer is coarser than when
        the sources were traced, since nothing is known of its noise.
        """
        traced = self._traced
        names = traced if among is None else [name for name in among if name in traced]
        changed = [name for name in names if precisions.get(name, traced[name]) != traced[name]]
        gone = 0.0
        tensors: set[str] = set()
        for name in changed:
            if _fine(self._traced[name]) and not _fine(precisions[name]):
                return None
            if self._refined(name, precisions):
                gone += self._weights.get(name, 0.0)
                tensors.update(self._of_layer[name])
        gone += sum(self._tensors[tensor][1] for tensor in tensors if self._stored_fine(tensor, precisions))
        return max(1.0 - gone, 0.0)

    def left_of(self, layer: str, precisions: Mapping[str, str]) -> float:
        """The share (0..1) of the traced noise that a layer's weights and the rounding of its outputs still cause."""
        weights = 0.0 if self._refined(layer, precisions) else self._weights.get(layer, 0.0)
        rounded = (tensor for tensor in self._made.get(layer, ()) if not self._stored_fine(tensor, precisions))
        return weights + sum(self._tensors[tensor][1] for tensor in rounded)

    def sharing(self, layers: Iterable[str]) -> set[str]:
        """The layers whose share depends on the precisions of these: they, and those that make what these read."""
        names = set(layers)
        return names | {self._tensors[tensor][0] for name in names for tensor in self._of_layer.get(name, ())}

    def _refined(self, layer: str, precisions: Mapping[str, str]) -> bool:
        """Whether a layer is finer than it was traced."""
        traced = self._traced.get(layer, "")
        return not _fine(traced) and _fine(precisions.get(layer, traced))

    def _stored_fine(self, tensor: str, precisions: Mapping[str, str]) -> bool:
        maker, _ = self._tensors[tensor]
        return all(_fine(precisions.get(name, "")) for name in (maker, *self._readers.get(tensor, ())))


def estimated_cosine(cosine: float, left_before: float, left_after: float) -> float | None:
    """The cosine that follows from a measured one when the noise goes from one share of the traced noise to another.

    For small errors 1 - cosine is half the noise-to-signal ratio, so both shrink together. None where next to nothing
    was left before.
    """
    if left_before <= 1e-9:
        return None
    return max(-1.0, 1.0 - (1.0 - cosine) * left_after / left_before)


def _fine(precision: str) -> bool:
    # A layer that is parted still has a coarse half.
    return bool(precision) and all(part in _FINE for part in precision.split("+"))
