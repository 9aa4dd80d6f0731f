"""Whose checkpoint is this? Another config's, task's or dataset's is refused by name, unless its change is accepted."""

import subprocess
import sys
from dataclasses import replace

import pytest

from fooddit.models.dit import DiTConfig
from fooddit.tasks.denoise_step import DenoiseExperiment
from fooddit.training.checkpoint import CheckpointConfig, Checkpointer
from fooddit.training.loop import train
from fooddit.training.optimizer import OptimizerConfig
from fooddit.training.resume import RunMismatch, check_experiment, newest_metadata, only_one
from fooddit.training.seal import SEAL
from tests.training.test_loop import LineTask, experiment


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    train(LineTask(), experiment(5), workdir)
    return workdir / "checkpoints"


def accepting(names: str, **changes):
    return experiment(5, checkpoint=CheckpointConfig(accept_changes=names), **changes)


def test_the_same_config_gives_the_metadata_and_a_new_workdir_none(checkpoints, tmp_path):
    assert check_experiment(checkpoints, experiment(5))["task"] == {"kind": "line"}
    assert check_experiment(tmp_path / "checkpoints", experiment(5)) is None


def test_what_does_not_change_what_is_learned_may_differ(checkpoints):
    check_experiment(checkpoints, experiment(500, evaluate_every=3, checkpoint=CheckpointConfig(every=7, keep=9)))
    shown = {key for key in DenoiseExperiment.__dataclass_fields__ if not _learned(DenoiseExperiment, key)}
    assert shown == {"profile", "evaluate_every", "checkpoint", "mesh", "topology", "sampling", "evaluation"}
    assert _learned(DiTConfig, "width") and not _learned(DiTConfig, "remat")


def _learned(cls, key: str) -> bool:
    return not cls.__dataclass_fields__[key].metadata.get("operational")


def test_another_config_is_refused_with_every_key_and_both_values(checkpoints):
    other = experiment(5, optimizer=OptimizerConfig(warmup=1, learning_rate=0.5, clip=3.0))
    with pytest.raises(RunMismatch) as refused:
        check_experiment(checkpoints, other)
    message = str(refused.value)
    assert "config.optimizer.learning_rate: was 0.05, is 0.5" in message
    assert "config.optimizer.clip: was 1.0, is 3.0" in message
    # What the message proposes is what lets it through.
    proposed = message.rsplit("--config.checkpoint.accept_changes=", 1)[1]
    assert proposed == "optimizer.learning_rate,optimizer.clip"
    check_experiment(checkpoints, accepting(proposed, optimizer=other.optimizer))
    check_experiment(checkpoints, accepting("optimizer", optimizer=other.optimizer))
    check_experiment(checkpoints, accepting("config.optimizer", optimizer=other.optimizer))
    with pytest.raises(RunMismatch, match="optimizer.clip"):
        check_experiment(checkpoints, accepting("optimizer.learning_rate", optimizer=other.optimizer))


def test_accepting_what_is_no_key_is_refused(checkpoints):
    with pytest.raises(RunMismatch, match=r"accept_changes: optim, optimizer.lr: expected .*of the data: dataset"):
        check_experiment(checkpoints, accepting("optim,train.steps,optimizer.lr,dataset,checkpoint"))


def test_another_task_is_refused(checkpoints):
    with pytest.raises(RunMismatch, match="of the task 'line', this config's is 'denoise'; give another --workdir"):
        check_experiment(checkpoints, replace(experiment(5), task="denoise"))


def test_other_data_is_refused_or_accepted_by_name(tmp_path):
    train(LineTask(), experiment(5), tmp_path)
    with pytest.raises(RunMismatch, match=r"dataset: was 'numbers', is 'letters'(.|\n)*accept_changes=dataset"):
        train(LineTask(dataset="letters"), experiment(10), tmp_path)
    accepted = experiment(10, checkpoint=CheckpointConfig(accept_changes="dataset"))
    assert train(LineTask(dataset="letters"), accepted, tmp_path).summary["steps"] == 10


def test_other_weights_behind_the_same_path_are_refused_or_accepted_by_name(tmp_path):
    def task(**parts):
        made = LineTask()
        made.metadata["frozen"] = {name: {"source": "there", "sha256": digest} for name, digest in parts.items()}
        return made

    train(task(space="a", t5="b"), experiment(2), tmp_path)
    moved = task(space="a", t5="b")
    moved.metadata["frozen"]["space"]["source"] = "elsewhere"
    train(moved, experiment(3), tmp_path)
    with pytest.raises(RunMismatch, match="other frozen parts:\n  t5: was .*'b'.*, is .*'c'") as refused:
        train(task(space="a", t5="c"), experiment(4), tmp_path)
    assert str(refused.value).endswith("accept_changes=t5")
    with pytest.raises(RunMismatch, match="  eclip: was None, is"):
        train(task(space="a", t5="b", eclip="d"), experiment(4), tmp_path)
    accepting = CheckpointConfig(accept_changes="checkpoint.t5")
    with pytest.raises(RunMismatch, match="expected keys"):
        check_experiment(tmp_path / "checkpoints", experiment(4, checkpoint=accepting))
    train(task(space="a", t5="c"), experiment(4, checkpoint=accepting), tmp_path)


def test_damaged_metadata_is_left_to_the_restore(tmp_path):
    train(LineTask(), experiment(10), tmp_path)
    path = tmp_path / "checkpoints/10/metadata/metadata"
    path.write_text(path.read_text()[:50])
    assert newest_metadata(tmp_path / "checkpoints")["data"]["position"] == 5
    # The seal alone would have found it, too.
    assert (tmp_path / "checkpoints/10" / SEAL).exists()
    assert train(LineTask(), experiment(10), tmp_path).summary["steps"] == 10
    assert Checkpointer(tmp_path / "checkpoints").steps() == [5, 10]


def test_one_process_at_a_time_trains_in_a_workdir(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom fooddit.training.resume import only_one\n"
        "with only_one(Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(RunMismatch, match=f"is in use: process {other.pid} on .* trains there"):
            with only_one(tmp_path):
                pass
        other.kill()
    with only_one(tmp_path):
        pass


def test_a_strangers_files_are_not_replaced(tmp_path):
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(RunMismatch, match="holds config.json, but no run: they would be replaced"):
        with only_one(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "goodput.jsonl").touch()  # A run's folder, copied without the names that begin with a dot.
    with only_one(tmp_path):
        pass
