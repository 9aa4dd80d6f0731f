"""Ahead of time: what the TPU compiler makes of a program, on a machine that has no TPU."""
