"""Every module of operators, so that importing this one fills the table."""

from engine.frontends.pytorch import (
    operators_activation,
    operators_arithmetic,
    operators_convolution,
    operators_fake_quantization,
    operators_indexing,
    operators_matrix,
    operators_normalization,
    operators_pooling,
    operators_quantized,
    operators_recurrent,
    operators_reduction,
    operators_resizing,
    operators_shaping,
)

__all__ = [
    "operators_activation",
    "operators_arithmetic",
    "operators_convolution",
    "operators_fake_quantization",
    "operators_indexing",
    "operators_matrix",
    "operators_normalization",
    "operators_pooling",
    "operators_quantized",
    "operators_recurrent",
    "operators_reduction",
    "operators_resizing",
    "operators_shaping",
]
