"""fooddit compile, as a user calls it. What needs the TPU compiler is skipped where libtpu is not installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fooddit.aot.executable import load_executable, read_fingerprint
from fooddit.aot.figures import out_of_memory
from fooddit.aot.topology import TopologyError, absent

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed: pip install 'fooddit[aot]'"
)


def fooddit(*arguments):
    """(exit code, stdout, stderr) of `fooddit compile`; in a process of its own, as a compiler is loaded once."""
    command = [sys.executable, "-m", "fooddit", "compile", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def figures(*arguments):
    code, out, err = fooddit("--json", *arguments)
    assert code in (0, 1) and out, err
    return code, json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "expected --config=FILE once, with the equals sign, found it 0 times in: no flags"),
        (("--config=nowhere.py",), "No such file or directory: 'nowhere.py'"),
        (("--config=configs/stage1.py", "--confg.x=1"), "Unknown command line flag 'confg.x'"),
        (("--config=configs/stage1.py", "--topology=v9:2x2"), "topology 'v9:2x2': expected something like v5e:16x16"),
        (("--config=configs/stage1.py", "--topology=v6e:2x2", "--slices=0"), "slices must be at least 1, found 0"),
        (("--config=configs/stage1.py", "--config.topology="), "--topology is missing, and config.topology is empty"),
        (("--config=configs/stage1.py", "--topology=v6e:0x2"), "topology 'v6e:0x2': expected something like v5e:16x16"),
        (("--config=configs/stage1.py", "--topology=v6e:32x32"), "v6e:32x32: a slice has at most 16x16 chips"),
        (("--config=configs/stage1.py", "--topology=h100:9"), "h100:9: a node has at most 8 GPUs; for more, --slices"),
        (("--config=configs/stage1.py", "--generate=0"), "--generate must be at least 1, found 0"),
        (("--config=configs/stage1.py", "--sweep", "--generate=8"), "--sweep is of the train step: without --generate"),
        (("--config=configs/stage1.py", "--sweep", "--out=x"), "--sweep is of the train step: without --generate"),
        (("--config=configs/stage1.py", "--out=docs"), "--out=docs is a folder, expected a file"),
    ],
)
def test_what_cannot_be_asked_is_one_line(arguments, message):
    code, out, err = fooddit(*arguments)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_a_compiler_it_says_how_to_get_one():
    with pytest.raises(TopologyError, match=r"the TPU compiler is not installed; pip install 'fooddit\[aot\]'"):
        absent("v6e:2x2")


def test_what_the_compiler_says_of_memory_is_read():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 37.21G of "
        "31.25G hbm. Exceeded hbm capacity by 5.96G.\n\nTotal hbm usage >= 37.96G:\n\n  1. Size: 10.00G\n     Shape: "
        "bf16[28,2048,1536]{2,1,0:T(8,128)}\n     Unpadded size: 10.00G\n"
    )
    memory = out_of_memory(message)
    assert memory.used == int(37.21 * 2**30) and memory.capacity == int(31.25 * 2**30)
    assert memory.biggest == ["10.00G bf16[28,2048,1536]{2,1,0:T(8,128)}"]
    newer = (
        "the total memory required for HLO temporaries (1.65T) exceeds available HBM (15.75G). HLO module: jit_step."
    )
    memory = out_of_memory(f"RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, {newer}")
    assert memory.used == int(1.65 * 2**40) and memory.capacity == int(15.75 * 2**30)
    assert out_of_memory("INVALID_ARGUMENT: something else") is None


def test_an_executable_says_what_made_it(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="not written by fooddit compile --out"):
        read_fingerprint(other)
    stale = tmp_path / "stale"
    made = {"topology": "v6e:2x2", "compilers": {"jax": "0.0.1"}}
    stale.write_bytes(b"fooddit executable 1\n" + json.dumps(made).encode() + b"\n")
    assert read_fingerprint(stale) == made
    with pytest.raises(ValueError, match="was compiled by jax 0.0.1, here .*: compile it again"):
        load_executable(stale)


@needs_libtpu
@pytest.mark.parametrize("board", BOARDS)
def test_the_smallest_model_compiles_for_every_generation(board):
    code, found = figures("--config=configs/stage1.py:quick", f"--topology={board}")
    assert code == 0 and found["fits"]
    assert 0 < found["argument_bytes"] < found["peak_hbm_bytes"] < found["capacity_bytes"]
    assert found["headroom_bytes"] == found["capacity_bytes"] - found["peak_hbm_bytes"]
    assert found["executed_flops"] == pytest.approx(found["model_flops"], rel=0.02)
    assert found["hbm_bytes"] > found["argument_bytes"]
    assert 0 < found["mfu_bound"] <= 1 and found["bound"] in ("compute", "HBM", "interconnect")
    assert found["roofline_seconds"] == max(
        found["compute_seconds"], found["hbm_seconds"], found["interconnect_seconds"]
    )
    chips = found["chips"]
    assert found["images_per_second_per_chip"] == pytest.approx(64 / found["roofline_seconds"] / chips)


@needs_libtpu
def test_the_sampler_is_written_with_its_fingerprint(tmp_path):
    out = tmp_path / "sampler.fooddit"
    code, found = figures("--config=configs/stage1.py:tiny", "--generate=8", f"--out={out}")
    assert code == 0 and found["what"] == "sampler"
    made = read_fingerprint(out)
    assert made["topology"] == "v6e:2x2" and {"jax", "libtpu"} <= set(made["compilers"])
    # The folder of a dump would be one machine's.
    assert b"fooddit-hlo-" not in out.read_bytes()


@needs_libtpu
def test_attention_that_the_hardware_lacks_is_one_line():
    code, out, err = fooddit("--config=configs/stage1.py:quick", "--topology=v6e:2x2", "--attention=cudnn")
    assert code == 2 and out == "" and "cudnn: needs an NVIDIA GPU" in err and "Traceback" not in err


def test_a_config_is_found_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "fooddit", "compile", f"--config={ROOT / 'configs/stage1.py'}", "--topology=v9:1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "topology 'v9:1'" in done.stderr


@needs_libtpu
def test_a_model_that_does_not_fit_is_told_by_its_biggest_tensors():
    code, found = figures(
        "--config=configs/stage1.py:quick",
        "--topology=v5e:2x2",
        "--config.data.image_size=512",
        "--config.data.batch_size=4096",
    )
    assert code == 1 and not found["fits"]
    assert found["peak_hbm_bytes"] > found["capacity_bytes"] and found["biggest"]


@needs_libtpu
def test_two_slices_send_gradients_over_the_network():
    _, found = figures("--config=configs/stage1.py:quick", "--topology=v6e:2x2", "--slices=2")
    network = sum(sent for kind, sent in found["collective_bytes"].items() if kind.startswith("network"))
    assert found["devices"] == 8 and network > 0


@needs_libtpu
def test_tokens_are_exchanged_for_heads_and_back():
    wide = ("--config.model.width=512", "--config.model.head_dim=128", "--config.model.depth=2")
    _, found = figures("--config=configs/stage1.py:quick", *wide, "--config.mesh.data=1", "--config.mesh.sequence=4")
    assert found["collective_bytes"]["all-to-all"] > 0
    # One head of all 64 tokens a chip, but a quarter of the queries for the text's keys.
    assert {name.split()[0] for name in found["kernels"]} >= {"self_attention", "cross_attention"}


@needs_libtpu
def test_xl_compiles_for_its_pod_in_time():
    code, found = figures("--config=configs/stage1.py")
    assert code == 0 and found["topology"] == "v6e:16x16"
    assert {name.split()[0] for name in found["kernels"]} >= {"self_attention", "cross_attention"}
    assert found["compile_seconds"] < 600
