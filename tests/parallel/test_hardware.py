"""The table of accelerators agrees with the one that JAX has of TPUs."""

import pytest
from jax.experimental.pallas import tpu as pltpu

from fooddit.parallel.hardware import accelerator


@pytest.mark.parametrize(
    "kind, chip, cores",
    [("TPU v5 lite", "v5e", 1), ("TPU v5", "v5p", 2), ("TPU v6 lite", "v6e", 1), ("TPU7x", "7x", 1)],
)
def test_agrees_with_jax(kind, chip, cores):
    # Its figures are rounded, and its gigabytes of HBM differ by up to 8 % from the documentation's GiB.
    found, theirs = accelerator(kind), pltpu.get_tpu_info_for_chip(pltpu.ChipVersion(chip), cores)
    assert found.name == (f"tpu{chip}" if chip == "7x" else chip)
    assert found.flops == pytest.approx(cores * theirs.bf16_ops_per_second, rel=0.01)
    assert found.hbm_bandwidth == pytest.approx(cores * theirs.mem_bw_bytes_per_second, rel=0.13)
    assert found.hbm_bytes == pytest.approx(cores * theirs.hbm_capacity_bytes, rel=0.08)


def test_an_unknown_device_has_no_entry():
    assert accelerator("cpu") is None
