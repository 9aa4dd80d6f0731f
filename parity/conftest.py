"""Parity: our formulas against the published implementations, on the same random weights, on one CPU."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Both libraries would otherwise ask a model hub for updates.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_report_header():
    import diffusers
    import jax
    import torch
    import transformers

    versions = {module.__name__: module.__version__ for module in (jax, torch, diffusers, transformers)}
    return "references: " + ", ".join(f"{name} {version}" for name, version in versions.items())
