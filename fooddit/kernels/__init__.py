"""Fused attention: one public function each, an implementation per backend, one plain reference."""

from fooddit.kernels.attention import cross_attention, decoupled_cross_attention, self_attention
from fooddit.kernels.dispatch import KERNEL_RESULT, Unsupported
from fooddit.kernels.rope import axial_angles, rotate

__all__ = [
    "KERNEL_RESULT",
    "Unsupported",
    "axial_angles",
    "cross_attention",
    "decoupled_cross_attention",
    "rotate",
    "self_attention",
]
