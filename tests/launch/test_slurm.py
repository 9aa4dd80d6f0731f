"""The batch script: by shellcheck, and run with a srun and a scontrol that are not Slurm's."""

import os
import signal
import subprocess
import time

import pytest

from launch import slurm
from launch.exit_codes import restarts
from launch.run import ROOT
from launch.spec import LaunchSpec
from tests.launch.cases import GOLDEN
from tests.launch.fakes import calls, fake, path_with, shellcheck

FLAGS = ("--config.x=a 'b' \"c\" $HOME", "--config.y=菜谱 *")


@pytest.fixture
def script(tmp_path):
    """Path of a script, to be run with a fake srun that ends with the code in $CODE."""
    spec = LaunchSpec(
        name="run",
        config="configs/stage1.py",
        workdir="/shared/runs/一 号",
        topology="h100:8",
        slices=2,
        config_flags=FLAGS,
        max_restarts=3,
        env=(("A", "x 'y' 中文"),),
    )
    path = tmp_path / "run.sh"
    path.write_text(slurm.render(spec), encoding="utf-8")
    return path


def start(script, code: int, body: str = 'exit "$CODE"', restart: int = 0) -> tuple[subprocess.Popen, dict]:
    folder = script.parent
    logs = {name: fake(folder, name) for name in ("scontrol", "python")} | {"srun": fake(folder, "srun", body)}
    env = path_with(folder) | {"CODE": str(code), "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(restart)}
    command = ["bash", str(script)]
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True), logs


def test_shellcheck(script):
    for path in (script, GOLDEN / "slurm-h100.sh"):
        assert not shellcheck(path)


@pytest.mark.parametrize("code", [0, 1, 3, 41, 42, 134, 137, 143])
def test_what_follows_on_an_exit_code(script, code):
    process, logs = start(script, code)
    out, _ = process.communicate(timeout=60)
    if restarts(code):
        assert process.returncode == 0 and calls(logs["scontrol"]) == [["requeue", "17"]]
        assert "restart 1 of at most 3" in out
    else:
        assert process.returncode == code and not calls(logs["scontrol"])
    # `python` is asked what the code means, except after 0.
    assert [call[-1] for call in calls(logs["python"])] == ([str(code)] if code else [])


def test_a_run_is_given_up_at_last(script):
    process, logs = start(script, 42, restart=3)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 42 and not calls(logs["scontrol"])
    assert "started again 3 times, given up" in out


def test_a_job_that_slurm_ends_is_not_put_back(script):
    process, logs = start(script, 42, body='touch "$0.begun"; sleep 1; exit "$CODE"')
    deadline = time.monotonic() + 30
    while not (script.parent / "srun.begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 42 and not calls(logs["scontrol"])
    assert "Slurm ends this job" in out


def test_arguments_survive(script):
    process, logs = start(script, 0, body='printf "%s" "$A|$JAX_LOCAL_DEVICE_IDS" > "$0.env"')
    process.communicate(timeout=60)
    [arguments] = calls(logs["srun"])
    place = arguments.index("python")
    assert arguments[place:] == [
        "python",
        "main.py",
        "--config=configs/stage1.py",
        *FLAGS,
        "--workdir=/shared/runs/一 号",
        "--distributed=auto",
    ]
    assert (script.parent / "srun.env").read_text() == "x 'y' 中文|0,1,2,3,4,5,6,7"


def test_every_task_hears_of_the_end_itself_and_has_time(script):
    text = script.read_text()
    # With "B:" only the script would; and srun would kill what it was to pass the signal on to.
    assert "#SBATCH --signal=TERM@120\n" in text
    assert "srun --kill-on-bad-exit=0 --wait=120 " in text
    assert "#SBATCH --requeue\n" in text and "#SBATCH --open-mode=append\n" in text


def test_an_explanation_is_there(script):
    """With this project's own Python: the words come from launch/exit_codes.py."""
    process, _ = start(script, 134)
    process.communicate(timeout=60)
    os.remove(script.parent / "python")
    process = subprocess.run(
        ["bash", str(script)],
        env=path_with(script.parent) | {"CODE": "3", "SLURM_JOB_ID": "17"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 3
    assert "launch: the run ended with 3: no checkpoint in the workdir is whole" in process.stdout, process.stderr
