from dataclasses import dataclass, field

import pytest

from fooddit.config import OPERATIONAL, ConfigError, build, describe, differences, to_dict


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    on: bool = False

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"inner.rate must not be negative, found {self.rate}")


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 10
    inner: Inner = field(default_factory=Inner)


def error(values) -> str:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values)
    return str(caught.value)


def test_what_is_given_replaces_the_defaults_and_the_rest_stays():
    assert build(Outer, {"name": "a", "inner": {"on": True}}) == Outer("a", 10, Inner(on=True))


def test_an_unknown_key_is_named_with_its_path_and_the_nearest_known_one():
    assert error({"name": "a", "stpes": 3}) == "config.stpes: unknown key; did you mean config.steps?"
    assert error({"name": "a", "inner": {"ratte": 1.0}}) == (
        "config.inner.ratte: unknown key; did you mean config.inner.rate?"
    )
    assert error({"name": "a", "qqq": 3}) == "config.qqq: unknown key; known: name, steps, inner"


def test_a_missing_key_is_named_with_its_type():
    assert error({}) == "config.name: missing; expected str"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"name": 3}, "config.name: expected str, found 3 (int)"),
        ({"steps": 1.5}, "config.steps: expected int, found 1.5 (float)"),
        ({"steps": True}, "config.steps: expected int, found True (bool)"),
        ({"steps": None}, "config.steps: expected int, found None (NoneType)"),
        ({"inner": 3}, "config.inner: expected Inner, found 3 (int)"),
        ({"inner": {"rate": "fast"}}, "config.inner.rate: expected float, found 'fast' (str)"),
        ({"inner": {"rate": True}}, "config.inner.rate: expected float, found True (bool)"),
        ({"inner": {"rate": float("nan")}}, "config.inner.rate: expected a finite number, found nan"),
        ({"inner": {"rate": float("inf")}}, "config.inner.rate: expected a finite number, found inf"),
        ({"inner": {"on": 1}}, "config.inner.on: expected bool, found 1 (int)"),
        ({"inner": {"sizes": 3}}, "config.inner.sizes: expected tuple[int, ...], found 3 (int)"),
        ({"inner": {"sizes": (1, "b")}}, "config.inner.sizes[1]: expected int, found 'b' (str)"),
    ],
)
def test_a_value_of_another_type_is_shown(values, message):
    assert error({"name": "a", **values}) == message


def test_a_value_that_its_dataclass_refuses_is_an_error_of_that_path():
    assert error({"name": "a", "inner": {"rate": -1.0}}) == (
        "config.inner: inner.rate must not be negative, found -1.0"
    )


def test_all_errors_come_at_once():
    lines = error({"stpes": 3, "steps": "many", "inner": {"rate": -1.0, "onn": True}}).splitlines()
    assert lines[0] == "the config has 4 errors:"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {
        "config.stpes",
        "config.name",
        "config.steps",
        "config.inner.onn",
    }
    both = error({"name": 1, "inner": {"rate": -1.0}}).splitlines()
    assert both[0] == "the config has 2 errors:" and "must not be negative" in both[2]


def test_an_int_is_a_float_and_a_list_is_a_tuple():
    inner = build(Outer, {"name": "a", "inner": {"rate": 1, "sizes": [3, 4, 5]}}).inner
    assert inner.rate == 1.0 and isinstance(inner.rate, float)
    assert inner.sizes == (3, 4, 5)


def test_to_dict_and_build_are_inverses():
    experiment = Outer("a", 3, Inner(0.25, (7,), True))
    assert to_dict(experiment) == {"name": "a", "steps": 3, "inner": {"rate": 0.25, "sizes": (7,), "on": True}}
    assert build(Outer, to_dict(experiment)) == experiment


def test_describe_gives_path_type_and_value_of_every_key():
    assert list(describe(Outer("a"))) == [
        "config.name: str = 'a'",
        "config.steps: int = 10",
        "config.inner.rate: float = 0.5",
        "config.inner.sizes: tuple[int, ...] = (1, 2)",
        "config.inner.on: bool = False",
    ]


@dataclass(frozen=True)
class Run(Outer):
    threads: int = field(default=2, metadata=OPERATIONAL)
    shown: Inner = field(default_factory=Inner, metadata=OPERATIONAL)


def test_differences_name_what_changed_and_leave_out_what_does_not_matter():
    saved = to_dict(Run("a"))
    assert differences(saved, Run("a", threads=8, shown=Inner(rate=9.0))) == {}
    assert differences(saved, Run("b", inner=Inner(rate=9.0))) == {
        "config.name": ("a", "b"),
        "config.inner.rate": (0.5, 9.0),
    }


def test_differences_know_tuples_that_went_through_json_and_keys_that_are_newer_than_the_checkpoint():
    saved = to_dict(Run("a"))
    saved["inner"]["sizes"] = [1, 2]
    del saved["inner"]["on"]
    assert differences(saved, Run("a")) == {}
    assert differences(saved, Run("a", inner=Inner(on=True))) == {"config.inner.on": (False, True)}
