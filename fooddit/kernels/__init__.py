"""Fused attention: one public function each, beside a plain reference."""

from fooddit.kernels.reference import cross_attention, decoupled_cross_attention, self_attention
from fooddit.kernels.rope import axial_angles, rotate

__all__ = ["axial_angles", "cross_attention", "decoupled_cross_attention", "rotate", "self_attention"]
