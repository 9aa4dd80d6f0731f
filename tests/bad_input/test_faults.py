"""`fooddit prepare` under a full disk, kill -9 and a second start; what it keeps in memory for a row."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

import fooddit.data.spool
from fooddit.cli import main
from fooddit.data.captions import Caption
from fooddit.data.duplicates import components, near_duplicates
from fooddit.data.images import encode_png
from fooddit.data.prepare import prepare
from fooddit.data.rows import CatalogueError, Rejection, Row
from fooddit.data.spool import fill_spool
from tests.data.made import picture

SIZE, COUNT = 64, 40


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    """Forty pictures, 300 kB of PNG."""
    root = tmp_path_factory.mktemp("faults") / "menu"
    root.mkdir()
    rows = [{"file_name": f"{number}.png", "title": f"dish {number}"} for number in range(COUNT)]
    for number, row in enumerate(rows):
        (root / row["file_name"]).write_bytes(encode_png(picture(number, SIZE, SIZE)))
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def expected(menu, tmp_path_factory):
    """Every file of the folder that an undisturbed run makes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(str(menu), out, progress=False)
    return contents(out)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


# A disk of some kilobytes that this process alone sees. ArrayRecord says only at its end that it was full: the third
# start has room for the first pass only and is not told so beforehand.
FULL_DISK = """
set -e
mkdir -p {disk}; mount -t tmpfs -o size=200k small {disk}
run() {{ {python} -c "import fooddit.data.prepare as p; $1; from fooddit.cli import main; exit(main({command}))" \
    > /dev/null 2>> {log} || echo exit $? >> {log}; ls -A {disk} >> {log}; }}
run pass
mount -o remount,size=500k {disk}; run pass
run "p.require_free = lambda *_: None"
mount -o remount,size=4m {disk}; run pass
cp -r {disk}/out {copy}
"""


def test_a_full_disk_is_one_line_and_the_same_command_completes_it(menu, expected, tmp_path):
    namespace = ["unshare", "--map-root-user", "--mount"]
    probe = [*namespace, "sh", "-c", f"mount -t tmpfs -o size=64k small {tmp_path}"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs a disk of its own: user namespaces with mount are not allowed here")
    disk, log = tmp_path / "disk", tmp_path / "log"
    command = ["prepare", str(menu), str(disk / "out")]
    names = {"disk": disk, "log": log, "copy": tmp_path / "copy", "python": sys.executable, "command": command}
    script = [*namespace, "bash", "-c", FULL_DISK.format(**names)]
    subprocess.run(script, check=True, env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
    lines = [line for line in log.read_text().splitlines() if line and "%|" not in line]
    errors, rest = lines[:6:2], lines[1::2]
    for error in errors:
        assert error.startswith("fooddit prepare: ") and "the disk is full (" in error, lines
        assert "run the same command again" in error
    assert "MB needed" in errors[1] and "MB needed" not in errors[0] + errors[2]
    assert rest == ["exit 2"] * 3 and lines[6:] == ["out"], lines
    assert contents(tmp_path / "copy") == expected


@pytest.mark.parametrize(
    "moment",
    [
        "import fooddit.data.spool as m; name = 'normalize_picture'; count = 20",
        "import fooddit.data.spool as m; name = 'decode_record'; count = 20",
        "import fooddit.data.card as m; name = 'write_contact_sheet'; count = 1",
    ],
    ids=["first pass", "second pass", "card"],
)
def test_kill_9_and_the_same_command_completes_it(moment, menu, expected, tmp_path):
    code = f"""
import itertools, os, signal
{moment}
real, calls = getattr(m, name), itertools.count(1)
def kill(*arguments):
    if next(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(m, name, kill)
from fooddit.data.prepare import prepare
prepare({str(menu)!r}, {str(tmp_path / "out")!r}, progress=False)
"""
    assert python(code, env={"PYTHONPATH": ":".join(sys.path)}).returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    prepare(str(menu), tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and contents(tmp_path / "out") == expected


def test_a_second_prepare_of_the_same_folder_is_refused(menu, expected, tmp_path, monkeypatch, capsys):
    real, calls, codes = fooddit.data.spool.normalize_picture, itertools.count(), []

    def meanwhile(*arguments):
        if next(calls) == 10:
            codes.append(main(["prepare", str(menu), str(tmp_path / "out")]))
        return real(*arguments)

    monkeypatch.setattr(fooddit.data.spool, "normalize_picture", meanwhile)
    prepare(str(menu), tmp_path / "out", progress=False, threads=1)
    assert codes == [2] and contents(tmp_path / "out") == expected
    error = capsys.readouterr().err
    assert (
        error
        == f"fooddit prepare: {tmp_path / 'out'}: another fooddit prepare is writing it; wait, or choose another OUT\n"
    )


def test_places_that_cannot_be_written_are_refused_before_any_work(menu, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    places = {
        "/proc": "a mount point cannot be replaced; choose a folder inside of it",
        "/proc/out": "/proc",
        "ftp://host/records": "no store of that kind is known",
        str(tmp_path / "file"): "exists already",
        str(tmp_path / "file/out"): f"{tmp_path / 'file'} is a file, expected a folder",
        str(tmp_path / "link"): "exists already",
    }
    for out, message in places.items():
        assert main(["prepare", str(menu), out]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, error


class Endless:
    """A catalogue of `count` rows, one in three rejected."""

    name = "endless"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        for number in range(self.count):
            if number % 3:
                data = encode_png(np.full((16, 16, 3), number % 255, np.uint8))
                yield Row(f"{number}.png", f"dish {number}", lambda data=data: data, (Caption("soup", "short", "en"),))
            else:
                yield Rejection(f"metadata.jsonl:{number}", "file missing", f"{number}.png")


def test_a_row_is_kept_in_250_bytes(tmp_path):
    """Memory grows with the rows, not with pictures, captions or rejections: a million rows are 250 MB."""
    sizes = []
    for count in (300, 3000):
        tracemalloc.start()
        options = {"size": None, "where": {}, "seed": 0, "threads": 2, "progress": False}
        spool = fill_spool(Endless(count), tmp_path / "spool", **options)
        sizes.append((tracemalloc.get_traced_memory()[0], len(spool.lengths)))
        tracemalloc.stop()
        assert spool.rejections.counts == {"file missing": count // 3}
    (small, few), (large, many) = sizes
    assert (large - small) / (many - few) < 290


def test_a_placeholder_downloaded_ten_thousand_times_is_one_group():
    hashes, thumbnails = np.zeros(10_000, np.uint64), np.zeros((10_000, 192), np.uint8)
    thumbnails[-1] = 255
    began = time.perf_counter()
    pairs = near_duplicates(hashes, thumbnails)
    assert len(pairs) == 9_998 and time.perf_counter() - began < 5
    assert np.bincount(components(np.arange(10_000), pairs)).tolist() == [9_999, 1]


def test_a_strangers_folder_beside_out_is_left_alone(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is in the way and holds other files"):
        prepare("scenes:2", tmp_path / "out", size=16, holdout=0, progress=False)
    assert (tmp_path / ".out.partial/mine.txt").read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path, number):
    code = (
        "import signal, sys\nfrom fooddit.cli import main\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "sys.exit(main(['prepare', 'scenes:100000', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={"PYTHONPATH": ":".join(sys.path)})
    spool = tmp_path / ".out.partial/spool"
    while not (spool.exists() and spool.stat().st_size):
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written_costs_no_dataset(tmp_path):
    command = [sys.executable, "-m", "fooddit", "prepare", "scenes:2", str(tmp_path / "out"), "--holdout", "0"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and f"but {tmp_path / 'out'} is complete" in done.stderr
        command[5] = str(tmp_path / "other")
        assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full).returncode == 0


def test_a_name_that_is_no_utf8_is_refused_before_any_work(tmp_path):
    with pytest.raises(CatalogueError, match=r"OUT '.*caf\\udce9': not UTF-8 at place \d+; rename it"):
        prepare("scenes:2", tmp_path / "caf\udce9")
    with pytest.raises(CatalogueError, match="SOURCE .*: not UTF-8"):
        prepare(str(tmp_path / "caf\udce9"), tmp_path / "out")
