"""Labels are added, never overwritten; nobody is given what others have done; nothing confirmed is lost."""

import subprocess
import sys
import threading
import uuid

import pytest

from fooddit.rating.database import open_database
from fooddit.rating.label_values import LabelError
from fooddit.rating.records import RatingError, Settings
from fooddit.rating.store import Store
from fooddit.standards import load_standard
from tests.rating.conftest import KEYS

PHOTOS = load_standard("photos")


def levels(level: int = 2, **changes) -> dict:
    return {"levels": dict.fromkeys(PHOTOS.subs, level) | changes}


def rate(store, project, rater, level=2, kind="levels", values=None):
    """Rates the next item; its key."""
    asked = store.next_item(project, rater)
    store.give(project, rater, asked.round, asked.item, str(uuid.uuid4()), kind, values or levels(level))
    return asked.key


def test_each_item_is_rated_by_as_many_as_are_wanted_and_by_nobody_twice(store, project, raters):
    third = store.rater(store.add_rater("Bo")).id
    seen = {rater: [rate(store, project, rater) for _ in KEYS] for rater in raters}
    assert all(sorted(keys) == KEYS for keys in seen.values()) and seen[raters[0]] != seen[raters[1]]
    assert [store.next_item(project, rater) for rater in (*raters, third)] == [None] * 3
    assert len(store.given(project)) == 2 * len(KEYS)


def test_what_is_on_a_screen_stays_there_and_others_get_other_items_first(store, project, raters):
    first = store.next_item(project, raters[0])
    assert store.next_item(project, raters[0]) == first
    assert (first.round, first.kind, first.about, first.left) == (1, "first", {"caption": "一碗汤"}, 6)
    others = {rate(store, project, raters[1]) for _ in KEYS[1:]}
    assert first.key not in others
    # When nothing else is left it is given, too.
    assert store.next_item(project, raters[1]).key == first.key


def test_a_lease_that_ran_out_keeps_nothing(store):
    project = store.add_project("quick", "pictures", PHOTOS, settings=Settings(raters=1, lease_seconds=0.0))
    store.add_items(project, [("a", ["a.jpg"], {})])
    store.open_round(project)
    one, other = (store.rater(store.add_rater(name)).id for name in ("one", "other"))
    assert store.next_item(project, one).key == store.next_item(project, other).key == "a"


def test_a_change_of_mind_is_another_revision_and_undo_brings_the_item_back(store, project, raters):
    asked = store.next_item(project, raters[0])
    say = lambda kind, values: store.give(project, raters[0], 1, asked.item, str(uuid.uuid4()), kind, values)
    assert say("levels", levels(1)).revision == 1 and say("levels", levels(3)).revision == 2
    assert [label.values["levels"]["form.whole"] for label in store.given(project)] == [3]
    assert store.last_given(project, raters[0]).item == asked.item
    assert say("withdrawn", {}).revision == 3
    assert store.given(project) == [] and store.last_given(project, raters[0]) is None
    assert asked.key in {rate(store, project, raters[0]) for _ in KEYS}


def test_a_label_that_is_sent_again_is_one_label(store, project, raters):
    asked, id = store.next_item(project, raters[0]), str(uuid.uuid4())
    give = lambda item, rater: store.give(project, rater, 1, item, id, "levels", levels())
    assert give(asked.item, raters[0]) == give(asked.item, raters[0])
    assert len(store.given(project)) == 1
    with pytest.raises(RatingError, match="is there already, and is another one"):
        give(asked.item, raters[1])


def test_a_skipped_item_has_its_reason_and_is_not_asked_again(store, project, raters):
    key = rate(store, project, raters[0], kind="skip", values={"reason": "not a dish"})
    assert [(label.key, label.values) for label in store.given(project)] == [(key, {"reason": "not a dish"})]
    assert key not in {rate(store, project, raters[0]) for _ in KEYS[1:]}


def test_a_second_round_asks_again_what_it_is_about_and_keeps_the_first(store, project, raters):
    keys = [rate(store, project, rater) for rater in raters for _ in KEYS]
    assert store.open_round(project, "again", {keys[0]: {"light.exposure": [1, 3]}}) == 2
    asked = store.next_item(project, raters[0])
    assert (asked.key, asked.round, asked.kind, asked.why) == (keys[0], 2, "again", {"light.exposure": [1, 3]})
    with pytest.raises(RatingError, match="round 1 is closed; your label was not kept"):
        store.give(project, raters[0], 1, asked.item, str(uuid.uuid4()), "levels", levels(1))
    # Asked again are those who said it.
    assert store.next_item(project, store.rater(store.add_rater("Bo")).id) is None
    rate(store, project, raters[0], level=3)
    assert len(store.given(project, 1)) == 12 and len(store.given(project, 2)) == 1 and len(store.given(project)) == 13


def test_what_is_not_of_the_round_or_the_standard_is_refused(store, project, raters):
    asked = store.next_item(project, raters[0])
    give = lambda item, kind, values: store.give(project, raters[0], 1, item, str(uuid.uuid4()), kind, values)
    with pytest.raises(RatingError, match="item 999 is not of round 1"):
        give(999, "levels", levels())
    with pytest.raises(LabelError, match="kind: found 'pair', but the project is of levels"):
        give(asked.item, "pair", {"better": 1})
    with pytest.raises(ValueError, match="light.exposure: found level 4; expected a whole number from 1 to 3"):
        give(asked.item, "levels", levels(**{"light.exposure": 4}))
    assert store.given(project) == []


def test_pairs_have_two_pictures_and_one_is_better_or_none(store, raters):
    project = store.add_project("pairs", "pictures", PHOTOS, mode="pairs")
    with pytest.raises(RatingError, match="item 'a': found 1 pictures, expected 2"):
        store.add_items(project, [("a", ["a.jpg"], {})])
    store.add_items(project, [("ab", ["a.jpg", "b.jpg"], {}), ("cd", ["c.jpg", "d.jpg"], {})])
    store.open_round(project)
    rate(store, project, raters[0], kind="pair", values={"better": 1})
    rate(store, project, raters[0], kind="pair", values={"better": None})
    assert sorted(str(label.values["better"]) for label in store.given(project)) == ["1", "None"]


def test_items_may_be_added_again_but_not_changed(store, project):
    rows = [(key, [f"{key}.jpg"], {}) for key in KEYS]
    assert store.add_items(project, rows) == 0 and store.add_items(project, [*rows, ("new", ["n.jpg"], {})]) == 1
    with pytest.raises(RatingError, match=r"item 'dish-0' is there already, with \['dish-0.jpg'\]; now it has"):
        store.add_items(project, [("newer", ["n.jpg"], {}), ("dish-0", ["other.jpg"], {})])
    assert store.add_items(project, [("newer", ["n.jpg"], {})]) == 1


def test_names_and_tokens(store, project):
    token = store.add_rater("Li", "lead")
    assert store.rater(token).role == "lead" and store.rater(token + "x") is None
    with pytest.raises(RatingError, match="a rater named 'Li' is there already"):
        store.add_rater("Li")
    with pytest.raises(RatingError, match="a project named 'menu' is there already"):
        store.add_project("menu", "x", PHOTOS)
    store.shut_out("Li")
    assert store.rater(token) is None
    with pytest.raises(RatingError, match="no rater named 'Lo'"):
        store.shut_out("Lo")


def test_the_token_itself_is_nowhere_on_the_disk(store, tmp_path):
    token = store.add_rater("Li")
    assert all(token.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_eight_raters_at_once_do_each_item_twice(store, url):
    project = store.add_project("busy", "pictures", PHOTOS, settings=Settings(raters=2))
    store.add_items(project, [(str(number), [f"{number}.jpg"], {}) for number in range(40)])
    store.open_round(project)
    people, wrong = [store.rater(store.add_rater(f"r{number}")).id for number in range(8)], []

    def work(rater):
        own = Store(open_database(url))
        try:
            while (asked := own.next_item(project, rater)) is not None:
                own.give(project, rater, asked.round, asked.item, str(uuid.uuid4()), "levels", levels())
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(rater,)) for rater in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    given = store.given(project)
    counts = [sum(label.key == str(number) for label in given) for number in range(40)]
    # Towards the end, when all that is left is on somebody's screen, an item is given to more than are needed.
    assert min(counts) == 2 and sorted(counts)[len(counts) // 2] == 2
    assert len({(label.key, label.rater) for label in given}) == len(given)


CRASH = """
import os, sys, uuid
from fooddit.rating.database import open_database
from fooddit.rating.store import Store
from tests.rating.test_store import levels
store = Store(open_database(sys.argv[1]))
while (asked := store.next_item(1, 1)) is not None:
    label = store.give(1, 1, asked.round, asked.item, str(uuid.uuid4()), "levels", levels())
    print(label.id, flush=True)
    if int(sys.argv[2]) == asked.left:
        os.kill(os.getpid(), 9)
"""


def test_what_was_confirmed_before_a_kill_is_there(store, project, raters, url):
    killed = subprocess.run([sys.executable, "-c", CRASH, url, "3"], capture_output=True, text=True)
    assert killed.returncode == -9
    assert {label.id for label in store.given(project)} == set(killed.stdout.split())
    assert len(killed.stdout.split()) == 4 and store.next_item(project, raters[0]).left == 2
