"""The server: who may ask, from where, and that hostile input is refused while nothing is lost."""

import json
import uuid

import pytest
from PIL import Image
from starlette.testclient import TestClient

from fooddit.rating.database import open_database
from fooddit.rating.records import RatingError, Settings
from fooddit.rating.server import MAX_BODY, application, check_address, is_loopback
from fooddit.rating.store import Store
from fooddit.standards import load_standard
from tests.rating.test_store import levels

HOST = "http://localhost:8300"
HOSTILE = "../<img src=x onerror=alert(1)>.jpg"


@pytest.fixture
def store(url, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (8, 8), "red").save(pictures / name)
    (pictures / "notes.txt").write_text("hidden words")
    (tmp_path / "secret.jpg").write_bytes(b"hidden words")
    store = Store(open_database(url))
    project = store.add_project("menu", str(pictures), load_standard("photos"), settings=Settings(raters=2))
    store.add_items(
        project,
        [
            ("a", ["a.jpg"], {"caption": "<script>alert(1)</script> & 汤"}),
            ("b", ["b.png"], {}),
            ("t", ["notes.txt"], {}),
        ],
    )
    store.add_items(project, [("up", ["../secret.jpg"], {}), ("gone", ["gone.jpg"], {})])
    store.open_round(project)
    return store


@pytest.fixture
def tokens(store):
    return [store.add_rater(name) for name in ("Ana", "明")]


def client(store, token: str | None = None, **options) -> TestClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return TestClient(application(store, ("localhost", "::1"), **options), base_url=HOST, headers=headers)


def label(asked, **changes) -> dict:
    found = {"id": str(uuid.uuid4()), "round": asked["round"], "item": asked["item"], "kind": "levels"}
    return found | {"values": levels(), "seconds": 2.5} | changes


def ask(page: TestClient) -> dict:
    return page.post("/api/projects/1/next", json={}).json()["asked"]


def test_a_rater_rates_undoes_and_is_told_how_much_is_left(store, tokens):
    page = client(store, tokens[1])
    assert page.get("/api/start").json() == {
        "rater": "明",
        "role": "rater",
        "projects": [{"id": 1, "name": "menu", "mode": "levels", "round": 1}],
    }
    assert page.get("/api/projects/1").json()["standard"]["id"] == "photos"
    asked = ask(page)
    answer = page.post("/api/projects/1/labels", json=label(asked))
    assert answer.status_code == 201 and answer.json()["revision"] == 1
    found = page.post("/api/projects/1/next", json={}).json()
    assert found["done"] == 1 and found["asked"]["left"] == 4 and found["asked"]["item"] != asked["item"]
    back = page.post("/api/projects/1/undo", json={"id": str(uuid.uuid4())}).json()
    assert back["asked"]["item"] == asked["item"] and back["label"]["values"]["levels"] == levels()["levels"]
    assert ask(page)["item"] == asked["item"] and store.given(1) == []
    again = page.post("/api/projects/1/undo", json={"id": str(uuid.uuid4())})
    assert again.status_code == 409 and again.json() == {"error": "there is nothing to undo in this round"}


def test_strangers_see_nothing(store, tokens):
    for page in (client(store), client(store, "wrong"), client(store, tokens[0] + "x")):
        for path in ("/api/start", "/api/projects/1", "/api/projects/1/pictures/1/0"):
            assert page.get(path).status_code == 401
        assert page.post("/api/projects/1/next", json={}).status_code == 401
    store.shut_out("Ana")
    assert client(store, tokens[0]).get("/api/start").status_code == 401
    # The page itself holds nothing.
    assert client(store).get("/").status_code == 200


def test_alone_on_a_loopback_address_no_token_is_needed(store, tokens):
    ana = store.rater(tokens[0]).id
    assert client(store, alone=ana).get("/api/start").json()["rater"] == "Ana"
    assert client(store, "wrong", alone=ana).get("/api/start").status_code == 401
    check_address("127.0.0.1", alone=True)
    check_address("0.0.0.0", alone=False)
    for host in ("0.0.0.0", "192.168.1.5", "::", "rating.example.com"):
        assert not is_loopback(host)
        with pytest.raises(RatingError, match="can be reached by others, and without tokens whoever comes may rate"):
            check_address(host, alone=True)
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.5.5.5", "::1")))


def test_another_page_or_name_is_refused(store, tokens):
    page = client(store, tokens[0])
    asked = ask(page)
    for origin in ("http://evil.example", "null", "http://localhost:9999", "https://evil.example/localhost:8300"):
        answer = page.post("/api/projects/1/labels", json=label(asked), headers={"Origin": origin})
        assert answer.status_code == 403 and "another page" in answer.json()["error"]
    assert page.get("/api/start", headers={"Host": "evil.example:8300"}).status_code == 421
    assert page.post("/api/projects/1/labels", json=label(asked), headers={"Origin": HOST}).status_code == 201
    assert (
        "access-control-allow-origin" not in page.get("/api/start", headers={"Origin": "http://evil.example"}).headers
    )


def test_pictures_are_the_projects_own(store, tokens):
    page = client(store, tokens[0])
    kinds = [page.get(f"/api/projects/1/pictures/{item}/0").headers.get("content-type") for item in (1, 2)]
    assert kinds == ["image/jpeg", "image/png"]
    expected = {"1/1": 409, "3/0": 404, "4/0": 409, "5/0": 404, "99/0": 409, "1/-1": 404}
    for path, status in expected.items():
        answer = page.get(f"/api/projects/1/pictures/{path}")
        assert answer.status_code == status and b"hidden" not in answer.content, path
    assert "outside the project's folder" in page.get("/api/projects/1/pictures/4/0").json()["error"]
    assert page.get("/api/projects/2/pictures/1/0").status_code == 409


def test_a_picture_that_is_too_large_is_not_sent(store, tokens, monkeypatch):
    monkeypatch.setattr("fooddit.rating.server.MAX_PICTURE", 10)
    assert client(store, tokens[0]).get("/api/projects/1/pictures/1/0").status_code == 413


@pytest.mark.parametrize(
    "path", ["/page/../server.py", "/page/..%2fserver.py", "/page/none.js", "/page/%2e%2e/store.py"]
)
def test_pages_are_the_page_folders(store, path):
    assert client(store).get(path).status_code == 404


def test_every_answer_forbids_what_a_page_needs_not(store, tokens):
    for path in ("/", "/page/rate.js", "/api/start", "/none", "/api/projects/1/pictures/1/0"):
        headers = client(store, tokens[0]).get(path).headers
        assert (
            "script-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
        )


BAD = {
    "no JSON": (b"{", 400),
    "deep": (b"[" * 20_000, 400),
    "a list": (b"[]", 422),
    "a key more": (b'{"id": "12345678", "more": 1}', 422),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_label_is_refused(store, tokens, name):
    body, status = BAD[name]
    page = client(store, tokens[0])
    answer = page.post("/api/projects/1/labels", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status and "error" in answer.json()
    assert page.post("/api/projects/1/labels", content=body).status_code == 415
    assert store.given(1) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 5},
        {"id": "short"},
        {"id": "x" * 37},
        {"id": "<script>"},
        {"item": "1"},
        {"item": 10**30},
        {"round": True},
        {"round": 10**30},
        {"kind": 3},
        {"values": None},
        {"seconds": -1},
        {"seconds": True},
        {"seconds": "NaN"},
    ],
    ids=str,
)
def test_fields_of_another_type_are_refused(store, tokens, changes):
    page = client(store, tokens[0])
    asked = ask(page)
    assert page.post("/api/projects/1/labels", json=label(asked, **changes)).status_code == 422
    assert page.post("/api/projects/1/labels", json=label(asked)).status_code == 201


def test_numbers_that_no_database_has_are_refused(store, tokens):
    page = client(store, tokens[0])
    asked = ask(page)
    content = json.dumps(label(asked, seconds=float("nan"))).encode()
    kind = {"Content-Type": "application/json"}
    assert page.post("/api/projects/1/labels", content=content, headers=kind).status_code == 422
    for path in (f"/api/projects/{10**30}", f"/api/projects/1/pictures/{10**30}/0"):
        assert page.get(path).status_code == 422
    assert page.post("/api/projects/1/undo", json={"id": "x"}).status_code == 409
    assert store.history(1) == []


def test_fifty_megabytes_are_not_read(store, tokens):
    page = client(store, tokens[0])
    kind = {"Content-Type": "application/json"}
    read = []

    def endless():
        for _ in range(50):
            read.append(1)
            yield b" " * 2**20

    answer = page.post("/api/projects/1/labels", content=b" " * (MAX_BODY + 1), headers=kind)
    assert answer.status_code == 413
    assert page.post("/api/projects/1/labels", content=endless(), headers=kind).status_code == 413


def test_hostile_texts_are_kept_as_they_are(store, tokens):
    page = client(store, tokens[0])
    asked = ask(page)
    values = levels() | {"note": HOSTILE + "\x00\ud800"}
    content = json.dumps(label(asked, values=values)).encode()
    answer = page.post("/api/projects/1/labels", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert store.given(1)[0].values["note"] == HOSTILE
