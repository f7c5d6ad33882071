"""The application. A server would run ``uvicorn examples.fastapi_notes.app:create_app --factory``.

``POST /api/notes`` saves a note and waits for its vector without a thread of its own: 201 when it is searchable; 202
when it will be, because it takes longer, many wait already, or the server is about to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from a2wsgi import WSGIMiddleware
from fastapi import Body, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader

from embedqueue import BatchFailed, ItemRejected
from embedqueue.dashboard import dashboard_app, password
from embedqueue.settings.settings import read_environment
from examples import notes

from .waiting import Waiting, told_of_the_end

#: Notes that the page lists, and characters of a note.
SHOWN, NOTE_CHARS = 50, 4000
#: Handlers that wait for a vector at a time, and for how long each, unless the environment says otherwise.
MAX_WAITING, PATIENCE_SECONDS = 200, 10.0

Text = Annotated[str, Body(embed=True, min_length=1, max_length=NOTE_CHARS)]


def create_app() -> FastAPI:
    """The application; its queue is set up by the environment's ``EMBEDQUEUE_*`` variables."""
    settings = read_environment()
    client = settings.client()
    queue = settings.queue(redis=client)  # nothing is connected yet, and no thread runs
    store = notes.RedisNotes(client)
    waiting: Waiting
    templates = Environment(loader=FileSystemLoader(Path(notes.__file__).parent / "templates"), autoescape=True)
    secret = os.environ.get("NOTES_PASSWORD")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal waiting
        most = int(os.environ.get("NOTES_MAX_WAITING", MAX_WAITING))
        waiting = Waiting(most, float(os.environ.get("NOTES_PATIENCE_SECONDS", PATIENCE_SECONDS)))
        queue.start()
        try:
            with told_of_the_end(waiting.end):
                yield
        finally:
            await asyncio.to_thread(queue.stop)  # what this process has claimed goes back for others

    app = FastAPI(title="Notes", lifespan=lifespan)
    if secret:
        pages = dashboard_app(queue, authenticate=password(secret), allow_changes=True)
        app.mount("/queue", WSGIMiddleware(pages))  # type: ignore[arg-type]  # it says so in other words

    def save(text: str) -> tuple[str, Any]:
        key = store.write(text)
        return key, queue.enqueue(key, text)  # durable now; the vector will be written to the same hash

    @app.post("/api/notes", status_code=201)
    async def save_and_wait(text: Text, response: Response) -> dict[str, Any]:
        if not text.strip():
            raise HTTPException(422, "the text is blank")
        key, future = await run_in_threadpool(save, text)  # two short round trips, which block
        try:
            vector = await waiting.vector(future)
        except ItemRejected as error:
            raise HTTPException(422, f"saved as {key}, but it cannot be embedded: {error.reason}") from None
        except BatchFailed:
            vector = None  # the provider has failed; the item is still queued
        if vector is None:
            response.status_code = 202
        return {"key": key, "searchable": vector is not None}

    @app.get("/api/search")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=1000)], k: Annotated[int, Query(ge=1, le=50)] = 3
    ) -> Any:
        """A plain function: FastAPI gives it a thread."""
        hits = notes.nearest(queue, q, k)
        texts = store.read([hit.redis_key for hit in hits])
        return [{"key": hit.redis_key, "score": hit.score, "text": texts.get(hit.redis_key)} for hit in hits]

    # -- the same page as in the other examples ------------------------------------------------------------------------

    @app.get("/", response_class=HTMLResponse)
    def page(q: Annotated[str, Query(max_length=1000)] = "") -> str:
        shown = notes.show(queue, client, store.latest(SHOWN), store.read, q.strip())
        page = templates.get_template("notes.html")
        return page.render(powered_by="FastAPI", dashboard=bool(secret), **shown)

    @app.post("/notes")
    async def save_note(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        text = form.get("text", [""])[0].strip()[:NOTE_CHARS]
        key = (await run_in_threadpool(save, text))[0] if text else ""
        return RedirectResponse(f"/#{key}", 303)

    @app.post("/samples")
    def save_samples() -> Response:
        for text in notes.SAMPLES:
            save(text)
        return RedirectResponse("/", 303)

    @app.post("/flush")
    def flush() -> Response:
        queue.flush_now()
        return RedirectResponse("/", 303)

    return app
