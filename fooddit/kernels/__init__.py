"""Fused attention: one public function each, beside a plain reference."""

from fooddit.kernels.attention import cross_attention, self_attention
from fooddit.kernels.rope import axial_angles, rotate

__all__ = ["axial_angles", "cross_attention", "rotate", "self_attention"]
