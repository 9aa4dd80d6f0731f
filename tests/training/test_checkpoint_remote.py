"""Checkpoints on an object store: the same steps, checks and guarantees as on a disk."""

import shutil
from urllib.parse import unquote

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.training.checkpoint import (
    CheckpointConfig,
    Checkpointer,
    CheckpointFailed,
    NoWholeCheckpoint,
    list_steps,
    load_parameters,
    parameters_hash,
    verify,
)
from fooddit.training.checkpoint_layout import COMMITTED

pytest_plugins = ["tests.gcs"]

STATE = {
    "step": jnp.asarray(3, jnp.int32),
    "params": {"a": jnp.arange(60_000.0).reshape(200, 300), "b": jnp.full((5,), 2, jnp.bfloat16)},
    "opt_state": {"ema": {"params": {"a": jnp.ones((200, 300)), "b": jnp.zeros((5,), jnp.bfloat16)}}},
}
ABSTRACT = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), STATE)


@pytest.fixture(autouse=True)
def nothing_local(tmp_path, monkeypatch):
    """A URL taken for a path would make a folder named "gs:" here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def _open(bucket, keep=2):
    return Checkpointer(f"{bucket.url}/run/checkpoints", CheckpointConfig(every=1, keep=keep))


def _save(bucket, *steps, keep=2):
    checkpointer = _open(bucket, keep)
    for step in steps:
        checkpointer.save(step, STATE, {"at": step})
    checkpointer.close()


def _objects(bucket, folder="run/checkpoints"):
    store = fsspec.filesystem("gcs")
    store.invalidate_cache()
    return {path.split("/", 1)[1]: path for path in store.find(f"{bucket.url}/{folder}")}


def _damage(bucket, step):
    store = fsspec.filesystem("gcs")
    for path in (path for name, path in _objects(bucket, f"run/checkpoints/{step}/state").items() if "/d/" in name):
        data = bytearray(store.cat_file(path))
        data[len(data) // 2] ^= 1
        store.pipe_file(path, bytes(data))


def test_saved_restored_verified_and_read_alone(gcs):
    _save(gcs, 1, 2)
    assert list_steps(f"{gcs.url}/run/checkpoints") == [1, 2]
    checkpointer = _open(gcs)
    restored, metadata = checkpointer.restore(ABSTRACT)
    jax.tree.map(np.testing.assert_array_equal, restored, STATE)
    assert metadata["at"] == 2 and checkpointer.restore(ABSTRACT, step=1)[1]["at"] == 1
    checkpointer.close()
    parameters, _ = load_parameters(f"{gcs.url}/run")
    np.testing.assert_array_equal(parameters["a"], np.ones((200, 300)))
    assert verify(f"{gcs.url}/run") == [] and len(parameters_hash(f"{gcs.url}/run")) == 64


def test_the_commit_file_comes_last_and_goes_first(gcs):
    """Whatever the instant of a kill: a step that has its commit file has all of its files."""
    _save(gcs, 1, 2, 3, keep=1)
    assert {name.split("/")[2] for name in _objects(gcs)} == {"3"}
    for step in (1, 2):
        here = f"run/checkpoints/{step}/"
        changes = [unquote(request) for request in gcs.requests if request.split()[0] in ("POST", "DELETE")]
        changes = [change for change in changes if here in change]
        writes = [i for i, change in enumerate(changes) if change.startswith("POST")]
        commits = [i for i in writes if here + COMMITTED in changes[i]]
        # Orbax clears a commit file of an earlier try before it writes its own.
        deletes = [i for i, change in enumerate(changes) if change.startswith("DELETE") and i > max(commits)]
        assert len(writes) > 10 and writes[-len(commits) :] == commits
        assert len(deletes) > 10 and changes[deletes[0]].endswith(here + COMMITTED)
        assert min(deletes) > max(writes)


def test_what_a_killed_save_left_is_cleared(gcs):
    _save(gcs, 1, 2)
    fsspec.filesystem("gcs").rm_file(_objects(gcs)[f"run/checkpoints/2/{COMMITTED}"])
    checkpointer = _open(gcs)
    assert checkpointer.steps() == [1] and checkpointer.restore(ABSTRACT)[1]["at"] == 1
    assert {name.split("/")[2] for name in _objects(gcs)} == {"1"}
    checkpointer.save(2, STATE, {"at": 22})
    checkpointer.close()
    assert _open(gcs).restore(ABSTRACT)[1]["at"] == 22


def test_a_damaged_step_is_passed_over_and_set_aside(gcs, capfd):
    _save(gcs, 1, 2)
    _damage(gcs, 2)
    assert verify(f"{gcs.url}/run")
    checkpointer = _open(gcs)
    assert checkpointer.restore(ABSTRACT)[1]["at"] == 1 and checkpointer.steps() == [1]
    assert f"{gcs.url}/run/checkpoints/2 is damaged" in capfd.readouterr().err
    assert _objects(gcs, "run/checkpoints/damaged/2")
    checkpointer.save(2, STATE, {"at": 22})
    checkpointer.close()
    assert verify(f"{gcs.url}/run") == []
    _damage(gcs, 1), _damage(gcs, 2)
    with pytest.raises(NoWholeCheckpoint):
        _open(gcs).restore(ABSTRACT)


def test_a_store_that_is_away_is_not_taken_for_damage(gcs, impatient_gcs):
    _save(gcs, 1, 2)
    before, checkpointer = _objects(gcs), _open(gcs)
    # Who reads there, orbax's metadata and tensorstore's arrays, each in its own words.
    for requests, words in (("_METADATA", "Forbidden"), ("tensorstore=", "PERMISSION_DENIED")):
        with gcs.forbidden(requests), pytest.raises(OSError, match=f"2/state cannot be read: .*{words}"):
            checkpointer.restore(ABSTRACT)
    assert checkpointer.restore(ABSTRACT)[1]["at"] == 2 and _objects(gcs) == before
    with gcs.forbidden("POST"), pytest.raises(CheckpointFailed, match=r"step 3 could not.*Forbidden.*: 1, 2\. Mend"):
        checkpointer.save(3, STATE, {})
        checkpointer.wait()
    checkpointer = _open(gcs)
    fsspec.filesystem("gcs").invalidate_cache()  # What gcsfs remembers, it answers by itself.
    with impatient_gcs.outage():
        with pytest.raises(OSError, match="Cannot connect"):
            list_steps(checkpointer.directory)  # An empty list would be a run from scratch.
        with pytest.raises(CheckpointFailed, match="Cannot connect.*does not answer"):
            checkpointer.save(3, STATE, {})
    assert list_steps(f"{gcs.url}/run/checkpoints") == [1, 2]


def test_the_command_lists_and_verifies(gcs, capsys):
    from fooddit.cli import main

    _save(gcs, 1, 2)
    assert main(["checkpoint", "list", f"{gcs.url}/run"]) == 0
    listed = capsys.readouterr().out
    # A store's folders have no time of their own.
    assert "1970" not in listed and listed.count("\n") == 3
    assert main(["checkpoint", "verify", f"{gcs.url}/run"]) == 0
    _damage(gcs, 1)
    assert main(["checkpoint", "verify", f"{gcs.url}/run"]) == 1


def test_copied_from_a_disk_it_is_the_same_checkpoint(gcs, tmp_path, monkeypatch):
    local = tmp_path / "run" / "checkpoints"
    checkpointer = Checkpointer(local, CheckpointConfig(every=1, keep=2))
    checkpointer.save(5, STATE, {"at": 5})
    checkpointer.close()
    fsspec.filesystem("gcs").put(str(local), f"{gcs.url}/run/checkpoints", recursive=True)
    shutil.rmtree(tmp_path / "run")
    assert verify(f"{gcs.url}/run") == [] and _open(gcs).restore(ABSTRACT)[1]["at"] == 5
