"""The folder that a command's results go to."""

import tempfile
from pathlib import Path


def require_writable(folder: Path) -> None:
    """Raises OSError now rather than when the first result is written: hours may lie between."""
    if folder == Path():
        raise NotADirectoryError("--out: found nothing or '.', expected the name of a folder for what is made")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"--out {folder}: {existing} is a file, expected a folder")
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise OSError(f"--out {folder}: {existing} cannot be written to ({error.strerror}); choose another") from error
