"""Cycles read from schedules: hand-made ones whose counts can be added up, and one of the real compiler's."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fooddit.aot.schedule import ScheduleError, compiler_environment, find_kernels, read_schedule, read_schedules

HEAD = "= control target key start\nLB: loop body\nPF: predicated region fallthrough\n= control target key end\n\n"
SLOTS = ["MATMUL", "MATPUSH", "XLU", "VALU", "VPOP", "EUP", "VLOAD", "VLOAD:FILL", "VSTORE", "VSTORE:SPILL", "SALU"]
CAPACITIES = [2, 2, 2, 4, 2, 1, 3, 3, 2, 2, 2]

# One bundle before, ten in the loop (the four after the branch belong to it), one after; four trips.
STRAIGHT = """
{ %s1_s0 = smov.u32 0 } /* Start region 1 */
LB: > { %v1_v0 = vmatmul.bf16 %v0 ;; %s2_s0 = sphi %s1_s0, %s3_s0 } /* Start region 9 */
> { %v1_v1 = vadd.f32 %v0, %v1 }
> { %v1_v2 = vmatmul.bf16 %v1 }
> { %s3_s0 = sadd.s32 1, %s2_s0 /* iteration index, stage = 0 */ }
> { %p4_p0 = scmp.ge.s32.totalorder %s3_s0, 4 /* loop exit test */ }
> { %8 = sbr.rel (!%p4_p0) target = $region9 }
> {}
> {}
> {}
> {}
{ %9 = vsyncpa [#allocation4], 1 }
"""

# An outer loop of 3 trips around an inner one of 2 in its first trip, 3 and 4 in the next: 2 + 3 + 4 inner trips.
NESTED = """
{ %s1_s0 = smov.u32 0 }
LB: > { %s2_s0 = sphi %s1_s0, %s3_s0 } /* Start region 9 */
> { %s20_s2 = sadd.s32 2, %s2_s0 }
> { %s10_s1 = smov.u32 0 }
LB: >> { %s11_s1 = sphi %s10_s1, %s12_s1 } /* Start region 19 */
>> { %s12_s1 = sadd.s32 1, %s11_s1 }
>> { %p13_p1 = scmp.ge.s32.totalorder %s12_s1, %s20_s2 }
>> { %8 = sbr.rel (!%p13_p1) target = $region19 }
>> {}
>> {}
>> {}
>> {}
> { %s3_s0 = sadd.s32 1, %s2_s0 }
> { %p4_p0 = scmp.ge.s32.totalorder %s3_s0, 3 /* loop exit test */ }
> { %9 = sbr.rel (!%p4_p0) target = $region9 }
> {}
> {}
> {}
> {}
"""

# A block of three bundles that the branch jumps over unless PREDICATE is false.
PREDICATED = """
{ %s1_s0 = smov.u32 0 }
LB: > { %s2_s0 = sphi %s1_s0, %s3_s0 } /* Start region 9 */
> { PREDICATE }
> { %7 = sbr.rel (%p5_p1) target = $region8 }
> {}
> {}
> {}
> {}
> { %v1_v0 = vmatmul.bf16 %v0 }
> { %v1_v1 = vmatmul.bf16 %v0 }
> { %v1_v2 = vadd.f32 %v0, %v1 }
PF: > { %s3_s0 = sadd.s32 1, %s2_s0 } /* Start/End empty region 8 */
> { %p4_p0 = scmp.ge.s32.totalorder %s3_s0, 4 /* loop exit test */ }
> { %8 = sbr.rel (!%p4_p0) target = $region9 }
> {}
> {}
> {}
> {}
"""

# The counter spends the time between its uses in scalar memory, and wraps by a select.
SPILLED = """
{ %s1_s0 = smov.u32 0 }
LB: > { %9 = sst [smem:[#allocation7_spill]] %s2_s0 ;; %s2_s0 = sphi %s1_s0, %s5_s0 } /* Start region 9 */
> { %10 = vst [vmem:[#allocation8_spill]] %v1 }
> { %v2 = vld [vmem:[#allocation8_spill]] ;; %s3_s1 = sld [smem:[#allocation7_spill]] }
> { %s4_s1 = sadd.s32 1, %s3_s1 }
> { %p6_p1 = scmp.lt.s32.totalorder %s4_s1, 100 }
> { %s5_s0 = smov.u32 (%p6_p1, %s1_s0), %s4_s1 }
> { %p4_p0 = scmp.lt.s32.totalorder %s5_s0, 5 }
> { %8 = sbr.rel (%p4_p0) target = $region9 }
> {}
> {}
> {}
> {}
"""


def write_dump(folder: Path, text: str, name: str = "attend.1", number: int = 17) -> Path:
    """A dump of one kernel, its slots as its instructions say; returns the file of its schedule."""
    lines, body, rows = text.strip().splitlines(), "", []
    targets = {n: at for at, line in enumerate(lines) for n in re.findall(r"Start(?:/End empty)? region (\d+)", line)}
    for address, line in enumerate(lines):
        mark, rest = line.split("{", 1)
        loop, label = ">" * mark.count(">"), re.sub("[^A-Z]", "", mark)
        rest = re.sub(r"\$region(\d+)", lambda m: f"bundleno = {targets[m[1]]}, region = {m[1]}", rest)
        body += f"{address:#6x} {label:2}: {loop} {{{rest.replace('target =', 'target')}\n"
        spill, fill = rest.count("vst [vmem:[#allocation8_spill"), rest.count("vld [vmem:[#allocation8_spill")
        used = {"MATMUL": rest.count("vmatmul"), "VALU": rest.count("vadd"), "VLOAD:FILL": fill, "VSTORE:SPILL": spill}
        rows.append([used.get(slot, 0) for slot in SLOTS])
    path = folder / f"{number}-{name}-65-packed-bundles-post-ra.txt"
    path.write_text(HEAD + body)
    table = [", ".join(SLOTS), *(" ".join(map(str, row)) for row in (CAPACITIES, *rows))]
    slots = folder / f"{number}-{name}-68-pre-delay_hlo-static-per-bundle-utilization.txt"
    slots.write_text("\n".join(["== CAPACTIY:", *table[:2], "", "== UTILIZATION:", *table[2:]]) + "\n")
    (folder / f"{number}-{name}-64-schedule-analysis_packed-bundles-post-ra.txt").write_text("Schedule analysis:\n")
    (folder / f"{number}-{name}-72-final_bundles.txt").write_text("folded\n")
    return path


def test_loop(tmp_path):
    schedule = read_schedule(write_dump(tmp_path, STRAIGHT))
    assert (schedule.name, schedule.bundles, schedule.trips) == ("attend.1", 12, 4)
    assert schedule.cycles == schedule.cycles_lower == schedule.cycles_upper == 1 + 4 * 10 + 1
    assert schedule.exact
    assert (schedule.slots["MATMUL"].used, schedule.slots["MATMUL"].capacity) == (8, 2)
    assert schedule.slots["VALU"].used == 4
    assert schedule.share("MATMUL") == 8 / (2 * 42)


def test_six_bundles_after_a_branch(tmp_path):
    """tpu7x's: an end of a region six bundles after each branch tells."""
    text = STRAIGHT.replace("> {}\n{ %9", "> {}\n> {}\n> {} /* End region 4 */\n{ %9")
    schedule = read_schedule(write_dump(tmp_path, text))
    assert schedule.cycles == schedule.cycles_upper == 1 + 4 * 12 + 1


def test_nested_loops_multiply(tmp_path):
    schedule = read_schedule(write_dump(tmp_path, NESTED))
    assert schedule.trips == 3
    assert schedule.cycles == schedule.cycles_lower == 1 + 3 * 10 + (2 + 3 + 4) * 8
    # At most: the inner loop's most trips, four, in each of the outer's.
    assert schedule.cycles_upper == 1 + 3 * 10 + 3 * 4 * 8


def test_block_that_runs_in_some_trips(tmp_path):
    # The branch jumps in trips 1, 2 and 3: the block runs in the first.
    text = PREDICATED.replace("PREDICATE", "%p5_p1 = scmp.ne.s32.totalorder %s2_s0, 0")
    schedule = read_schedule(write_dump(tmp_path, text))
    assert schedule.exact
    assert schedule.cycles == schedule.cycles_lower == 1 + 4 * 14 + 3
    assert schedule.cycles_upper == 1 + 4 * 17
    assert schedule.slots["MATMUL"].used == 2


def test_block_that_depends_on_data(tmp_path):
    text = PREDICATED.replace("PREDICATE", "%s6_s3 = sld [smem:[#allocation4 + %s2_s0]]").replace(
        "> { %7 = ", "> { %p5_p1 = scmp.ne.s32.totalorder %s6_s3, 0 }\n> { %7 = "
    )
    schedule = read_schedule(write_dump(tmp_path, text))
    assert not schedule.exact
    assert schedule.cycles_lower == 1 + 4 * 15
    assert schedule.cycles == schedule.cycles_upper == 1 + 4 * 18


def test_unknown_trip_count_is_refused(tmp_path):
    text = STRAIGHT.replace("%s3_s0, 4 /*", "%s3_s0, %s7_s1 /*").replace(
        "smov.u32 0 }", "smov.u32 0 ;; %s7_s1 = sld [smem:[#allocation4]] }"
    )
    path = write_dump(tmp_path, text)
    with pytest.raises(ScheduleError, match=r"kernel attend\.1: unknown trip count: .* 0x6 .* 0x1 .*%p4_p0") as error:
        read_schedule(path)
    assert str(path) in str(error.value)


def test_spills_are_followed_and_counted(tmp_path):
    schedule = read_schedule(write_dump(tmp_path, SPILLED))
    assert schedule.cycles == 1 + 5 * 12
    assert (schedule.spills, schedule.fills) == (1, 1)
    assert (schedule.slots["SPILL"].used, schedule.slots["FILL"].used) == (5, 5)


def test_bytes_of_arrays(tmp_path):
    operand = "%s8_s9 = inlined_call_operand.{} [shape: {}, index: {}, kind: {}, shape index: {{}}] ;;"
    operands = operand.format("hbm", "bf16[4,8]", 0, "input") + operand.format("vmem", "f32[3]", 1, "output")
    schedule = read_schedule(write_dump(tmp_path, STRAIGHT.replace("{ %s1", "{ " + operands + " %s1")))
    assert schedule.array_bytes == 4 * 8 * 2 + 3 * 4


def test_stale_and_incomplete_dumps_are_refused(tmp_path):
    path = write_dump(tmp_path, STRAIGHT)
    assert find_kernels(tmp_path) == {"attend.1": path}
    assert list(read_schedules(tmp_path, "attend")) == ["attend.1"]
    assert read_schedules(tmp_path, "other") == {}
    write_dump(tmp_path, STRAIGHT, number=18)
    with pytest.raises(ScheduleError, match=r"kernel attend\.1: two schedules"):
        find_kernels(tmp_path)
    next(tmp_path.glob("17-*utilization.txt")).unlink()
    with pytest.raises(ScheduleError, match=r"attend\.1: 0 files"):
        read_schedule(path)
    path.write_text("no schedule")
    with pytest.raises(ScheduleError, match="0 lines of bundles"):
        read_schedule(path)


# A grid of six steps; fori_loop, not unrolled, of seven.
PROGRAM = """
import jax, jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental import topologies

def kernel(x, out):
    def step(i, total):
        return jnp.dot(total, x[0], preferred_element_type=jnp.float32).astype(total.dtype)
    out[0] = jax.lax.fori_loop(0, 7, step, x[0])

block = pl.BlockSpec((1, 128, 128), lambda i: (i, 0, 0))
shape = jax.ShapeDtypeStruct((6, 128, 128), jnp.bfloat16)
call = pl.pallas_call(kernel, grid=(6,), in_specs=[block], out_specs=block, out_shape=shape, name="powers")
device = topologies.get_topology_desc(platform="tpu", topology_name="v6e:2x2").devices[0]
sharding = jax.sharding.SingleDeviceSharding(device)
jax.jit(call).lower(jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)).compile()
"""


def test_real_compiler(tmp_path):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, the TPU compiler, is not installed: pip install libtpu==0.0.52")
    environment = os.environ | compiler_environment(tmp_path)
    environment.pop("XLA_FLAGS", None)  # The tests' are for CPUs; libtpu stops at a flag it does not know.
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [schedule] = read_schedules(tmp_path, "powers").values()
    text = schedule.file.read_text()
    products = len(re.findall(r"vmatmul", text))
    assert schedule.exact
    # The pipeline that fetches blocks adds two trips to the grid's six, in which the body is skipped.
    assert schedule.trips == 6 + 2
    # A product of 128 x 128 x 128 is four instructions, which hold a matrix unit for at least 4 cycles each.
    assert products >= 4
    assert 6 * 7 * products * 4 <= schedule.slots["MATMUL"].used <= 2 * schedule.cycles
    assert schedule.cycles_lower == schedule.cycles < schedule.cycles_upper
    assert schedule.array_bytes == 2 * 6 * 128 * 128 * 2
