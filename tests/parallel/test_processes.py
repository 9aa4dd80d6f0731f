"""How processes find each other and what they tell each other; whole runs of several are in tests/faults."""

import json

import pytest

from fooddit.config import ConfigError
from fooddit.parallel.processes import Group, any_process, from_first, join, wait_for_all


class Store:
    """The part of JAX's coordination client that a group uses."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


@pytest.mark.parametrize(
    "where", ["nowhere", "host,2,0", "host:1,2", "host:1,2,2", "host:1,two,0", "host:1,0,0", "host:1,2,-1"]
)
def test_where_the_others_are_has_one_form(where):
    with pytest.raises(ConfigError, match="expected auto or HOST:PORT,COUNT,INDEX with INDEX from 0 to COUNT - 1"):
        join(where)


def test_a_process_that_is_one_of_several_does_not_train_alone(monkeypatch):
    join("")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    join("")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    with pytest.raises(ConfigError, match="SLURM_NTASKS=8 says .* one of several.*--distributed=auto"):
        join("")


def test_notes_are_of_a_name_and_a_process():
    store = Store()
    first, second = (Group(store, i, 2) for i in range(2))
    assert first.told("at") == {}
    first.tell("at", 3)
    second.tell("at", None)
    second.tell("failed", [1, "菜谱.jsonl, row 7"])
    assert first.told("at") == {0: 3, 1: None} and second.told("failed") == {1: [1, "菜谱.jsonl, row 7"]}
    first.tell("at", 4)
    assert second.told("at") == {0: 4, 1: None}
    assert not first.told_by_all("failed", 0.1)
    first.tell("failed", [1, ""])
    assert first.told_by_all("failed", 0.1)
    assert all(json.loads(value) is not ... for value in store.values.values())


def test_one_process_has_nobody_to_ask():
    assert Group.joined() is None
    assert any_process(True) and not any_process(False)
    assert from_first(lambda: {"answer": 42}) == {"answer": 42}
    wait_for_all("nobody")
