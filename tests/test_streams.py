"""Standard streams that are missing, or whose reader leaves."""

import os
import subprocess
import sys

OUTLIVING = """
import sys
from fooddit.streams import open_streams, outlive_readers
open_streams()
outlive_readers()
sys.stdin.readline()
for stream in (sys.stdout, sys.stderr):
    for _ in range(10):
        print("x" * 10_000, file=stream, flush=True)
    print("left in the buffer", file=stream)
open(sys.argv[1], "w").write(f"went on {sys.stdout.isatty()}")
"""


def went_on(path, **streams) -> None:
    process = subprocess.Popen([sys.executable, "-c", OUTLIVING, str(path)], stdin=subprocess.PIPE, **streams)
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait() == 0
    assert path.read_text() == "went on False"


def test_a_closed_pipe_ends_nothing(tmp_path):
    went_on(tmp_path / "file", stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_full_disk_behind_them_ends_nothing(tmp_path):
    with open("/dev/full", "w") as full:
        went_on(tmp_path / "file", stdout=full, stderr=full)


def test_what_was_closed_at_the_start_is_the_null_device(tmp_path):
    code = (
        "import os, sys\nfrom fooddit.streams import open_streams\nopen_streams()\n"
        "print('to nobody', flush=True)\nprint('to nobody', file=sys.stderr, flush=True)\n"
        "file = open(sys.argv[1], 'w')\nfile.write(str(file.fileno() > 2))"
    )
    close = lambda: [os.close(number) for number in (0, 1, 2)]
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "file"], preexec_fn=close).returncode == 0
    assert (tmp_path / "file").read_text() == "True"
