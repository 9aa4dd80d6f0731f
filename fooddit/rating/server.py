"""The pages' server: who asks, what they may see, and labels on their way to the store."""

import ipaddress
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DataError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fooddit.rating.label_values import LabelError
from fooddit.rating.records import RatingError
from fooddit.rating.store import Store
from fooddit.rating.tables import Rater
from fooddit.standards import as_values

_PAGE = Path(__file__).parent / "page"
# A label of fifty boxes with notes is 40 kB; nothing larger is read.
MAX_BODY = 256 * 1024
# Of a picture file: larger ones are for curation to make smaller.
MAX_PICTURE = 20 * 1024 * 1024
PICTURES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
# No script, style or picture but our own; nobody frames the page; names of files are no types.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(store: Store, hosts: tuple[str, ...], alone: int | None = None) -> Starlette:
    """The server's application.

    Args:
      hosts: names that it may be asked by (of the Host header, without a port); another one is a page elsewhere that
        found its way to a loopback address.
      alone: the rater that whoever asks without a token is; only for a loopback address, see `check_address`.
    """
    pages = _Pages(store, alone)
    routes = [
        Route("/", pages.page),
        Route("/page/{name}", pages.page),
        Route("/api/start", pages.start),
        Route("/api/projects/{project:int}", pages.project),
        Route("/api/projects/{project:int}/next", pages.next, methods=["POST"]),
        Route("/api/projects/{project:int}/labels", pages.give, methods=["POST"]),
        Route("/api/projects/{project:int}/undo", pages.undo, methods=["POST"]),
        Route("/api/projects/{project:int}/pictures/{item:int}/{number:int}", pages.picture),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, hosts=hosts)],
        exception_handlers={
            HTTPException: lambda request, error: _said(error.detail, error.status_code),
            LabelError: lambda request, error: _said(str(error), 422),
            RatingError: lambda request, error: _said(str(error), 409),
            ValueError: lambda request, error: _said(str(error), 422),
            # Numbers that no item of any database has.
            OverflowError: lambda request, error: _said(str(error), 422),
            DataError: lambda request, error: _said("a number or text that the database cannot hold", 422),
        },
    )


def check_address(host: str, alone: bool) -> None:
    """RatingError for an address that others reach where whoever comes is let in."""
    if alone and not is_loopback(host):
        raise RatingError(
            f"--host {host} can be reached by others, and without tokens whoever comes may rate; add raters "
            "(fooddit rate add-rater), or leave --host away"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Guard:
    """In front of everything: by which name and from which page it is asked, how much is sent, and our own headers."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope["method"], headers)

        async def with_headers(message):
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await (refused or self._app)(scope, _Limited(receive), with_headers)

    def _refused(self, method: str, headers: dict[str, str]) -> Response | None:
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
        if name not in self._hosts:
            return _said(f"asked by the name {name!r}, expected one of {', '.join(self._hosts)}", 421)
        origin = headers.get("origin")
        if method != "GET" and origin is not None and origin.partition("://")[2] != host:
            return _said(f"another page ({origin}) may not send anything here", 403)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return _said(f"more than {MAX_BODY:,} bytes: not read", 413)
        return None


class _Limited:
    """A body that ends with an error where it is longer than it may be, whatever its header says."""

    def __init__(self, receive: Receive):
        self._receive, self._read = receive, 0

    async def __call__(self):
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > MAX_BODY:
            raise HTTPException(413, f"more than {MAX_BODY:,} bytes: not read")
        return message


class _Pages:
    """What is asked for; those that are not `async` run in threads, as they wait for the database."""

    def __init__(self, store: Store, alone: int | None):
        self._store, self._alone = store, alone

    def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        path = _PAGE / name
        if path.parent != _PAGE or not path.is_file():
            raise HTTPException(404, "no such page")
        return FileResponse(path)

    def start(self, request: Request) -> Response:
        rater = self._rater(request)
        projects = [asdict(project) for project in self._store.projects()]
        return JSONResponse({"rater": rater.name, "role": rater.role, "projects": projects})

    def project(self, request: Request) -> Response:
        self._rater(request)
        project = request.path_params["project"]
        return JSONResponse({"standard": as_values(self._store.standard(project))})

    def next(self, request: Request) -> Response:
        rater, project = self._rater(request), request.path_params["project"]
        asked = self._store.next_item(project, rater.id)
        done = self._store.count_given(project, rater.id)
        return JSONResponse({"asked": None if asked is None else asdict(asked), "done": done})

    async def give(self, request: Request) -> Response:
        body = await _json(request, ("id", "round", "item", "kind", "values", "seconds"))
        return await run_in_threadpool(self._give, request, body)

    def _give(self, request: Request, body: dict[str, Any]) -> Response:
        rater = self._rater(request)
        for name in ("round", "item"):
            if type(body[name]) is not int:
                raise LabelError(f"{name}: found {body[name]!r:.60}, expected a whole number")
        given = self._store.give(request.path_params["project"], rater.id, **body)
        return JSONResponse({"label": given.id, "revision": given.revision}, 201)

    async def undo(self, request: Request) -> Response:
        body = await _json(request, ("id",))
        return await run_in_threadpool(self._undo, request, body)

    def _undo(self, request: Request, body: dict[str, Any]) -> Response:
        rater, project = self._rater(request), request.path_params["project"]
        last = self._store.last_given(project, rater.id)
        if last is None:
            raise RatingError("there is nothing to undo in this round")
        self._store.give(project, rater.id, last.round, last.item, body["id"], "withdrawn", {})
        return JSONResponse({"asked": asdict(self._store.ask(project, rater.id, last.item)), "label": asdict(last)})

    def picture(self, request: Request) -> Response:
        self._rater(request)
        path = self._store.picture(*(request.path_params[name] for name in ("project", "item", "number")))
        kind = PICTURES.get(path.suffix.lower())
        if kind is None or not path.is_file():
            raise HTTPException(404, f"{path.name}: no picture")
        if path.stat().st_size > MAX_PICTURE:
            raise HTTPException(413, f"{path.name}: larger than {MAX_PICTURE:,} bytes")
        return FileResponse(path, media_type=kind)

    def _rater(self, request: Request) -> Rater:
        """Whose token it is. 401 for a stranger."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        rater = self._store.rater(token) if scheme.lower() == "bearer" and token else None
        if rater is None and self._alone is not None and not token:
            rater = self._store.rater_by_id(self._alone)
        if rater is None:
            raise HTTPException(401, "the token is unknown; ask your lead for yours")
        return rater


async def _json(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """The object that was sent, which has these keys and no other one."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "expected application/json")
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"no JSON: {error}") from error
    if not isinstance(body, dict) or set(body) != set(names):
        raise HTTPException(422, f"expected an object with {', '.join(names)}")
    return body


def _said(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status)
