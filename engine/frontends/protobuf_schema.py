"""Makes protobuf message classes from compact lists of fields, for file formats whose own packages are heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "fixed64": 6,
    "fixed32": 7,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_MESSAGE, _ENUM = 11, 14
_LABELS = {"optional": 1, "repeated": 3}
_FIELD = re.compile(r"(optional|repeated|map<string>) ([\w.]+) (\w+) = (\d+)( packed)?(?: default (\S+))?$")


def message_classes(
    package: str,
    messages: Mapping[str, str],
    enums: Mapping[str, Mapping[str, int]] | None = None,
    *,
    syntax: str = "proto2",
) -> dict[str, Any]:
    """Classes by name, in a pool of their own, so that they never meet those of an installed package.

    `messages`: for each message its fields, one a line: `optional int32 axis = 2`, `repeated float data = 5 packed`,
    `optional PoolMethod pool = 1 default MAX`, `map<string> AttrValue attr = 5`; types are protobuf's scalars, messages
    and enums of these lists. `enums`: for each enum its values' numbers; values are named within their enum's own
    scope, so two enums may share names.
    """
    enums = enums or {}
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax=syntax)
    for name, values in enums.items():
        # Values live in the scope around their enum; a message around each keeps them apart.
        scope = file.message_type.add(name=f"{name}Scope")
        added = scope.enum_type.add(name=name)
        if len(set(values.values())) < len(values):
            added.options.allow_alias = True
        for value, number in values.items():
            added.value.add(name=value, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for line in filter(None, map(str.strip, fields.splitlines())):
            _add_field(message, line, package, messages, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    line: str,
    package: str,
    messages: Mapping[str, str],
    enums: Mapping[str, Mapping[str, int]],
) -> None:
    match = _FIELD.match(line)
    assert match, f"{message.name}: {line}"
    kind, type_name, name, number, packed, default = match.groups()
    field = message.field.add(name=name, number=int(number), label=_LABELS.get(kind, 3))
    if kind not in _LABELS:
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=9)
        _set_type(entry.field.add(name="value", number=2, label=1), type_name, package, messages, enums)
        field.type, field.type_name = _MESSAGE, f".{package}.{message.name}.{entry.name}"  # type: ignore[assignment]
        return
    _set_type(field, type_name, package, messages, enums)
    if packed:
        field.options.packed = True
    if default is not None:
        field.default_value = default


def _set_type(
    field: descriptor_pb2.FieldDescriptorProto,
    type_name: str,
    package: str,
    messages: Mapping[str, str],
    enums: Mapping[str, Mapping[str, int]],
) -> None:
    if type_name in _SCALARS:
        field.type = _SCALARS[type_name]  # type: ignore[assignment]
    elif type_name in enums:
        field.type = _ENUM  # type: ignore[assignment]
        field.type_name = f".{package}.{type_name}Scope.{type_name}"
    else:
        assert type_name in messages, type_name
        field.type = _MESSAGE  # type: ignore[assignment]
        field.type_name = f".{package}.{type_name}"
