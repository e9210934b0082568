"""The server of the paint page: one worker, a token in every address, nothing loaded from or sent to anywhere else."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import RunFailed, UserError
from pipeline.pages.style import BASE
from pipeline.paint import answers, uploads
from pipeline.paint.answers import Ask, AttentionAsk, OverlayAsk
from pipeline.paint.saving import save
from pipeline.paint.studio import Studio

PAGE = Path(__file__).with_name("page")
FILES = {
    "": (PAGE / "paint.html", "text/html"),
    "base.css": (BASE, "text/css"),
    "paint.css": (PAGE / "paint.css", "text/css"),
    **{f"{name}.js": (PAGE / f"{name}.js", "text/javascript") for name in ("common", "map", "paint", "pixels")},
}
LOOPBACK = ("127.0.0.1", "localhost")
MAX_BODY = 2 * uploads.MAX_BYTES + 65_536  # a photo and its label map
MOST_PAGES = 32  # whose newest request is remembered
# The page takes nothing from elsewhere, sends nothing elsewhere, and does not tell its address, which holds the token.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
T = TypeVar("T")


class Desk:
    """The one worker that the studio belongs to, and the newest request of each page."""

    def __init__(self, studio: Studio, out: Path) -> None:
        self.studio, self.out = studio, out
        # A thread counts torch's threads for itself.
        self._worker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))
        self._newest: dict[str, int] = {}

    async def do(self, work: Callable[[], T]) -> T:
        """Result of `work`, done by the worker in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def newest(self, ask: Ask, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """As `do`; a request that a newer one of its page has overtaken before its turn is dropped, unanswered.

        What has begun is finished: a page that asks faster than runs draw still sees pictures.
        """
        self._newest[ask.page] = max(ask.number, self._newest.pop(ask.page, 0))
        if len(self._newest) > MOST_PAGES:
            del self._newest[next(iter(self._newest))]

        def unless_overtaken() -> dict[str, Any]:
            if self._newest.get(ask.page, 0) > ask.number:
                return {"number": ask.number, "overtaken": True}
            return work()

        return await self.do(unless_overtaken)


class Gate:
    """Lets addresses pass that begin with the token; all others are not found."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        first, slash, rest = scope["path"].lstrip("/").partition("/")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        if not secrets.compare_digest(first.encode(), self.token.encode()):
            await PlainTextResponse("no such page: the address ends with the token that paint printed", 404)(
                scope, receive, guarded
            )
        elif not slash:
            await RedirectResponse(f"/{first}/")(scope, receive, guarded)
        else:
            path = f"/{rest}"
            await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, guarded)


def application(studio: Studio, out: Path, token: str, *, hosts: tuple[str, ...] = LOOPBACK) -> ASGIApp:
    """The page and its answers. `hosts`: names under which browsers may ask for it."""
    desk = Desk(studio, out)

    async def facts(request: Request) -> Response:
        return JSONResponse(await desk.do(partial(answers.facts, studio)))

    async def photo(request: Request) -> Response:
        name = request.query_params.get("name", "")
        return JSONResponse(await desk.do(partial(answers.photo_facts, studio, name)))

    async def pictures(request: Request) -> Response:
        ask = answers.read(Ask, await _body(request))
        return JSONResponse(await desk.newest(ask, partial(answers.pictures, studio, ask)))

    async def attention(request: Request) -> Response:
        ask = answers.read(AttentionAsk, await _body(request))
        return JSONResponse(await desk.do(partial(answers.attention, studio, ask)))

    async def overlay(request: Request) -> Response:
        ask = answers.read(OverlayAsk, await _body(request))
        return JSONResponse(await desk.do(partial(answers.overlay, studio, ask)))

    async def keep(request: Request) -> Response:
        ask = answers.read(Ask, await _body(request))
        path = await desk.do(lambda: save(studio, answers.scene_of(studio, ask), out))
        return JSONResponse({"path": str(path), "command": f"python -m pipeline edit --from {path}"})

    async def label(request: Request) -> Response:
        data, name = await _body(request), request.query_params.get("name", "")
        read = await desk.do(partial(uploads.read_label, studio, data, name))
        return JSONResponse({"label": answers.packed(read), "name": name})

    async def style(request: Request) -> Response:
        data = await _body(request)
        return JSONResponse(await desk.do(partial(_keep_style, studio, dict(request.query_params), data)))

    routes = [
        *(Route(f"/{name}", partial(_file, path, kind)) for name, (path, kind) in FILES.items()),
        Route("/facts", facts),
        Route("/photo", photo),
        Route("/pictures", pictures, methods=["POST"]),
        Route("/attention", attention, methods=["POST"]),
        Route("/overlay", overlay, methods=["POST"]),
        Route("/save", keep, methods=["POST"]),
        Route("/label", label, methods=["POST"]),
        Route("/style", style, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        exception_handlers={UserError: _refused, RunFailed: _refused},
    )
    return Gate(app, token)


def serve(studio: Studio, out: Path, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until interrupted; `announce` is told the address. UserError where the port is taken."""
    token = secrets.token_urlsafe(18)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # before the address is told: whoever is quick waits, and is not refused
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    hosts = LOOPBACK if host in LOOPBACK else ("*",)
    app = application(studio, out, token, hosts=hosts)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
    announce(f"http://{host}:{listener.getsockname()[1]}/{token}/")
    uvicorn.Server(config).run(sockets=[listener])


async def _file(path: Path, kind: str, request: Request) -> Response:
    return Response(path.read_bytes(), media_type=kind)


def _keep_style(studio: Studio, said: dict[str, str], data: bytes) -> dict[str, Any]:
    """An uploaded style photo; `said` names it, and where its label map is: a file behind it, another photo's, or painted."""
    size, kind = said.get("bytes", ""), said.get("label", "")
    if not size.isdecimal() or int(size) > len(data):
        raise UserError(f"request: bytes={size!r} is not a length within {len(data)}")
    photo, rest = (said.get("name", ""), data[: int(size)]), data[int(size) :]
    label: tuple[str, bytes] | np.ndarray
    if kind == "file":
        label = (said.get("label_name", ""), rest)
    elif kind == "painted":
        label = answers.decoded(studio, rest.decode("ascii", errors="replace"))
    else:
        label = studio.photo(kind).label
    return answers.photo_facts(studio, studio.keep(uploads.read_style(studio, photo, label)))


async def _body(request: Request) -> bytes:
    """The request's body, refused as soon as it is longer than any honest one."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise UserError(
                f"request of more than {MAX_BODY / 1e6:.0f} MB; files may have {uploads.MAX_BYTES / 1e6:.0f} MB each"
            )
    return bytes(data)


async def _refused(request: Request, error: Exception) -> Response:
    """A mistake as one line, as the command line says it."""
    return JSONResponse({"error": " ".join(str(error).split())}, 400 if isinstance(error, UserError) else 500)
