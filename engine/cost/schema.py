"""The JSON Schema of what the commands `perf` and `memory` print with --json."""

from __future__ import annotations

from typing import Any

# Several where a cfg parts a fused layer.
_PRECISIONS = "^((int8|int16|float16)([+](int8|int16|float16))*)?$"


def estimate_schema() -> dict[str, Any]:
    """A JSON Schema (draft 7) that says of each value what it is and in which unit."""
    one = {
        "kind": {"const": "estimate", "description": "computed, not measured on a chip"},
        "model": _text("the model's file"),
        "cfg": {"type": ["string", "null"], "description": "the cfg whose custom_quantize_layers were counted with"},
        "target": _text("the chip"),
        "built": _text("the model's precision: int8, int16 or float16; layers may differ"),
        "cores": _whole("NPU cores that work on one inference", least=1),
        "batch": _whole("samples in one inference", least=1),
        "clock_mhz": _number("the NPU's clock"),
        "layers": {"type": "array", "items": {"$ref": "#/definitions/layer"}, "description": "in execution order"},
        "totals": {"$ref": "#/definitions/totals"},
        "memory": {"$ref": "#/definitions/memory"},
        "notes": {"type": "array", "items": {"type": "string"}, "description": "what to know of the figures"},
    }
    several = {
        "estimates": {
            "type": "array",
            "items": {"$ref": "#/definitions/estimate"},
            "minItems": 2,
            "description": "of several targets or cfgs all, of which the document itself is the first",
        },
        "worst": {"type": "array", "items": {"type": "string"}, "description": "what --worst asked for, by name"},
        "measured": _measured(),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "What a model is estimated to take on a Rockchip NPU",
        **_object({**one, **several}, optional=tuple(several)),
        "definitions": {
            "estimate": _object(one),
            "layer": _object(_LAYER),
            "totals": _object(_TOTALS),
            "memory": _object(_MEMORY, optional=("blocks",)),
            "block": _object(_BLOCK),
        },
    }


def _measured() -> dict[str, Any]:
    """What `--device` adds: times of `perf`, or bytes of `memory`."""
    where = {
        "device": _text("the board's id"),
        "chip": _text("its chip; empty where it does not tell"),
        "place": _choice("what computed: the NPU, or the board's processor", "npu", "cpu"),
        "runtime": _text("the version of the runtime"),
        "driver": _text("the version of the NPU's driver"),
        "core_mask": _whole("NPU cores, one bit each; 0 is automatic"),
        "notes": {"type": "array", "items": {"type": "string"}, "description": "what to know of the run"},
    }
    number = ["number", "null"]
    whole = ["integer", "null"]
    layer = {
        "name": _text("the runtime's name of the layer"),
        "op": _text("its operator"),
        "target": _text("NPU or CPU"),
        "time_us": _number("microseconds"),
        "layer": _text("the layer of the model that it is; empty where that is not known"),
        "dtype": _text("its type"),
        **{f"cycles_{kind}": {"type": whole} for kind in ("ddr", "npu", "total")},
        "rw_kb": {"type": number, "description": "kilobytes read and written"},
    }
    values = {
        "kind": {"const": "measurement", "description": "measured on a board"},
        "where": _object(where),
        "runs": _whole("runs that were measured", least=1),
        "warmup": _whole("runs before, not counted"),
        **{
            f"{name}_us": _number(f"microseconds of an inference: {text}")
            for name, text in (
                ("median", "median"),
                ("p95", "95th percentile"),
                ("fastest", "least"),
                ("slowest", "most"),
            )
        },
        "layers": {"type": "array", "items": _object(layer), "description": "in the runtime's order, where asked for"},
        "layers_us": {"type": number, "description": "their sum"},
        "pinned_hz": {"type": whole, "description": "the NPU's clock, where it was held"},
        **{f"{name}_bytes": _whole(f"{name} memory") for name in ("weight", "internal", "total")},
        **{f"{name}_bytes": {"type": whole} for name in ("dma", "sram", "sram_free")},
    }
    found = _object(values, optional=tuple(name for name in values if name not in ("kind", "where")))
    return {**found, "description": "with --device: times of `perf`, bytes of `memory`, as a board had them"}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _whole(description: str, *, least: int = 0) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "description": description}


def _number(description: str, **limits: float) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, **limits, "description": description}


def _choice(description: str, *words: str) -> dict[str, Any]:
    return {"enum": list(words), "description": description}


def _shapes(description: str) -> dict[str, Any]:
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    return {"type": "array", "items": shape, "description": description}


_CYCLES = {
    "macs": _whole("multiply-accumulates, padding not counted"),
    "cycles_npu": _whole("cycles of the multipliers"),
    "cycles_ddr": _whole("cycles of memory, which works at the same time"),
    "cycles_total": _whole("cycles until the slower of the two is done"),
    "time_us": _number("microseconds of one inference"),
}
_TRAFFIC = {
    "bytes_read": _whole("bytes read from memory, weights included"),
    "bytes_written": _whole("bytes written to memory"),
}
_LAYER: dict[str, Any] = {
    "name": _text("the layer's output tensor, as in the cfg"),
    "op": _text("its operator, with those that are fused with it"),
    "precision": {
        **_text("what it computes in: int8, int16 or float16; int8+float16 where a cfg parts it; empty for integers"),
        "pattern": _PRECISIONS,
    },
    "in_shapes": _shapes("what it reads: activations, weights and biases, what it adds"),
    "out_shapes": _shapes("what it writes"),
    **_CYCLES,
    **_TRAFFIC,
    "bound": _choice("what it waits for; cpu: the processor computes it", "compute", "memory", "cpu", ""),
    "certainty": _choice(
        "high: the formula meets the toolkit's own tables; medium: bytes are counted from first principles; low: even "
        "the place is assumed",
        *("high", "medium", "low"),
    ),
    "utilisation": _number("share of the multipliers' work in cycles_total that is not padding", maximum=1),
    "weight_bytes": _whole("its constants as stored"),
    "memory_bytes": _whole("all tensors in use while it runs"),
}
_TOTALS: dict[str, Any] = {
    **_CYCLES,
    "overhead_us": _number("beside the layers' cycles: to start the inference, and each layer; less certain than they"),
    "latency_us": _number("time_us and overhead_us together"),
    "fps": _number("samples a second at that latency, one inference after the other"),
    **_TRAFFIC,
    "weight_bytes": _whole("all constants as stored"),
    "internal_bytes": _whole("memory of the tensors between layers, as planned"),
}
_MEMORY: dict[str, Any] = {
    "weight_bytes": _whole("all constants as stored"),
    "internal_bytes": _whole("memory of the tensors between layers, as planned"),
    "total_bytes": _whole("both"),
    "lower_bound": _whole("the most that is in use at once: no plan needs less internal memory"),
    "blocks": {"type": "array", "items": {"$ref": "#/definitions/block"}, "description": "the plan; of `memory` only"},
}
_BLOCK: dict[str, Any] = {
    "tensor": _text("the tensor"),
    "offset": _whole("its first byte in the internal memory"),
    "bytes": _whole("how many it takes"),
    "first": _whole("the layer, counted from 0 in execution order, from which on it is in use"),
    "last": _whole("the layer up to which it is in use, included"),
}
