"""main.py in a process that fails on purpose: python child.py SCENARIO.json FLAGS...

SCENARIO: {"ids": file that gets "STEP INDEX:HASH INDEX:HASH ..." for every batch that is drawn,
           "once": file whose presence says that the fault has been: only the first start has it,
           "process": which of several processes what follows is for, all if it is missing; each has an ids file,
           "signal": number, "phase": name, "nth": which entry into that phase, "delay": seconds after it,
           "hang_at": position at which the input pipeline never answers,
           "step_seconds": how long a batch is waited for,
           "blind": whether nobody looks how much room the disk has}; what is missing is not done.
"""

import hashlib
import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
scenario = json.loads(Path(sys.argv.pop(1)).read_text())
# Of --distributed=HOST:PORT,COUNT,INDEX.
process = next((int(flag.rsplit(",", 1)[1]) for flag in sys.argv if flag.startswith("--distributed=")), None)
if process is not None:
    scenario["ids"] += f".{process}"
if scenario.get("process", process) != process or ("once" in scenario and Path(scenario["once"]).exists()):
    scenario = {"ids": scenario["ids"]}
elif "once" in scenario:
    Path(scenario["once"]).touch()


def signal_in_phase() -> None:
    from fooddit.training.goodput import Ledger

    entered, enter = [], Ledger.enter

    def counting(self, phase, step=None):
        enter(self, phase, step)
        if phase == scenario["phase"]:
            entered.append(phase)
            if len(entered) == scenario.get("nth", 1):
                arguments = (os.getpid(), scenario["signal"])
                threading.Timer(scenario.get("delay", 0.0), os.kill, arguments).start()

    Ledger.enter = counting


def watch_batches() -> None:
    from fooddit.data.positions import PositionBatches
    from fooddit.training.supervisor import Supervisor

    draw, enter, supervisors = PositionBatches.__next__, Supervisor.__enter__, []

    def entering(self):
        supervisors.append(self)
        return enter(self)

    Supervisor.__enter__ = entering

    def drawing(self):
        if self.position == scenario.get("hang_at") and self.fingerprint["split"] == "train":
            # From here on a second is long; before, compiling on a busy machine may take its time.
            for supervisor in supervisors:
                supervisor._hang_seconds = 1.0
            time.sleep(3600)
        batch = draw(self)
        if self.fingerprint["split"] != "train":
            return batch
        time.sleep(scenario.get("step_seconds", 0.0))
        rows = zip(*(batch[name] for name in ("index", "record", "text")), strict=True)
        found = [f"{row[0]}:{hashlib.sha256(b''.join(x.tobytes() for x in row)).hexdigest()[:16]}" for row in rows]
        with open(scenario["ids"], "a") as file:
            file.write(f"{self.position} {' '.join(found)}\n")
        return batch

    PositionBatches.__next__ = drawing


sys.path.insert(0, str(ROOT))
if "phase" in scenario:
    signal_in_phase()
watch_batches()
if scenario.get("blind"):
    from fooddit.training.checkpoint import Checkpointer

    Checkpointer._check_room = lambda self, leaves: None
sys.argv[0] = str(ROOT / "main.py")
runpy.run_path(sys.argv[0], run_name="__main__")
