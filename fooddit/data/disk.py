"""A full disk, said in one line: where, how much is free, and what to do."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# ArrayRecord raises a RuntimeError with the system's words in it.
_FULL = re.compile("No space left on device|Disk quota exceeded")


@contextlib.contextmanager
def naming_full_disk(folder: Path, advice: str) -> Iterator[None]:
    """Within it, any library's error about a full disk or quota is an OSError that names `folder` and gives advice."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and not _FULL.search(str(error)):
            raise
        raise OSError(_message(folder, advice)) from error


def require_free(folder: Path, needed: int, advice: str) -> None:
    """Raises that OSError before anything is written when fewer than `needed` bytes are free."""
    if shutil.disk_usage(folder).free < needed:
        raise OSError(_message(folder, advice, f", {needed / 1e6:,.1f} MB needed"))


def _message(folder: Path, advice: str, needed: str = "") -> str:
    return f"{folder}: the disk is full ({shutil.disk_usage(folder).free / 1e6:,.1f} MB free{needed}); {advice}"
