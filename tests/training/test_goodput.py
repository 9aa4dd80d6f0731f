"""The ledger: what is written, what it adds up to over kills and restarts, and what a damaged file costs."""

import json
import time

import pytest

from fooddit.training.goodput import Ledger, add_up, read_goodput


def line(run, time, seconds, steps=None):
    return {"run": run, "time": time, "seconds": seconds} | ({"steps": steps} if steps else {})


def test_phases_and_idle_time_add_up_to_the_whole():
    lines = [
        line("100.0-1", 110.0, {"init": 4.0, "compile": 6.0}, [0, 0]),
        line("100.0-1", 130.0, {"step": 18.0, "data_wait": 2.0}, [0, 90]),
        # Killed at some time after that; started again at 150.
        line("150.0-2", 160.0, {"init": 5.0, "restore": 5.0}),
        line("150.0-2", 170.0, {"step": 10.0}, [90, 140]),
    ]
    found = add_up(lines)
    assert found.total == 70 and found.starts == 2
    assert found.seconds["step"] == 28 and found.seconds["idle"] == 20 and found.seconds["redone"] == 0
    assert found.seconds["init"] == 9 and sum(found.seconds.values()) == pytest.approx(70)
    assert found.share == pytest.approx(28 / 70)


def test_steps_that_were_taken_again_do_not_count():
    lines = [
        line("0.0-1", 10.0, {"step": 10.0}, [0, 100]),
        line("0.0-1", 20.0, {"step": 10.0}, [100, 200]),
        line("0.0-1", 30.0, {"step": 10.0}, [200, 300]),
        # The checkpoint was of step 150: half of the second line is lost, and all of the third.
        line("30.0-2", 45.0, {"step": 15.0}, [150, 300]),
    ]
    found = add_up(lines)
    assert found.seconds["redone"] == 15 and found.seconds["step"] == 30 and found.total == 45


def test_a_restart_that_never_got_to_its_checkpoint_undoes_nothing():
    lines = [line("0.0-1", 10.0, {"step": 10.0}, [0, 100]), line("10.0-2", 12.0, {"init": 2.0})]
    assert add_up(lines).seconds["step"] == 10


def test_what_a_ledger_writes_is_what_is_read(tmp_path):
    path = tmp_path / "run" / "goodput.jsonl"
    ledger = Ledger(path, time.time() - 5)
    ledger.enter("restore")
    # At once: a process that is killed in its first seconds was started, too.
    assert read_goodput(path).starts == 1
    ledger.enter("step", 7)
    time.sleep(0.02)
    with ledger.during("save"):
        time.sleep(0.03)
    ledger.enter("step", 9)
    ledger.flush()
    found = read_goodput(path)
    assert found.seconds["init"] == pytest.approx(5, abs=0.2)
    assert found.seconds["step"] >= 0.02 and found.seconds["save"] >= 0.03 and found.starts == 1
    assert json.loads(path.read_text().splitlines()[-1])["steps"] == [7, 9]
    assert "goodput" in str(found) and "init" in str(found)
    assert found.to_dict()["share"] == round(found.share, 4)


def test_a_torn_line_is_left_out_and_the_next_one_stands_alone(tmp_path):
    path = tmp_path / "goodput.jsonl"
    whole = json.dumps(line("0.0-1", 10.0, {"step": 10.0}, [0, 100]))
    path.write_text(f'{whole}\n{{"run": "0.0-1", "ti')
    ledger = Ledger(path)
    ledger.enter("step", 100)
    assert len(path.read_text().splitlines()) == 3
    found = read_goodput(path)
    assert found.starts == 2 and found.seconds["step"] == pytest.approx(10, abs=0.1)


def test_no_ledger_is_none(tmp_path):
    assert read_goodput(tmp_path / "goodput.jsonl") is None
    Ledger().flush()


def test_a_line_that_cannot_be_written_stands_in_the_next_one(tmp_path):
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / "goodput.jsonl", time.time() - 3)
    ledger.flush()
    ledger.path = tmp_path / "goodput.jsonl"
    ledger.flush()
    assert read_goodput(tmp_path / "goodput.jsonl").seconds["init"] >= 3
