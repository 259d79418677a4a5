"""The messages of a TensorFlow GraphDef, with the field numbers of its public .proto files."""

from __future__ import annotations

from engine.frontends.protobuf_schema import message_classes

_ATTR_LIST = """
    repeated bytes s = 2
    repeated int64 i = 3 packed
    repeated float f = 4 packed
    repeated bool b = 5 packed
    repeated int32 type = 6 packed
    repeated TensorShapeProto shape = 7
    repeated TensorProto tensor = 8
    repeated NameAttrList func = 9
"""

CLASSES = message_classes(
    "tensorflow",
    {
        "GraphDef": """
            repeated NodeDef node = 1
            optional FunctionDefLibrary library = 2
            optional int32 version = 3
            optional VersionDef versions = 4
        """,
        "VersionDef": "optional int32 producer = 1\noptional int32 min_consumer = 2",
        "NodeDef": """
            optional string name = 1
            optional string op = 2
            repeated string input = 3
            optional string device = 4
            map<string> AttrValue attr = 5
        """,
        "AttrValue": """
            optional AttrList list = 1
            optional bytes s = 2
            optional int64 i = 3
            optional float f = 4
            optional bool b = 5
            optional int32 type = 6
            optional TensorShapeProto shape = 7
            optional TensorProto tensor = 8
            optional string placeholder = 9
            optional NameAttrList func = 10
        """,
        "AttrList": _ATTR_LIST,
        "NameAttrList": "optional string name = 1\nmap<string> AttrValue attr = 2",
        "TensorShapeProto": "repeated Dim dim = 2\noptional bool unknown_rank = 3",
        "Dim": "optional int64 size = 1\noptional string name = 2",
        "TensorProto": """
            optional int32 dtype = 1
            optional TensorShapeProto tensor_shape = 2
            optional int32 version_number = 3
            optional bytes tensor_content = 4
            repeated float float_val = 5 packed
            repeated double double_val = 6 packed
            repeated int32 int_val = 7 packed
            repeated bytes string_val = 8
            repeated float scomplex_val = 9 packed
            repeated int64 int64_val = 10 packed
            repeated bool bool_val = 11 packed
            repeated int32 half_val = 13 packed
            repeated uint32 uint32_val = 16 packed
            repeated uint64 uint64_val = 17 packed
        """,
        "FunctionDefLibrary": "repeated FunctionDef function = 1",
        "FunctionDef": """
            optional OpDef signature = 1
            repeated NodeDef node_def = 3
            map<string> string ret = 4
            map<string> AttrValue attr = 5
        """,
        "OpDef": "optional string name = 1\nrepeated ArgDef input_arg = 2\nrepeated ArgDef output_arg = 3",
        "ArgDef": "optional string name = 1\noptional int32 type = 3",
    },
)
"""The message classes by name."""
