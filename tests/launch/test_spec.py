"""LaunchSpec: what it refuses, and that each field reaches a target."""

import dataclasses
import re

import pytest

from launch import gke, slurm, tpu_vm
from launch.accelerators import hardware
from launch.spec import USES, LaunchSpec, SpecError, check, command

BASE = {"name": "stage1", "config": "configs/stage1.py", "workdir": "gs://bucket/run", "topology": "v6e:16x16"}
IMAGE = {"image": "example.com/fooddit:1"}
SPECS = {
    "gke": LaunchSpec(**BASE, **IMAGE),
    "slurm": LaunchSpec(**BASE | {"topology": "h100:8"}),
    "tpu-vm": LaunchSpec(**BASE, **IMAGE, zone="us-east5-a"),
}
RENDER = {"gke": gke.render, "slurm": slurm.render, "tpu-vm": tpu_vm.render}
OTHER = {
    "name": "stage2",
    "config": "configs/quickstart.py:tiny",
    "config_flags": ("--config.train.steps=3",),
    "workdir": "gs://bucket/other",
    "slices": 2,
    "image": "example.com/fooddit:2",
    "queue": "vision",
    "namespace": "team",
    "service_account": "trainer",
    "host_network": True,
    "project": "dishes",
    "zone": "us-central2-b",
    "capacity": "spot",
    "priority_class": "high",
    "partition": "gpu",
    "account": "dishes",
    "time_limit": "12:00:00",
    "max_restarts": 7,
    "grace_seconds": 77,
    "env": (("A", "b"),),
}
TOPOLOGY = {"gke": "v5e:4x4", "slurm": "h100:4", "tpu-vm": "v5e:4x4"}
WRONG = [
    ({"name": "Stage1"}, "name: found 'Stage1', expected a DNS label"),
    ({"name": "a" * 41}, "at most 40 characters"),
    ({"config": "configs/stage1"}, "config: found 'configs/stage1', expected FILE.py"),
    ({"config_flags": ("--train.steps=3",)}, "config_flags: found '--train.steps=3', expected --config.KEY=VALUE"),
    ({"config_flags": "--config.train.steps=3"}, "expected a tuple"),
    ({"workdir": " "}, "workdir: found ' '"),
    ({"slices": 0}, "slices: found 0, expected 1 or more"),
    ({"slices": True}, "slices: found True, expected a int"),
    ({"max_restarts": -1}, "max_restarts: found -1"),
    ({"grace_seconds": 0}, "grace_seconds: found 0"),
    ({"image": "a b"}, "image: found 'a b', expected no spaces"),
    ({"workdir": "gs://b/x\n#SBATCH --uid=0"}, "expected one line of text"),
    ({"capacity": "Spot!"}, "capacity: found 'Spot!', expected on-demand, spot or a reservation's name"),
    ({"time_limit": "a day"}, "time_limit: found 'a day'"),
    ({"env": (("1A", "b"),)}, "env: found ('1A', 'b')"),
    ({"env": ("A=b",)}, "env: found 'A=b'"),
    ({"topology": "v6e"}, "topology: found 'v6e', expected something like"),
    ({"topology": "v9x:2x2"}, "topology: found 'v9x:2x2', expected something like"),
    ({"topology": "v6e:32x32"}, "for more chips, slices"),
    ({"topology": "v6e:3x5"}, "topology: found 'v6e:3x5'"),
    ({"topology": "v5p:8x8"}, "topology: found 'v5p:8x8'"),
    ({"topology": "v5p:8x4x4"}, "ascending order"),
    ({"topology": "h100:16"}, "for more, slices"),
    ({"topology": "h100:2x4"}, "expected one number"),
]


@pytest.mark.parametrize("change, message", WRONG)
def test_a_wrong_value_is_named(change, message):
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        LaunchSpec(**BASE | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", RENDER)
def test_each_field_reaches_its_targets_and_no_other(target):
    before = RENDER[target](SPECS[target])
    fields = {field.name for field in dataclasses.fields(LaunchSpec)}
    assert set(OTHER) | {"topology"} == fields == set().union(*USES.values())
    for name, value in (OTHER | {"topology": TOPOLOGY[target]}).items():
        changed = dataclasses.replace(SPECS[target], **{name: value})
        if name in USES[target]:
            assert RENDER[target](changed) != before, f"{target} does not read {name}"
        else:
            with pytest.raises(SpecError, match=f"{name}: found .* but {target} makes no use of it"):
                RENDER[target](changed)


@pytest.mark.parametrize(
    "topology, hosts, devices, machine",
    [
        ("v5e:1x1", 1, 1, "ct5lp-hightpu-1t"),
        ("v5e:2x2", 1, 4, "ct5lp-hightpu-4t"),
        ("v5e:16x16", 64, 4, "ct5lp-hightpu-4t"),
        ("v6e:16x16", 64, 4, "ct6e-standard-4t"),
        ("v5p:2x2x1", 1, 4, "ct5p-hightpu-4t"),
        ("v5p:8x8x8", 128, 4, "ct5p-hightpu-4t"),
        ("v5p:8x8x12", 192, 4, "ct5p-hightpu-4t"),
        ("tpu7x:4x4x4", 16, 4, "tpu7x-standard-4t"),
        ("h100:8", 1, 8, "a3-highgpu-8g"),
    ],
)
def test_hosts_of_a_slice(topology, hosts, devices, machine):
    found = hardware(topology)
    assert (found.hosts, found.devices, found.machine) == (hosts, devices, machine)


def test_what_is_missing_is_named():
    with pytest.raises(SpecError, match="image is missing, and gke needs it; give --image="):
        gke.render(LaunchSpec(**BASE))
    with pytest.raises(SpecError, match="zone is missing, and tpu-vm needs it"):
        tpu_vm.render(LaunchSpec(**BASE, **IMAGE))


@pytest.mark.parametrize("target", ["gke", "tpu-vm"])
def test_a_workdir_on_a_machine_that_goes_is_refused(target):
    with pytest.raises(SpecError, match="workdir: found '/runs/a', expected gs://BUCKET/FOLDER"):
        RENDER[target](dataclasses.replace(SPECS[target], workdir="/runs/a"))


def test_local_takes_processes_of_this_machine_only():
    with pytest.raises(SpecError, match="local launches on cpu only; try gke, tpu-vm"):
        check(LaunchSpec(**BASE), "local", kinds=("cpu",))
    check(LaunchSpec(**BASE | {"topology": "cpu:2"}), "local", kinds=("cpu",))


def test_the_command():
    spec = LaunchSpec(**BASE, config_flags=("--config.x=a b",))
    flags = ["--config=configs/stage1.py", "--config.x=a b", "--workdir=gs://bucket/run"]
    assert command(spec) == ["python", "main.py", *flags, "--distributed=auto"]
    assert command(spec, "") == ["python", "main.py", *flags]
