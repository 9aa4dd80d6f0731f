"""Fifty raters at once by HTTP: how fast the rating server answers, and whether every confirmed label is there.

    python benchmarks/rating_load.py [--raters 50] [--items 500] [--database URL]

The server is `fooddit rate serve` in a process of its own, its database SQLite in a file unless a URL is given. Every
rater asks for an item and gives a label, as fast as the server lets them, until nothing is left: a load that people,
who look at pictures meanwhile, come to only in hundreds. Printed: labels a second, latency of both requests, and lost
and doubled labels, which must be none.
"""

import argparse
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fooddit.rating.database import open_database
from fooddit.rating.records import Settings
from fooddit.rating.store import Store
from fooddit.standards import load_standard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--database", default="", metavar="URL", help="an empty database (default: a new SQLite file)")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        url = arguments.database or f"sqlite:///{Path(folder) / 'ratings.db'}"
        store, standard = Store(open_database(url)), load_standard("generated")
        project = store.add_project("load", folder, standard, settings=Settings(raters=3))
        store.add_items(project, [(f"{number:05}", [f"{number}.jpg"], {}) for number in range(arguments.items)])
        store.open_round(project)
        tokens = [store.add_rater(f"rater {number}") for number in range(arguments.raters)]
        port, server = serve(url)
        try:
            started = time.perf_counter()
            confirmed, waits = work(port, tokens, standard)
            seconds = time.perf_counter() - started
        finally:
            server.terminate()
            server.wait()
        kept = [label.id for label in store.given(project)]
    lost, doubled = len(set(confirmed) - set(kept)), len(kept) - len(set(kept))
    print(f"{arguments.raters} raters, {len(confirmed)} labels of {arguments.items} items in {seconds:.1f} s: "
          f"{len(confirmed) / seconds:.0f} labels/s")  # fmt: skip
    for name, found in waits.items():
        middle, late, last = np.quantile(found, [0.5, 0.95, 1.0])
        print(f"{name}: median {1000 * middle:.0f} ms, 95 % {1000 * late:.0f} ms, slowest {1000 * last:.0f} ms")
    print(f"lost {lost}, doubled {doubled}, kept beyond those confirmed {len(set(kept) - set(confirmed))}")
    sys.exit(bool(lost or doubled))


def serve(url: str) -> tuple[int, subprocess.Popen]:
    """The port of a server that answers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fooddit", "rate", "serve", "--database", url, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return port, server
        except OSError:
            if server.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.1)


def work(port: int, tokens: list[str], standard) -> tuple[list[str], dict[str, list[float]]]:
    """Ids of the labels that the server confirmed, and seconds that each request took."""
    confirmed: list[str] = []
    waits: dict[str, list[float]] = {"next item": [], "label": []}
    levels = {"levels": dict.fromkeys(standard.subs, 3), "boxes": [], "note": ""}

    def rate(token: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

        def post(name: str, path: str, body: dict) -> dict:
            started = time.perf_counter()
            connection.request("POST", f"/api/projects/1/{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            waits[name].append(time.perf_counter() - started)
            if answer.status >= 400:
                raise RuntimeError(f"{path}: {answer.status} {said}")
            return said

        while (asked := post("next item", "next", {})["asked"]) is not None:
            label = {"id": str(uuid.uuid4()), "kind": "levels", "values": levels, "seconds": 1.0}
            said = post("label", "labels", label | {name: asked[name] for name in ("round", "item")})
            confirmed.append(said["label"])

    threads = [threading.Thread(target=rate, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return confirmed, waits


if __name__ == "__main__":
    main()
