"""Reads the JSON at the end of a vendor's file, which names little more than inputs, outputs and target."""

from __future__ import annotations

from typing import Any

from engine.files.vendor.model import VendorPort

Outline = dict[str, Any]


def text_of(outline: Outline, key: str) -> str:
    """A text of the JSON; '' where there is none."""
    found = outline.get(key)
    return found if isinstance(found, str) else ""


def platforms(outline: Outline) -> str:
    """The targets that the file was built for; an old compiler wrote a wrong one."""
    found = outline.get("target_platform")
    return ", ".join(one for one in found if isinstance(one, str)) if isinstance(found, list) else ""


def ports(outline: Outline, role: str) -> tuple[VendorPort, ...]:
    """The model's inputs or outputs (`role` 'input' or 'output'), of which the JSON knows names and shapes."""
    tensors: dict[int, VendorPort] = {}
    for tensor in _dicts(outline.get("norm_tensor")):
        number, shape = tensor.get("tensor_id"), tensor.get("size")
        if isinstance(number, int) and isinstance(shape, list) and all(map(_whole, shape)) and len(shape) <= 16:
            tensors[number] = VendorPort(text_of(tensor, "url"), tuple(shape), "", "")
    found: dict[int, VendorPort] = {}
    for edge in _dicts(outline.get("graph")):
        place, number = edge.get("left_tensor_id"), edge.get("right_tensor_id")
        if edge.get("left") == role and isinstance(place, int) and isinstance(number, int) and number in tensors:
            found[place] = tensors[number]
    return tuple(found[place] for place in sorted(found))


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
