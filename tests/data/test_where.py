"""--where: values as a user writes them."""

import math

import pytest

from fooddit.data.where import Where

ROWS = [
    {"Shot": " finished", "ok": True, "n": 1.0, "tags": ["a", "辣"], "none": None},
    {"Shot": "cooking ", "ok": False, "n": 2, "tags": [], "none": math.nan},
]


@pytest.mark.parametrize(
    "wanted, kept",
    [
        ({"shot": "finished"}, [0]),
        ({" SHOT ": "cooking"}, [1]),
        ({"ok": "true"}, [0]),
        ({"n": "1"}, [0]),
        ({"n": "2"}, [1]),
        ({"tags": '["a", "辣"]'}, [0]),
        ({"none": ""}, [0, 1]),
        ({"ok": "false", "n": "2"}, [1]),
        ({}, [0, 1]),
    ],
)
def test_values_are_compared_as_they_are_written(wanted, kept):
    where = Where(wanted)
    assert [number for number, row in enumerate(ROWS) if where.keeps(row)] == kept
    assert where.problem() == ""


def test_what_keeps_nothing_says_what_there_is():
    where = Where({"Shot": "finnished"})
    assert not any(map(where.keeps, ROWS))
    assert where.problem() == "no row has shot=finnished; found in shot: finished, cooking"
    where = Where({"shoot": "x"})
    assert not any(map(where.keeps, ROWS))
    assert where.problem().startswith("no row has the column shoot; columns: n, none")
