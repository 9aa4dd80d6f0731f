"""Runs a command on a small disk and then again when there is room: python full_disk.py DISK OUT SIZE COMMAND...

In a mount namespace of its own (unshare --map-root-user --mount): DISK becomes a tmpfs of SIZE, which is copied to
OUT/0 and OUT/1 after the two runs, beside OUT/result.json.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

disk, out, size, *command = sys.argv[1:]
Path(disk).mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", disk], check=True)
results = []
for number in range(2):
    done = subprocess.run(command, capture_output=True, text=True)
    results.append({"code": done.returncode, "out": done.stdout, "err": done.stderr})
    shutil.copytree(disk, Path(out) / str(number))
    subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
Path(out, "result.json").write_text(json.dumps(results))
