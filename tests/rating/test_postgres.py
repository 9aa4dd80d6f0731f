"""The same store on a real PostgreSQL server, which is started for the test where Debian's package is installed."""

import glob
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path

import pytest

from fooddit.rating.database import open_database
from fooddit.rating.records import Settings
from fooddit.rating.store import Store
from tests.rating.test_database import test_the_migrations_make_the_tables_as_they_are_declared as migrations_fit
from tests.rating.test_store import PHOTOS, levels

PROGRAMS = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)), "")
pytestmark = [
    pytest.mark.skipif(not PROGRAMS, reason="needs Debian's postgresql"),
    pytest.mark.xdist_group("postgresql"),
]


@pytest.fixture(scope="module")
def server():
    """The server's address; it refuses to run as root."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="fooddit-postgres-"))
    shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        asked = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
        command = [*asked, f"{PROGRAMS}/{program}", *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    data = str(folder / "data")
    run("initdb", "-D", data, "-A", "trust", "-U", "fooddit", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200"
    run("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
    yield f"postgresql+psycopg://fooddit@127.0.0.1:{port}"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def url(server):
    from sqlalchemy import create_engine, text

    name = f"test_{uuid.uuid4().hex[:8]}"
    with create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return f"{server}/{name}"


def test_the_migrations_make_the_tables(url):
    migrations_fit(url)


def test_twelve_raters_at_once_do_each_item_and_a_label_sent_by_all_at_once_is_one(url):
    store = Store(open_database(url))
    project = store.add_project("busy", "pictures", PHOTOS, settings=Settings(raters=3))
    store.add_items(project, [(f"{number:02}", [f"{number}.jpg"], {"caption": "汤"}) for number in range(30)])
    store.open_round(project)
    people, wrong = [store.rater(store.add_rater(f"r{number}")).id for number in range(12)], []

    def work(rater):
        try:
            while (asked := store.next_item(project, rater)) is not None:
                id = str(uuid.uuid4())
                for _ in range(2):
                    store.give(project, rater, asked.round, asked.item, id, "levels", levels(), 1.5)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(rater,)) for rater in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    given = store.given(project)
    counts = [sum(label.key == f"{number:02}" for label in given) for number in range(30)]
    # Towards the end, when all that is left is on somebody's screen, an item is given to more than are needed.
    assert min(counts) == 3 and sorted(counts)[len(counts) // 2] == 3
    assert len({(label.key, label.rater) for label in given}) == len(given)
    assert all(label.revision == 1 for label in given)


def test_hostile_texts_and_numbers_are_kept_or_refused(url):
    from starlette.testclient import TestClient

    from fooddit.rating.server import application

    store = Store(open_database(url))
    project = store.add_project("hostile", "pictures", PHOTOS, settings=Settings(raters=1))
    store.add_items(project, [("a", ["a.jpg"], {})])
    store.open_round(project)
    headers = {"Authorization": f"Bearer {store.add_rater('Ana')}", "Content-Type": "application/json"}
    page = TestClient(application(store, ("localhost",)), base_url="http://localhost", headers=headers)
    asked = page.post("/api/projects/1/next", json={}).json()["asked"]
    values = levels() | {"note": "'; DROP TABLE label; --\x00\ud800 汤"}
    label = {"id": str(uuid.uuid4()), "round": 1, "item": asked["item"], "kind": "levels", "seconds": 1}
    give = lambda **changes: page.post(
        "/api/projects/1/labels", content=json.dumps(label | {"values": values} | changes).encode()
    )
    for wrong in ({"item": 2**40}, {"item": 10**30}, {"round": 2**40}):
        assert give(**wrong).status_code in (409, 422)
    assert page.get(f"/api/projects/{2**40}").status_code in (409, 422)
    assert give().status_code == 201
    assert [given.values["note"] for given in store.given(project)] == ["'; DROP TABLE label; -- 汤"]


def test_undo_rounds_and_times(url):
    store = Store(open_database(url))
    project = store.add_project("菜单", "pictures", PHOTOS, settings=Settings(raters=1))
    store.add_items(project, [("a", ["a.jpg"], {})])
    store.open_round(project)
    rater = store.rater(store.add_rater("明")).id
    asked = store.next_item(project, rater)
    store.give(project, rater, 1, asked.item, str(uuid.uuid4()), "levels", levels())
    assert store.last_given(project, rater).created.endswith("+00:00")
    store.give(project, rater, 1, asked.item, str(uuid.uuid4()), "withdrawn", {})
    assert store.given(project) == [] and store.next_item(project, rater).key == "a"
    assert store.open_round(project, "model", {"a": {"light.colour": [2, 3]}}) == 2
    assert store.next_item(project, rater).why == {"light.colour": [2, 3]}
