"""A Google Cloud Storage of the tests' own: an emulator on loopback that gcsfs and tensorstore both talk to.

A test module with the line `pytest_plugins = ["tests.gcs"]` has the fixture `gcs`: a fresh bucket, `gcs.url` its gs://
address. One server and one port serve a whole test process, because tensorstore and epath read the address once.
"""

import importlib.util
import itertools
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import server
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

_PACKAGES = {"gcsfs": "gcsfs", "gcp_storage_emulator": "gcp-storage-emulator"}


class Bucket:
    """url: gs://NAME, without a slash at its end; requests: "METHOD /path" of all that was asked since it was made."""

    def __init__(self, name: str, store: "Store"):
        self.url, self._store, self._first = f"gs://{name}", store, len(store.requests)

    @property
    def requests(self) -> list[str]:
        return self._store.requests[self._first :]

    def outage(self):
        """While it lasts, nobody listens."""
        return self._store.outage()

    def forbidden(self, *requests: str):
        """While it lasts, requests that hold one of these texts, as "POST", are answered 403; all of them if none."""
        return self._store.forbidden(requests or ("",))


class Store:
    """The emulator: all objects in memory, the same port after an outage."""

    def __init__(self):
        from gcp_storage_emulator.handlers import buckets
        from gcp_storage_emulator.storage import Storage

        self.requests: list[str] = []
        self._refused: tuple[str, ...] = ()
        self._storage, self._create = Storage(use_memory_fs=True), buckets.create_bucket
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = _Quiet(("127.0.0.1", self.port), partial(_handler(self), self._storage))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def create(self, bucket: str) -> Bucket:
        self._create(bucket, self._storage)
        return Bucket(bucket, self)

    def answers(self, request: str) -> bool:
        """Takes note of a request and says whether to answer it."""
        self.requests.append(request)
        return not any(text in request for text in self._refused)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def forbidden(self, requests: tuple[str, ...]) -> Iterator[None]:
        self._refused = requests
        try:
            yield
        finally:
            self._refused = ()


class _Quiet(server.HTTPServer):
    # Clients that have what they want hang up before the answer's end.
    def handle_error(self, request, client_address) -> None:
        pass


def _handler(store: Store) -> type:
    """The emulator's, with object generations, which it leaves out: tensorstore writes on condition of what it read."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.server import RequestHandler

    class Handler(RequestHandler):
        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            found = re.search("/b/([^/]+)/o(?:/(.+))?$", url.path)
            self._object = found and (found[1], unquote(found[2] or query.get("name", [""])[0]))
            if not store.answers(f"{self.command} {self.path}"):
                return self._refuse(403)
            if "ifGenerationMatch" in query and query["ifGenerationMatch"][0] != self._generation():
                return self._refuse(412)
            return True

        def end_headers(self) -> None:
            if self.command == "GET" and self._object and (generation := self._generation()) != "0":
                self.send_header("x-goog-generation", generation)
            super().end_headers()

        def log_message(self, format, *args) -> None:
            pass

        def _generation(self) -> str:
            try:
                return self.storage.get_file_obj(*self._object)["generation"]
            except NotFound:
                return "0"

        def _refuse(self, status: int) -> bool:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_error(status)
            return False

    return Handler


@pytest.fixture(scope="session")
def gcs_store(tmp_path_factory) -> Iterator[Store]:
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: pip install -e '.[test,gcs]'")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    store = Store()
    url = f"http://127.0.0.1:{store.port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
        # Nobody's credentials are looked for, on the disk or at the machine's metadata server: access is anonymous.
        patch.setenv("GCE_METADATA_ROOT", url.removeprefix("http://"))
        patch.setenv("CLOUDSDK_CONFIG", str(tmp_path_factory.mktemp("no-credentials")))
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "test")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield store
    store.stop()


_numbers = itertools.count()


@pytest.fixture
def gcs(gcs_store: Store) -> Bucket:
    """A fresh bucket. Its name is new in each test: gcsfs remembers listings by it."""
    return gcs_store.create(f"bucket-{next(_numbers)}")


@pytest.fixture
def impatient_gcs(gcs: Bucket, monkeypatch) -> Bucket:
    """The same, with a gcsfs that tries as often as ever and does not wait between its tries (half a minute)."""
    import asyncio
    from types import SimpleNamespace

    import gcsfs.retry

    monkeypatch.setattr(gcsfs.retry, "asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0)))
    return gcs
