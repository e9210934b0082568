"""The server of the paint page: a token in every address, nothing loaded from or sent to anywhere else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import RunFailed, UserError
from pipeline.pages.style import BASE
from pipeline.paint import answers, uploads
from pipeline.paint.answers import Ask, AttentionAsk, OverlayAsk, PicturesAsk
from pipeline.paint.lanes import Jobs, Lane, Overtaken, as_they_end, one_worker
from pipeline.paint.saving import drawn, save
from pipeline.paint.studio import Arm, Scene, Studio

PAGE = Path(__file__).with_name("page")
SCRIPTS = ("brushes", "common", "map", "paint", "pictures", "pixels", "pointer", "requests", "session", "styles")
FILES = {
    "": (PAGE / "paint.html", "text/html"),
    "base.css": (BASE, "text/css"),
    "paint.css": (PAGE / "paint.css", "text/css"),
    **{f"{name}.js": (PAGE / f"{name}.js", "text/javascript") for name in SCRIPTS},
}
LOOPBACK = ("127.0.0.1", "localhost")
MAX_BODY = 2 * uploads.MAX_BYTES + 65_536  # a photo and its label map
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
L = TypeVar("L", AttentionAsk, OverlayAsk)


class Desk:
    """The studio with its workers: one for each run, and one for all that no run computes."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.jobs = studio, Jobs()
        self.lanes = [Lane(arm, studio.threads) for arm in studio.arms]
        self._worker = one_worker(studio.threads)

    async def do(self, work: Callable[[], T]) -> T:
        """Result of `work` that asks nothing of a run, in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def pictures(self, ask: PicturesAsk, scene: Scene) -> AsyncIterator[dict[str, Any]]:
        """The true edit and each run's picture as they are ready, and a last word: the time, or that a newer state came."""
        begin = time.perf_counter()
        truth = self._worker.submit(self.studio.truth, scene)
        work = partial(answers.picture, self.studio, scene, truth.result)

        async def true_edit() -> dict[str, Any]:
            return answers.truth_facts(await asyncio.wrap_future(truth))

        try:
            with self.jobs.job(ask.page, ask.number, yields=False) as job:
                parts = as_they_end([true_edit(), *(lane.do(work, job) for lane in self.lanes)])
                async with contextlib.aclosing(parts):
                    async for part in parts:
                        yield part
        except Overtaken:
            yield _overtaken(ask)
        except (UserError, RunFailed) as error:
            yield {"error": _line(error)}
        else:
            yield {"number": ask.number, "milliseconds": round(1000 * (time.perf_counter() - begin), 1)}

    async def looked(self, ask: L, work: Callable[[Studio, L, Arm], dict[str, Any]]) -> dict[str, Any]:
        """What a run attends to; pictures of a newer state go first."""
        answers.refuse_without_attention(self.studio, ask.run)
        try:
            with self.jobs.job(ask.page, ask.number, yields=True) as job:
                return await self.lanes[ask.run].do(partial(work, self.studio, ask), job)
        except Overtaken:
            return _overtaken(ask)

    async def saved(self, ask: Ask, out: Path) -> Path:
        """The `painting.json` of a scene that is drawn once more and written down."""
        scene = await self.do(partial(answers.scene_of, self.studio, ask))
        work = partial(drawn, self.studio, scene)
        made = await asyncio.gather(*(lane.do(work) for lane in self.lanes))
        return await self.do(partial(save, self.studio, scene, made, out))


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
    desk = Desk(studio)

    async def facts(request: Request) -> Response:
        return JSONResponse(await desk.do(partial(answers.facts, studio)))

    async def photo(request: Request) -> Response:
        name = request.query_params.get("name", "")
        return JSONResponse(await desk.do(partial(answers.photo_facts, studio, name)))

    async def pictures(request: Request) -> Response:
        ask = answers.read(PicturesAsk, await _body(request))
        desk.jobs.arrived(ask.page, ask.number, final=ask.final)
        scene = await desk.do(partial(answers.scene_of, studio, ask))
        lines = (json.dumps(part) + "\n" async for part in desk.pictures(ask, scene))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def attention(request: Request) -> Response:
        ask = answers.read(AttentionAsk, await _body(request))
        return JSONResponse(await desk.looked(ask, answers.attention))

    async def overlay(request: Request) -> Response:
        ask = answers.read(OverlayAsk, await _body(request))
        return JSONResponse(await desk.looked(ask, answers.overlay))

    async def keep(request: Request) -> Response:
        path = await desk.saved(answers.read(Ask, await _body(request)), out)
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
        exception_handlers={UserError: _refused, RunFailed: _refused, OSError: _refused},
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
    if not size.isdecimal() or len(size) > 9 or int(size) > len(data):
        raise UserError(f"request: bytes={size[:20]!r} is not a length within {len(data)}")
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


def _overtaken(ask: Ask) -> dict[str, Any]:
    return {"number": ask.number, "overtaken": True}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


async def _refused(request: Request, error: Exception) -> Response:
    """A mistake, or a disk that does not take a file, as one line: as the command line says it."""
    return JSONResponse({"error": _line(error)}, 400 if isinstance(error, UserError) else 500)
