"""Who may look, who may act, and what a browser is told to refuse.

A hook lets a request in. Where one comes from proves nothing: a proxy's come from loopback, and no header has to tell
of it. A stranger's page under a name that was pointed here (DNS rebinding) has no cookie and no password, for browsers
keep these by name. What changes anything needs a token that stands both in a cookie and in the form, and must come from
a page of ours, as far as the browser tells.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Response, abort, g, make_response, redirect, request, url_for

#: Lets somebody in, or not; an answer instead (a redirect to a login) is sent as it stands.
Authenticate = Callable[[], Any]

TOKEN_COOKIE = "embedqueue_csrf"
TOKEN_FIELD = "csrf_token"
LINK_ONLY = (
    "The link that the command printed opens this page, once, in one browser. "
    "If you have just opened it, go back to the page; for another browser, start the command again."
)


class Guard:
    """Hooks for a blueprint.

    Args:
        authenticate: called before everything.
        allow_changes: whether anything may be changed, or a function that tells so for a request.
    """

    def __init__(self, authenticate: Authenticate, allow_changes: bool | Callable[[], bool]) -> None:
        self._authenticate = authenticate
        self._allow_changes = allow_changes

    def admit(self) -> Any:
        """Before a request: nothing where it may go on. Our style sheet tells nobody anything."""
        if (request.endpoint or "").endswith(".static"):
            return None
        answer = self._authenticate()
        if isinstance(answer, bool) or answer is None:
            if not answer:
                abort(403)
            return None
        return answer

    def may_change(self) -> bool:
        """Whether this request may change anything."""
        return bool(self._allow_changes() if callable(self._allow_changes) else self._allow_changes)

    def check_change(self) -> None:
        """End a request that may change nothing, or that another site has sent."""
        if not self.may_change():
            abort(403, "This dashboard is read-only.")
        if not _is_from_here():
            abort(403, "This came from another site.")
        cookie, field = request.cookies.get(TOKEN_COOKIE, ""), request.form.get(TOKEN_FIELD, "")
        if not cookie or not _same(cookie, field):
            abort(403, "This page is too old, or your browser keeps no cookies: load it again.")

    def token(self) -> str:
        """What a form needs to hold; the browser keeps it, too."""
        if "embedqueue_token" not in g:
            known = request.cookies.get(TOKEN_COOKIE, "")
            g.embedqueue_token = known if len(known) >= 32 else secrets.token_urlsafe(32)
        found: str = g.embedqueue_token
        return found

    def nonce(self) -> str:
        """What our script and our style sheet are known by in this answer."""
        if "embedqueue_nonce" not in g:
            g.embedqueue_nonce = secrets.token_urlsafe(16)
        found: str = g.embedqueue_nonce
        return found

    def seal(self, response: Response) -> Response:
        """After a request: nothing but our own script and style sheet runs, nobody frames it, nobody keeps it."""
        nonce = f"'nonce-{self.nonce()}'"
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src {nonce}; style-src {nonce}; img-src data:; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-store")
        if "embedqueue_token" in g and request.cookies.get(TOKEN_COOKIE) != g.embedqueue_token:
            response.set_cookie(
                TOKEN_COOKIE,
                g.embedqueue_token,
                path=url_for(".index"),
                httponly=True,
                samesite="Lax",
                secure=request.is_secure,
            )
        return response


def _is_from_here() -> bool:
    """Whether the browser says that a page of ours has sent this; an old one may say nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def _same(given: str, expected: str) -> bool:
    """In a time that tells nothing of how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


class OneTimeLink:
    """A hook that lets in the one browser that opens the page with ``?token=...`` first.

    Attributes:
        token: what the link has to hold. The browser gets a cookie for it, with another secret, and the plain page.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self._unused = threading.Semaphore()

    def __call__(self) -> Any:
        """Whether the request is of that browser; a redirect that makes it so."""
        cookie = f"embedqueue_session_{request.environ['SERVER_PORT']}"  # browsers keep those of all ports together
        given = request.args.get("token")
        if _same(request.cookies.get(cookie, ""), self._session):
            return True if given is None else redirect(url_for(".index"), 303)
        # no HEAD: who looks where a link leads shall not use it up
        if request.method != "GET" or not _same(given or "", self.token) or not self._unused.acquire(blocking=False):
            abort(403, LINK_ONLY)
        answer = redirect(url_for(".index"), 303)
        answer.set_cookie(
            cookie, self._session, path=url_for(".index"), httponly=True, samesite="Strict", secure=request.is_secure
        )
        return answer


def password(expected: str, user: str = "admin") -> Authenticate:
    """A hook that asks for one name and one password, by the browser's own dialogue (HTTP Basic).

    Args:
        expected: the password. It travels as it is: put TLS in front.
        user: the name.

    Raises:
        ValueError: an empty password.
    """
    if not expected:
        raise ValueError("the password must not be empty")

    def authenticate() -> Any:
        given = request.authorization
        if given is not None and given.type == "basic":
            right = _same(given.password or "", expected)
            if _same(given.username or "", user) and right:
                return True
        answer = make_response("Name and password, please.", 401)
        answer.headers["WWW-Authenticate"] = 'Basic realm="embedqueue", charset="UTF-8"'
        answer.mimetype = "text/plain"
        return answer

    return authenticate
