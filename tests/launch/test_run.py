"""python launch/run.py: what it hands over, and its errors."""

import subprocess
import sys

import pytest
import yaml

from launch import run
from tests.launch.cases import CASES
from tests.launch.fakes import calls, fake

CONFIG = "--config=configs/stage1.py:tiny"
GKE = ["gke", CONFIG, "--workdir=gs://b/run", "--image=example.com/fooddit:1", "--topology=v6e:2x4"]
SLURM = ["slurm", CONFIG, "--workdir=/shared/run", "--topology=h100:8"]
VM = [
    "tpu-vm",
    CONFIG,
    "--workdir=gs://b/run",
    "--image=example.com/fooddit:1",
    "--topology=v6e:2x4",
    "--zone=z",
    "--project=p",
]
TEXT = "--config.data.source=a b 'c' \"d\" $HOME 菜谱"


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder in which fakes are found, and nothing but the shell's own programs."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    # Real ones may be there.
    monkeypatch.setattr(run.sys, "executable", str(folder / "python"))
    return folder


def test_kubectl_gets_the_manifest(tools, capfd):
    log = fake(tools, "kubectl", f'cp "$3" {tools}/applied.yaml; echo jobset created')
    assert run.main([*GKE, TEXT, "--submit"]) == 0
    [[verb, flag, file]] = calls(log)
    assert (verb, flag) == ("apply", "-f") and file.endswith("/run.yaml")
    jobset = yaml.safe_load((tools / "applied.yaml").read_text(encoding="utf-8"))
    arguments = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert TEXT.replace("$", "$$") in arguments
    out, error = capfd.readouterr()
    assert out == "jobset created\n" and "kubectl delete jobset run" in error


def test_sbatch_gets_the_script_and_the_checkout(tools, capfd):
    log = fake(tools, "sbatch", f'cp "$2" {tools}/script.sh; echo "$PATH" > {tools}/path')
    assert run.main([*SLURM, TEXT, "--submit"]) == 0
    [[folder, file]] = calls(log)
    assert folder == f"--chdir={run.ROOT}" and file.endswith("/run.sh")
    assert (tools / "script.sh").read_text(encoding="utf-8").startswith("#!/bin/bash\n")
    # The job's `python` is the one that launched it.
    assert (tools / "path").read_text().startswith(f"{tools}:")
    assert "scancel --name=run" in capfd.readouterr().err


def test_gcloud_gets_one_command_after_the_other(tools, capfd):
    log = fake(tools, "gcloud", "echo ACTIVE")
    assert run.main([*VM, TEXT, "--submit"]) == 0
    steps = [call[:4] for call in calls(log)]
    assert [step[3] for step in steps] == ["create", "describe", "ssh"]
    remote = "\n".join(calls(log)[-1])
    # Twice quoted; test_tpu_vm.py looks at what comes out of it.
    assert "菜谱" in remote and "$HOME" in remote and "--worker=all" in remote
    assert "queued-resources delete run" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments, tool, code", [(GKE, "kubectl", 1), (SLURM, "sbatch", 7), (VM, "gcloud", 3), (GKE, "kubectl", 137)]
)
def test_a_tool_that_fails(tools, capfd, arguments, tool, code):
    log = fake(tools, tool, f"echo 'no rights: 没有权限' >&2; exit {code}")
    assert run.main([*arguments, "--submit"]) == code
    assert len(calls(log)) == 1
    error = capfd.readouterr().err
    assert "no rights: 没有权限\n" in error
    assert f"launch: {tool} failed with exit code {code}, its own words are above; " in error
    assert "submitted" not in error


@pytest.mark.parametrize("arguments, tool", [(GKE, "kubectl"), (SLURM, "sbatch"), (VM, "gcloud")])
def test_a_tool_that_is_not_there(tools, capfd, monkeypatch, arguments, tool):
    monkeypatch.setenv("PATH", str(tools))
    assert run.main([*arguments, "--submit"]) == 127
    *_, last = capfd.readouterr().err.splitlines()
    assert last == f"launch: {tool} is not installed, or not on PATH; install it, or launch where it is"


@pytest.mark.parametrize("arguments", [GKE, SLURM, VM])
def test_without_submit_nothing_runs(tools, capfd, arguments):
    logs = [fake(tools, tool) for tool in ("kubectl", "sbatch", "gcloud")]
    assert run.main(arguments) == 0
    printed = capfd.readouterr()
    assert run.main([*arguments, "--dry-run"]) == 0
    assert capfd.readouterr() == printed and "--submit would run" in printed.err
    assert not any(calls(log) for log in logs)


def test_out_keeps_what_is_rendered(tools, tmp_path, capfd):
    assert run.main(GKE) == 0
    text = capfd.readouterr().out
    assert run.main([*GKE, f"--out={tmp_path}/kept.yaml"]) == 0
    out, error = capfd.readouterr()
    assert out == "" and f"--submit would run: kubectl apply -f {tmp_path}/kept.yaml" in error
    assert (tmp_path / "kept.yaml").read_text(encoding="utf-8") == text
    log = fake(tools, "kubectl")
    assert run.main([*GKE, f"--out={tmp_path}/kept.yaml", "--submit"]) == 0
    assert calls(log) == [["apply", "-f", f"{tmp_path}/kept.yaml"]]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([*GKE, "--submitt"], "found '--submitt'"),
        ([*GKE, "extra"], "found 'extra'"),
        ([*GKE, "--config.train.steps", "3"], "found '--config.train.steps'"),
        (["gkee", CONFIG, "--workdir=gs://b/run"], "invalid choice: 'gkee'"),
        (["gke", CONFIG], "--workdir"),
        ([*GKE, "--slices=two"], "invalid int value: 'two'"),
        ([*GKE, "--submit", "--dry-run"], "not allowed with"),
        ([*GKE, "--env=A"], "--env: found 'A', expected NAME=VALUE"),
        ([*GKE, CONFIG], "--config: found it 2 times"),
        (["gke", "--workdir=gs://b/run"], "--config: found it 0 times"),
        ([*GKE[:1], "--config=nowhere.py", *GKE[2:]], "--config: found no file 'nowhere.py'"),
        ([*GKE, "--config.train.stepps=3"], "'stepps'"),
        ([*GKE, "--config.train.steps=-3"], "train.steps must be at least 1, found -3"),
        ([*GKE, "--partition=gpu"], "partition: found 'gpu', but gke makes no use of it"),
        ([*GKE[:1], "--workdir=/runs/a", *GKE[1:2], *GKE[3:]], "workdir: found '/runs/a'"),
        ([*GKE, "--out=/nowhere/a.yaml"], "/nowhere/a.yaml"),
        ([*GKE, "--name=Big Run"], "name: found 'Big Run'"),
    ],
)
def test_a_mistake_is_one_line(tools, capfd, arguments, words):
    log = fake(tools, "kubectl")
    try:
        code = run.main([*arguments, *([] if "--submit" in arguments else ["--submit"])])
    except SystemExit as exit_:
        code = exit_.code
    out, error = capfd.readouterr()
    assert code == 2 and out == "" and not calls(log)
    assert error.startswith("launch: ") and error.count("\n") == 1 and words in error, error


def test_from_any_folder(tmp_path):
    """As a command of its own, where the current folder has a config of its own that is not meant."""
    command = [sys.executable, str(run.ROOT / "launch" / "run.py"), *GKE, "--config.train.steps=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--config=configs/stage1.py:tiny\n" in done.stdout


def test_a_config_outside_of_the_checkout_is_refused(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "def get_config():\n    from configs.stage1 import get_config as g; return g('tiny')\n"
    )
    assert run.main(["gke", f"--config={tmp_path}/mine.py", *GKE[2:]]) == 2
    assert "is outside of the checkout" in capsys.readouterr().err


def test_the_topology_and_name_come_from_config_and_workdir(capsys):
    assert run.main(["gke", "--config=configs/stage1.py", "--workdir=gs://b/Stage1_a/", "--image=i"]) == 0
    jobset = yaml.safe_load(capsys.readouterr().out)
    assert jobset["metadata"]["name"] == "stage1-a"
    assert jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"] == 64


def test_local(monkeypatch, capsys):
    import launch.local

    specs = []
    monkeypatch.setattr(launch.local, "run", lambda spec: specs.append(spec) or 42, raising=False)
    arguments = ["local", CONFIG, "--workdir=runs/a", "--topology=cpu:2"]
    assert run.main(arguments) == 0
    assert "--distributed=127.0.0.1:8476,2,1" in capsys.readouterr().out and not specs
    assert run.main([*arguments, "--submit"]) == 42
    [spec] = specs
    assert spec.topology == "cpu:2" and spec.workdir.endswith("/runs/a") and spec.workdir.startswith("/")
    assert run.main(["local", CONFIG, "--workdir=runs/a"]) == 0
    assert "--distributed" not in capsys.readouterr().out


def test_help_names_every_target(capsys):
    with pytest.raises(SystemExit) as exit_:
        run.main(["--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0 and "gke, local, slurm, tpu-vm" in text
    assert {case[0] for case in CASES.values()} < {"gke", "local", "slurm", "tpu-vm"}
