"""A database with a project of six pictures."""

import pytest

from fooddit.rating.database import open_database
from fooddit.rating.records import Settings
from fooddit.rating.store import Store
from fooddit.standards import load_standard

KEYS = [f"dish-{number}" for number in range(6)]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'ratings.db'}"


@pytest.fixture
def store(url):
    return Store(open_database(url))


@pytest.fixture
def project(store):
    number = store.add_project("menu", "pictures", load_standard("photos"), settings=Settings(raters=2))
    store.add_items(number, [(key, [f"{key}.jpg"], {"caption": "一碗汤"}) for key in KEYS])
    store.open_round(number)
    return number


@pytest.fixture
def raters(store):
    return [store.rater(store.add_rater(name)).id for name in ("Ana", "明")]
