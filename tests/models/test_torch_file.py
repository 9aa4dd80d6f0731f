import pickle
import zipfile

import numpy as np
import pytest

from fooddit.models.torch_file import read_torch
from fooddit.models.weights import WeightsError
from parity.autoencoders_made import write_torch

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5, -2], np.float16)}


def test_tensors_come_by_name_with_their_types(tmp_path):
    write_torch(tmp_path / "a.pth", TENSORS)
    found = read_torch(tmp_path / "a.pth")
    assert list(found) == list(TENSORS)
    for name, expected in TENSORS.items():
        assert found[name].dtype == expected.dtype and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], expected)


class Attack:
    """What a pickle from a stranger may do: run a command when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def replace_pickle(path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)


def test_a_pickle_that_names_anything_else_is_refused_and_nothing_runs(tmp_path):
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    replace_pickle(path, pickle.dumps({"weight": Attack(witness)}))
    with pytest.raises(WeightsError, match=r"names (posix|nt)\.system: only tensors are read"):
        read_torch(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(Attack(witness)))
    assert witness.exists(), "the attack would have worked"


@pytest.mark.parametrize("name", ["builtins.eval", "torch._utils._rebuild_parameter", "torch.load", "numpy.load"])
def test_names_near_those_that_are_known_are_refused(name, tmp_path):
    module, _, function = name.rpartition(".")
    replace_pickle(tmp_path / "a.pth", b"\x80\x02c" + f"{module}\n{function}\n".encode() + b".")
    with pytest.raises(WeightsError, match=f"names {name}"):
        read_torch(tmp_path / "a.pth")


def tensor(shape: tuple, strides: tuple, offset: int = 0) -> dict:
    """A file's bytes with one tensor of 6 values and this layout."""

    class Tensor:
        def __reduce__(self):
            return rebuild, (Storage(), offset, shape, strides, False, {})

    class Storage:
        pass

    def rebuild():
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, thing):
            return ("storage", Half, "0", "cpu", 6) if isinstance(thing, Storage) else None

        def save_global(self, thing, name=None):
            known = {rebuild: b"torch._utils\n_rebuild_tensor_v2\n", Half: b"torch\nHalfStorage\n"}
            self.write(pickle.GLOBAL + known[thing])

        dispatch = pickle._Pickler.dispatch | {type(rebuild): save_global, type: save_global}

    class Half:
        pass

    import io

    out = io.BytesIO()
    Pickler(out, 2).dump({"x": Tensor()})
    return out.getvalue()


@pytest.mark.parametrize(
    "shape, strides, offset, expected",
    [
        ((2, 3), (3, 1), 0, [[0, 1, 2], [3, 4, 5]]),
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),
        ((2,), (2,), 1, [1, 3]),
        ((), (), 4, 4),
        ((0, 3), (3, 1), 0, []),
    ],
)
def test_views_are_read_as_torch_lays_them_out(shape, strides, offset, expected, tmp_path):
    replace_pickle(tmp_path / "a.pth", tensor(shape, strides, offset))
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr("archive/data/0", np.arange(6, dtype=np.float16).tobytes())
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pth")["x"], np.reshape(expected, shape))


@pytest.mark.parametrize(
    "shape, strides, offset",
    [((7,), (1,), 0), ((2, 3), (4, 1), 0), ((2,), (1,), 5), ((2,), (-1,), 3), ((10**9,), (0,), 0), ((2, 3), (1,), 0)],
)
def test_views_beyond_their_storage_are_refused(shape, strides, offset, tmp_path):
    replace_pickle(tmp_path / "a.pth", tensor(shape, strides, offset))
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr("archive/data/0", np.arange(6, dtype=np.float16).tobytes())
    with pytest.raises(WeightsError, match="a tensor of shape"):
        read_torch(tmp_path / "a.pth")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "none.pth")
    for name, data in (("text", b"nothing"), ("old", pickle.dumps({"a": 1})), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match=f"{name}: expected a state_dict of tensors"):
            read_torch(tmp_path / name)
    replace_pickle(tmp_path / "numbers", pickle.dumps({"step": 3}))
    with pytest.raises(WeightsError, match="found a int under 'step'; save the state_dict alone"):
        read_torch(tmp_path / "numbers")
    replace_pickle(tmp_path / "list", pickle.dumps([1]))
    with pytest.raises(WeightsError, match="a list and no dict of tensors"):
        read_torch(tmp_path / "list")


def test_a_compressed_storage_is_refused(tmp_path):
    # A few kilobytes that unpack to gigabytes.
    write_torch(tmp_path / "a.pth", TENSORS)
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(WeightsError, match="is compressed"):
        read_torch(tmp_path / "b.pth")
