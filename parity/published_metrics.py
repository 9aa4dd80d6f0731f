"""clean-fid 0.1.35 and torch-fidelity 0.4.0 as they are published, but without torchvision, which both import.

Nothing that is used of them calls it, and the one on PyPI does not run beside the CPU build of torch. They are in a
folder of their own (`pip install --no-deps --target .venv-parity/references -r parity/requirements-references.txt`),
because torch-fidelity's wheel installs a package `tests`, which would hide ours.
"""

import sys
import types
from contextlib import contextmanager
from pathlib import Path

REFERENCES = Path(sys.prefix) / "references"


class _Absent(types.ModuleType):
    """A module whose every attribute is there: an empty class if it is written as one, else another such module."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else _Absent(name)


@contextmanager
def _references_without_torchvision():
    names = ["torchvision", *(f"torchvision.{part}" for part in ("datasets", "transforms", "transforms.functional"))]
    added = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _Absent(name) for name in added})
    sys.path.append(str(REFERENCES))
    try:
        yield
    finally:
        sys.path.remove(str(REFERENCES))
        for name in added:
            del sys.modules[name]


with _references_without_torchvision():
    import cleanfid.fid
    import cleanfid.resize
    import torch_fidelity
    import torch_fidelity.metric_fid
    import torch_fidelity.metric_kid

__all__ = ["cleanfid", "torch_fidelity"]
