"""PyTorch's .pth files of tensors, read without torch and without running what a pickle may ask for."""

import collections
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from fooddit.models.weights import WeightsError

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# A pickle of names and shapes is small; a larger one is something else.
_LARGEST_PICKLE = 64 << 20


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file that torch.save (1.6 or later) wrote from a state_dict, by name.

    The pickle inside may name storages, tensors and ordered dicts, and nothing else: any other name in it is refused,
    so that a file from anywhere can be read.

    Raises:
      FileNotFoundError: no such file.
      WeightsError: another kind of file, or one that holds anything but a dict of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _tensors(archive, path)
    except (OSError, WeightsError):
        raise
    except Exception as error:  # A pickle is a program: it can fail in every way that Python can.
        raise WeightsError(
            f"{path}: expected a state_dict of tensors as torch.save writes it (torch 1.6 or later): {error}"
        ) from error


def _tensors(archive: zipfile.ZipFile, path) -> dict[str, np.ndarray]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1 or entries[pickles[0]].file_size > _LARGEST_PICKLE:
        raise ValueError("no data.pkl of a usual size in it")
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and archive.read(order) != b"little":
        raise ValueError("its numbers are big-endian")

    def storage(number: str, dtype) -> np.ndarray:
        entry = entries[f"{folder}data/{number}"]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename} is compressed, which torch never does")
        return np.frombuffer(archive.read(entry), dtype)

    with archive.open(pickles[0]) as file:
        found = _Unpickler(file, storage).load()
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} and no dict of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise WeightsError(
                f"{path}: expected tensors by name, found a {type(value).__name__} under {name!r}; save the "
                "state_dict alone"
            )
    return dict(found)


class _Unpickler(pickle.Unpickler):
    """Of what a pickle can name it knows the three things that a dict of tensors is made of."""

    def __init__(self, file, storage):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str):
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise WeightsError(f"a .pth file that names {module}.{name}: only tensors are read; save the state_dict alone")

    def persistent_load(self, pid):
        kind, name, number, _, _ = pid
        if kind != "storage" or name not in _STORAGES:
            raise ValueError(f"a reference to {pid}")
        return self._storage(number, np.dtype(_STORAGES[name]))


def _rebuild(storage, offset, shape, strides, *_) -> np.ndarray:
    """A tensor from its storage, copied: strides are in values."""
    if len(shape) != len(strides) or min((offset, *shape, *strides), default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides)) if 0 not in shape else offset - 1
    if last >= storage.size:
        raise ValueError(f"a tensor of shape {shape} that is longer than its storage of {storage.size} values")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, tuple(step * storage.itemsize for step in strides), writeable=False
    )
    # A stride of 0 could make terabytes of one value.
    if view.size > storage.size:
        raise ValueError(f"a tensor of shape {shape} of {storage.size} values")
    return np.array(view)
