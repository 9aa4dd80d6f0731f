"""Commands for TPU VMs: by shellcheck, and what a worker does with a docker that is not one."""

import os
import shlex
import signal
import subprocess
import time

import pytest

from launch import tpu_vm
from launch.exit_codes import restarts
from launch.spec import LaunchSpec, SpecError
from tests.launch.fakes import calls, fake, path_with, shellcheck

FLAGS = ("--config.x=a 'b' \"c\" $HOME $(id)", "--config.y=菜谱 *")


def spec(**changes) -> LaunchSpec:
    base = {
        "name": "run",
        "config": "configs/stage1.py",
        "workdir": "gs://b/一 号",
        "topology": "v6e:16x16",
        "image": "us-docker.pkg.dev/p/r/fooddit:1",
        "zone": "us-east5-a",
        "config_flags": FLAGS,
        "env": (("A", "x 'y' 中文"),),
        "max_restarts": 3,
    }
    return LaunchSpec(**base | changes)


def test_shellcheck(tmp_path):
    wait = tpu_vm.commands(spec())[1]
    assert wait[:2] == ["bash", "-c"]
    for text in (wait[2], tpu_vm.worker_script(spec()), tpu_vm.remote_command(spec())):
        path = tmp_path / "checked.sh"
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        assert not shellcheck(path)


def test_what_is_asked_for():
    one, two = spec(), spec(topology="v5p:8x8x8", slices=2, capacity="spot", project="dishes")
    assert tpu_vm.commands(one)[0] == shlex.split(
        "gcloud compute tpus queued-resources create run --zone=us-east5-a --accelerator-type=v6e-256 "
        "--runtime-version=v2-alpha-tpuv6e --node-id=run"
    )
    assert tpu_vm.commands(two)[0] == shlex.split(
        "gcloud compute tpus queued-resources create run --zone=us-east5-a --project=dishes "
        "--accelerator-type=v5p-1024 --runtime-version=v2-alpha-tpuv5 --node-count=2 --node-prefix=run --spot"
    )
    assert [command[5] for command in tpu_vm.commands(two)[2:]] == ["run-0", "run-1"]
    reserved = tpu_vm.commands(spec(topology="v5e:8x16", capacity="block"))[0]
    assert reserved[:2] == ["gcloud", "alpha"] and reserved[-1] == "--reservation=block"
    assert "--accelerator-type=v5litepod-128" in reserved and "--runtime-version=v2-alpha-tpuv5-lite" in reserved


def test_a_shape_that_an_accelerator_type_cannot_name():
    with pytest.raises(SpecError, match="topology: found 'v5p:4x4x12', but an accelerator type names only a number"):
        tpu_vm.commands(spec(topology="v5p:4x4x12"))


@pytest.mark.parametrize("states, code", [("WAITING ACTIVE", 0), ("PROVISIONING FAILED", 1), ("SUSPENDED", 1)])
def test_the_wait(tmp_path, states, code):
    (tmp_path / "states").write_text("\n".join(states.split()) + "\n")
    take = f"head -n1 {tmp_path}/states; sed -i 1d {tmp_path}/states"
    log = fake(tmp_path, "gcloud", take)
    fake(tmp_path, "sleep")
    done = subprocess.run(
        tpu_vm.commands(spec())[1], env=path_with(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert len(calls(log)) == len(states.split())
    assert calls(log)[0][-1] == "--format=value(state.state)"
    if code:
        assert f"the queued resource run is {states.split()[-1]}" in done.stderr


def test_the_wait_ends_when_gcloud_does(tmp_path):
    fake(tmp_path, "gcloud", "echo denied >&2; exit 5")
    done = subprocess.run(tpu_vm.commands(spec())[1], env=path_with(tmp_path), capture_output=True, text=True)
    assert done.returncode == 5 and "denied" in done.stderr


@pytest.mark.parametrize("codes", ["0", "42 0", "1", "42 3", "134 137 41", "42 42 42 42"])
def test_a_worker_restarts_what_may_be_restarted(tmp_path, codes):
    (tmp_path / "codes").write_text("\n".join(codes.split()) + "\n")
    take = f'[ "$1" = rm ] && exit 1; code=$(head -n1 {tmp_path}/codes); sed -i 1d {tmp_path}/codes; exit "$code"'
    log, slept = fake(tmp_path, "docker", take), fake(tmp_path, "sleep")
    done = subprocess.run(
        ["bash", "-c", tpu_vm.worker_script(spec())], env=path_with(tmp_path), capture_output=True, text=True
    )
    expected = [int(code) for code in codes.split()]
    assert done.returncode == expected[-1]
    assert len([call for call in calls(log) if call[0] == "run"]) == len(expected)
    pauses = ["10" if code == 42 else "150" for code in expected if restarts(code)]
    assert [call[0] for call in calls(slept)] == pauses
    assert ("started again 3 times, given up" in done.stdout) == (codes == "42 42 42 42")


def test_a_worker_that_is_stopped_stays_so(tmp_path):
    fake(tmp_path, "docker", f"[ $1 = rm ] && exit; touch {tmp_path}/begun; /bin/sleep 1; exit 42")
    process = subprocess.Popen(["bash", "-c", tpu_vm.worker_script(spec())], env=path_with(tmp_path))
    deadline = time.monotonic() + 30
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 42


def test_arguments_survive_two_shells(tmp_path):
    """What docker is called with, when the command went through a login shell, a file and bash."""
    given = spec(name=f"run-{os.getpid()}")
    fake(tmp_path, "sudo", 'exec "$@"')
    log = fake(tmp_path, "docker", "exit 0")
    gcloud = fake(tmp_path, "gcloud")
    service = fake(tmp_path, "systemd-run", 'while [ "$1" != bash ]; do shift; done; exec "$@"')
    done = subprocess.run(
        ["bash", "-c", tpu_vm.remote_command(given)], env=path_with(tmp_path), capture_output=True, text=True
    )
    os.remove(f"/tmp/{given.name}.sh")
    assert done.returncode == 0, done.stderr
    pull, _, started = calls(log)
    assert pull == ["pull", given.image]
    image = started.index(given.image)
    assert started[image + 1 :] == [
        "--config=configs/stage1.py",
        *FLAGS,
        "--workdir=gs://b/一 号",
        "--distributed=auto",
    ]
    assert "--env=A=x 'y' 中文" in started[:image] and "--stop-timeout=120" in started[:image]
    assert calls(gcloud) == [["auth", "configure-docker", "us-docker.pkg.dev", "--quiet"]]
    assert f"--unit={given.name}" in calls(service)[0]


def test_other_registries_need_no_helper():
    assert "configure-docker" not in tpu_vm.remote_command(spec(image="example.com/fooddit:1"))


def test_how_it_is_ended():
    *_, delete = tpu_vm.follow_up(spec(slices=2, topology="v5p:8x8x8"))
    assert delete == shlex.split("gcloud compute tpus queued-resources delete run --zone=us-east5-a --force --quiet")
