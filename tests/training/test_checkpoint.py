import contextlib
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from fooddit.training.checkpoint import (
    CheckpointConfig,
    CheckpointCorrupted,
    Checkpointer,
    CheckpointMismatch,
    NoWholeCheckpoint,
    find_checkpoints,
    load_parameters,
    parameters_hash,
    verify,
)
from fooddit.training.checkpoint_layout import COMMITTED, list_steps, named_leaves
from fooddit.training.seal import SEAL


class _Ema(NamedTuple):
    params: Any
    count: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    step: Any
    params: Any
    opt_state: Any


METADATA = {"data": {"position": 12, "fingerprint": "ab"}, "task": "denoise"}


def _state(step: int = 0, width: int = 128) -> _State:
    draws = jax.random.normal(jax.random.key(step), (256, width))
    params = {"blocks": {"q": draws, "table": draws[:3].astype(jnp.bfloat16)}, "scale": jnp.float32(1.5)}
    average = jax.tree.map(lambda x: x * 2, params)
    return _State(jnp.int32(step), params, {"adam": (draws + 1, ()), "ema": _Ema(average, jnp.int32(step))})


def _mesh(count: int) -> jax.sharding.Mesh:
    return jax.make_mesh((count,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def _sharding(leaf, count: int):
    if count == 1:
        return SingleDeviceSharding(jax.devices()[0])
    divisible = leaf.ndim and leaf.shape[0] % count == 0
    return NamedSharding(_mesh(count), PartitionSpec("fsdp") if divisible else PartitionSpec())


def _abstract(state, count: int = 1):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(x, count)), state)


def _put(state, count: int):
    return jax.tree.map(lambda x: jax.device_put(x, _sharding(x, count)), state)


def _saved(folder: Path, *steps: int, devices: int = 1, keep: int = 3) -> Path:
    writer = Checkpointer(folder, CheckpointConfig(every=1, keep=keep))
    for step in steps:
        writer.save(step, _put(_state(step), devices), METADATA | {"step": step})
    writer.close()
    return folder


def _assert_equal(found, expected) -> None:
    found, expected = named_leaves(found), named_leaves(expected)
    assert list(found) == list(expected)
    for name, leaf in expected.items():
        assert found[name].dtype == leaf.dtype, name
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(leaf), err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A workdir with steps 1 and 2, saved over eight devices. Not to be written to."""
    workdir = tmp_path_factory.mktemp("run")
    _saved(workdir / "checkpoints", 1, 2, devices=8)
    return workdir


@pytest.fixture
def sealed(tmp_path) -> Path:
    return _saved(tmp_path / "checkpoints", 1, 2)


@pytest.fixture
def damaged(sealed) -> Path:
    """Without seals, as after a kill between commit and seal: the arrays' own checksums have to find everything."""
    for path in sealed.glob(f"*/{SEAL}"):
        path.unlink()
    return sealed


def _flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_state_is_restored_onto_other_devices(whole, devices):
    state, metadata = Checkpointer(whole / "checkpoints").restore(_abstract(_state(), devices))
    assert isinstance(state, _State) and isinstance(state.opt_state["ema"], _Ema)
    _assert_equal(state, _state(2))
    assert len(state.params["blocks"]["q"].sharding.device_set) == devices
    assert metadata == METADATA | {"step": 2}


def test_nothing_saved_is_none(tmp_path):
    assert Checkpointer(tmp_path / "new").restore(_abstract(_state())) is None


def test_an_older_step_can_be_asked_for(whole):
    state, metadata = Checkpointer(whole / "checkpoints").restore(_abstract(_state()), step=1)
    assert int(state.step) == metadata["step"] == 1
    with pytest.raises(FileNotFoundError, match="expected step 7, found 1, 2"):
        Checkpointer(whole / "checkpoints").restore(_abstract(_state()), step=7)


def test_buffers_may_be_donated_once_save_returns(tmp_path):
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    writer = Checkpointer(tmp_path)
    state = {"params": {"w": jnp.arange(2.0**22)}}
    expected = np.arange(2.0**22, dtype=np.float32)
    writer.save(1, state, {})
    for _ in range(3):
        state = overwrite(state)
    jax.block_until_ready(state)
    writer.wait()
    restored, _ = writer.restore(_abstract(state))
    np.testing.assert_array_equal(restored["params"]["w"], expected)


def test_only_the_newest_stay_and_the_trash_is_emptied(tmp_path):
    _saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert list_steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "trash") == ["3", "4"]
    assert not list((tmp_path / "trash").iterdir())


def test_a_step_is_saved_once(tmp_path):
    writer = Checkpointer(_saved(tmp_path, 1))
    with pytest.raises(ValueError, match="exists already"):
        writer.save(1, _state(1), {})


def test_metadata_must_be_json(tmp_path):
    with pytest.raises(TypeError, match="metadata: Object of type object"):
        Checkpointer(tmp_path).save(1, _state(), {"a": object()})


def test_parameters_load_without_a_model(whole):
    averaged, metadata = load_parameters(whole)
    _assert_equal(averaged, _state(2).opt_state["ema"].params)
    assert metadata["step"] == 2
    trained, _ = load_parameters(whole / "checkpoints", step=1, ema=False)
    _assert_equal(trained, _state(1).params)
    assert isinstance(trained["blocks"]["q"], np.ndarray)


def test_a_run_without_average_says_so(tmp_path):
    writer = Checkpointer(tmp_path)
    writer.save(1, {"params": {"w": jnp.ones(3)}}, {})
    writer.close()
    with pytest.raises(KeyError, match="try ema=False"):
        load_parameters(tmp_path)


def test_another_model_is_refused_by_name(whole):
    writer = Checkpointer(whole / "checkpoints")
    with pytest.raises(CheckpointMismatch, match=r"blocks/q: found float32\[256, 128\], expected float32\[256, 32\]"):
        writer.restore(_abstract(_state(width=32)))
    smaller = _state()
    smaller.params.pop("scale")
    with pytest.raises(CheckpointMismatch, match="params/scale: in the checkpoint, unknown to this run"):
        writer.restore(_abstract(smaller))


def test_a_state_without_shardings_is_refused(whole):
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _state())
    with pytest.raises(TypeError, match="step: found no sharding"):
        Checkpointer(whole / "checkpoints").restore(abstract)


def test_a_flipped_bit_in_a_data_file_is_found(damaged):
    """Orbax restores such a step without a word (a wrong value); the problem is a checksum, not a reading error."""
    largest = max((damaged / "2/state").rglob("d/*"), key=lambda path: path.stat().st_size)
    _flip(largest, 4 * largest.stat().st_size)
    with pytest.raises(CheckpointCorrupted, match=r": found float32\[256, 128\] .*, expected float32") as caught:
        Checkpointer(damaged).restore(_abstract(_state()), step=2)
    assert caught.value.step == 2 and caught.value.other_steps == [1]
    assert len(verify(damaged, 2)) == 1 and not verify(damaged, 1)


@pytest.mark.parametrize("item", ["metadata", "checksums"])
def test_a_changed_character_in_the_json_is_found(damaged, item):
    path = damaged / "2" / item / "metadata"
    text = path.read_text()
    path.write_text(text.replace("ab", "ad", 1) if item == "metadata" else text.replace("float32", "float31", 1))
    assert verify(damaged) == [f"{item}/metadata: does not match its {'own ' * (item == 'checksums')}checksum"]
    with pytest.raises(CheckpointCorrupted):
        load_parameters(damaged)


@pytest.mark.parametrize("pattern", ["state/d/*", "state/ocdbt.process_0/d/*", "state/manifest.ocdbt", "*/metadata"])
def test_truncated_files_are_found(damaged, pattern):
    for path in (damaged / "2").glob(pattern):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointCorrupted, match=r"checkpoints/2 is damaged:(.|\n)*Other steps in .*: 1\."):
        Checkpointer(damaged).restore(_abstract(_state()), step=2)


def test_a_changed_bit_or_a_lost_end_of_any_file_of_a_sealed_step_is_found(sealed):
    files = sorted(path for path in (sealed / "2").rglob("*") if path.is_file())
    assert SEAL in {path.name for path in files} and len(files) > 8
    for number, path in enumerate(files):
        whole = path.read_bytes()
        if whole:
            _flip(path, (7919 * number) % (8 * len(whole)))
            assert verify(sealed, 2), path
            path.write_bytes(whole[: len(whole) // 2])
        else:
            path.write_bytes(b"x")
        assert verify(sealed, 2), path
        path.unlink()
        # A seal that is gone altogether is a step that was never sealed: its arrays still prove it.
        assert verify(sealed, 2) or path.name == SEAL, path
        path.write_bytes(whole)
    assert verify(sealed, 2) == []


def test_the_newest_whole_step_is_taken_with_a_loud_line_and_the_damaged_one_moved(sealed, capsys):
    _flip(next((sealed / "2/state/d").iterdir()), 100)
    writer = Checkpointer(sealed)
    state, metadata = writer.restore(_abstract(_state()))
    _assert_equal(state, _state(1))
    assert metadata["step"] == 1 and writer.newest == 1
    err = capsys.readouterr().err
    assert "WARNING" in err and "checkpoints/2 is damaged" in err and "CRC-32" in err and "going on from step 1" in err
    assert list_steps(sealed) == [1] and (sealed / "damaged" / "2" / "state").is_dir()
    # The run comes to that step again, and may even find it damaged again.
    writer.save(2, _state(2), METADATA)
    writer.close()
    assert verify(sealed, 2) == []
    _flip(next((sealed / "2/state/d").iterdir()), 100)
    Checkpointer(sealed).restore(_abstract(_state()))
    assert sorted(path.name for path in (sealed / "damaged").iterdir()) == ["2", "2-again"]


def test_a_step_in_another_steps_folder_is_damage(sealed):
    (sealed / "2").rename(sealed / "7")
    assert verify(sealed, 7) == ["holds step 2: the folder was renamed or copied"]
    _, metadata = Checkpointer(sealed).restore(_abstract(_state()))
    assert metadata["step"] == 1 and list_steps(sealed) == [1]


def test_none_whole_is_refused_again_and_again_and_nothing_is_moved(sealed):
    for step in ("1", "2"):
        _flip(next((sealed / step / "state/d").iterdir()), 100)
    (sealed / "1" / COMMITTED).unlink()
    for _ in range(2):
        with pytest.raises(
            NoWholeCheckpoint, match=r"none of the 2 saved steps in (.|\n)*  2: .*(.|\n)*  1: commit_success"
        ):
            Checkpointer(sealed).restore(_abstract(_state()))
    assert list_steps(sealed) == [1, 2] and not (sealed / "damaged").exists()


def test_a_kill_between_any_two_instants_of_a_save_leaves_a_step_that_is_whole_or_ignored(tmp_path):
    """Every file operation of Python's is an instant, and the native code's lie in between: before each of them the
    folder is copied as it stands, which is what a kill would leave."""
    folder, copies, instants = tmp_path / "checkpoints", tmp_path / "copies", []
    writer = Checkpointer(folder, CheckpointConfig(every=1, keep=2))
    writer.save(1, _state(1), METADATA)
    writer.save(2, _state(2), METADATA)
    writer.wait()

    def hook(event, arguments):
        # Other threads wait while one copies; what it opens for that is not an instant.
        if not recording or event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            return
        if str(folder) in str(arguments[0]) and not (event == "open" and arguments[1] == "r"):
            with copying:
                if not inside:
                    inside.append(True)
                    shutil.copytree(folder, copies / str(len(instants)), copy_function=copy_if_there)
                    instants.append(f"{event} {arguments[0]}")
                    inside.clear()

    def copy_if_there(source, target):
        with contextlib.suppress(FileNotFoundError):  # The native code's own temporary files come and go.
            shutil.copy2(source, target)

    copying, inside, recording = threading.RLock(), [], [True]
    sys.addaudithook(hook)  # For good: it costs the rest of the process a comparison.
    writer.save(3, _state(3), METADATA)
    writer.close()
    recording.clear()
    assert len(instants) > 10, instants
    seen = set()
    for number in range(len(instants)):
        copy = copies / str(number)
        steps = list_steps(copy)
        assert steps in ([1, 2], [1, 2, 3], [2, 3]), (number, instants[number], steps)
        assert [problem for step in steps for problem in verify(copy, step)] == [], (number, instants[number])
        seen.add(tuple(steps))
        again = Checkpointer(copy, CheckpointConfig(every=1, keep=2))
        state, _ = again.restore(_abstract(_state()))
        _assert_equal(state, _state(steps[-1]))
        again.save(4, _state(4), METADATA)
        again.close()
        assert list_steps(copy)[-1] == 4 and not list((copy / "trash").iterdir())
    assert seen >= {(1, 2), (2, 3)}, seen


def test_an_uncommitted_step_is_not_listed_and_is_cleared_by_the_next_writer(damaged):
    (damaged / "2" / COMMITTED).unlink()
    assert list_steps(damaged) == [1]
    _, metadata = load_parameters(damaged)
    assert metadata["step"] == 1
    assert (damaged / "2").exists()
    writer = Checkpointer(damaged)
    assert not (damaged / "2").exists()
    writer.save(2, _state(2), METADATA)
    writer.close()
    assert verify(damaged) == []


def test_a_strange_folder_is_left_alone(tmp_path):
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "photo.png").touch()
    with pytest.raises(FileExistsError, match="found .'photo.png'. in it"):
        Checkpointer(tmp_path)
    assert (tmp_path / "2024" / "photo.png").exists()


def test_the_hash_is_of_the_parameters_alone(tmp_path, whole):
    one = _saved(tmp_path / "one", 2)
    assert parameters_hash(one) == parameters_hash(whole, 2) != parameters_hash(whole, 1)
    other = _state(2)
    other.opt_state["adam"] = (jnp.zeros(3), ())
    writer = Checkpointer(tmp_path / "other")
    writer.save(9, other, {})
    writer.close()
    assert parameters_hash(tmp_path / "other") == parameters_hash(one)


def test_folders_that_hold_no_checkpoint_are_named(tmp_path, whole):
    assert str(find_checkpoints(whole)) == str(find_checkpoints(whole / "checkpoints")) == str(whole / "checkpoints")
    with pytest.raises(FileNotFoundError, match="is one step; give the folder above it"):
        find_checkpoints(whole / "checkpoints" / "2")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        find_checkpoints(tmp_path / "nowhere")
    (tmp_path / "photo.png").touch()
    with pytest.raises(FileNotFoundError, match="found photo.png; expected a checkpoints folder"):
        find_checkpoints(tmp_path)


def test_keys_that_would_be_ambiguous_are_refused():
    with pytest.raises(ValueError, match="expected keys that are not empty and have no '/'"):
        named_leaves({"a/b": jnp.ones(1)})


def test_a_configuration_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="config.checkpoint.keep: found 0"):
        CheckpointConfig(every=1, keep=0)
