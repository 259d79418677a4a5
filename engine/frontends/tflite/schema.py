"""The tables of TFLite files of version 3, and the numbers of their operators and types."""

from __future__ import annotations

from engine.flatbuffers import fields

IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of every file."""

_POOL = "padding byte, stride_w int, stride_h int, filter_width int, filter_height int, activation byte"
_ACTIVATION = "activation byte"

TABLES = {
    name: fields(text)
    for name, text in {
        "Model": "version uint, operator_codes [OperatorCode], subgraphs [SubGraph], description string,"
        "buffers [Buffer], metadata_buffer [int], -, signature_defs [SignatureDef]",
        "OperatorCode": "deprecated_builtin_code byte, custom_code string, version int 1, builtin_code int",
        "SubGraph": "tensors [Tensor], inputs [int], outputs [int], operators [Operator], name string",
        "Tensor": "shape [int], type byte, buffer uint, name string, quantization QuantizationParameters,"
        "is_variable bool, sparsity SparsityParameters, shape_signature [int], has_rank bool",
        "SparsityParameters": "traversal_order [int], block_map [int], dim_metadata [DimensionMetadata]",
        "DimensionMetadata": "format byte, dense_size int, array_segments_type ubyte, array_segments table,"
        "array_indices_type ubyte, array_indices table",
        "Int32Vector": "values [int]",
        "Uint16Vector": "values [ushort]",
        "Uint8Vector": "values [ubytes]",
        "QuantizationParameters": "min [float], max [float], scale [float], zero_point [long], details_type ubyte, -,"
        "quantized_dimension int",
        "Operator": "opcode_index uint, inputs [int], outputs [int], options_type ubyte, union table,"
        "custom_options [ubyte], custom_options_format byte, -, intermediates [int], -, -, options_2_type ubyte,"
        "union_2 table",
        "Buffer": "data [ubyte], offset ulong, size ulong",
        "SignatureDef": "inputs [TensorMap], outputs [TensorMap], signature_key string, -, subgraph_index uint",
        "TensorMap": "name string, tensor_index uint",
        "Conv2DOptions": "padding byte, stride_w int, stride_h int, activation byte, dilation_w int 1,dilation_h int 1",
        "Conv3DOptions": "padding byte, stride_d int, stride_w int, stride_h int, activation byte, dilation_d int 1,"
        "dilation_w int 1, dilation_h int 1",
        "DepthwiseConv2DOptions": "padding byte, stride_w int, stride_h int, depth_multiplier int, activation byte,"
        "dilation_w int 1, dilation_h int 1",
        "Pool2DOptions": _POOL,
        "FullyConnectedOptions": "activation byte, weights_format byte, keep_num_dims bool",
        "SoftmaxOptions": "beta float",
        "ConcatenationOptions": "axis int, activation byte",
        "AddOptions": _ACTIVATION,
        "SubOptions": _ACTIVATION,
        "MulOptions": _ACTIVATION,
        "DivOptions": _ACTIVATION,
        "L2NormOptions": _ACTIVATION,
        "LocalResponseNormalizationOptions": "radius int, bias float, alpha float, beta float",
        "LSTMOptions": "activation byte, cell_clip float, proj_clip float, kernel_type byte",
        "UnidirectionalSequenceLSTMOptions": "activation byte, cell_clip float, proj_clip float, time_major bool",
        "BidirectionalSequenceLSTMOptions": "activation byte, cell_clip float, proj_clip float, merge_outputs bool,"
        "time_major bool true",
        "SequenceRNNOptions": "time_major bool, activation byte",
        "RNNOptions": _ACTIVATION,
        "SVDFOptions": "rank int, activation byte",
        "ResizeBilinearOptions": "-, -, align_corners bool, half_pixel_centers bool",
        "ResizeNearestNeighborOptions": "align_corners bool, half_pixel_centers bool",
        "ReshapeOptions": "new_shape [int]",
        "SpaceToDepthOptions": "block_size int",
        "DepthToSpaceOptions": "block_size int",
        "ReducerOptions": "keep_dims bool",
        "SqueezeOptions": "squeeze_dims [int]",
        "SplitOptions": "num_splits int",
        "StridedSliceOptions": "begin_mask int, end_mask int, ellipsis_mask int, new_axis_mask int,"
        "shrink_axis_mask int, offset bool",
        "TransposeConvOptions": "padding byte, stride_w int, stride_h int, activation byte",
        "PackOptions": "values_count int, axis int",
        "UnpackOptions": "num int, axis int",
        "GatherOptions": "axis int, batch_dims int",
        "LeakyReluOptions": "alpha float",
        "MirrorPadOptions": "mode byte",
        "OneHotOptions": "axis int",
        "BatchMatMulOptions": "adj_x bool, adj_y bool",
        "CumsumOptions": "exclusive bool, reverse bool",
        "GeluOptions": "approximate bool",
        "ReverseSequenceOptions": "seq_dim int, batch_dim int",
        "FakeQuantOptions": "min float, max float, num_bits int, narrow_range bool",
        "IfOptions": "then_subgraph int, else_subgraph int",
        "WhileOptions": "cond_subgraph int, body_subgraph int",
        "CallOptions": "subgraph uint",
        "CallOnceOptions": "init_subgraph int",
        "VarHandleOptions": "container string, shared_name string",
        "CompositeOptions": "name string, decomposition int",
        "NoOptions": "-",
    }.items()
}
"""The fields of every table that is read."""

TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}
"""Numpy's names of the types of tensors."""

OTHER_TYPES = {5: "string", 8: "complex64", 11: "complex128", 13: "resource", 14: "variant", 17: "int4", 18: "bfloat16"}
"""Types that nothing here computes with; constants of int4 are read."""

ACTIVATIONS = {1: "Relu", 2: "Relu1", 3: "Relu6", 4: "Tanh"}
"""Fused activations by number, in the words of `nhwc.ACTIVATIONS`; 0 is none."""

CUSTOM = 32
"""The operator that stands for all that the format does not know."""

_NAMES = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE
EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR
ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND
COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE
BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT
"""

OPERATORS = {**dict(enumerate(_NAMES.split())), 203: "DILATE", 205: "REDUCE_WINDOW", 206: "STABLEHLO_COMPOSITE"}
"""The names of the built-in operators by number."""
