"""Eight CPU devices for every test, and programs that compile fast: set before anything imports jax."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The suite's time is XLA's compile time. Without LLVM's optimisations and MLIR's fusions a step compiles six times
# faster and computes the same; tests/invariants/test_resume.py runs the programs that users get.
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([*given.split(), *(flag for flag in FLAGS if flag.split("=")[0] not in given)])
