"""Access to the server: token, Host and Origin of every request, and headers of every answer."""

import hmac
import re
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Access:
    """ASGI middleware that refuses requests without the token or from other sites.

    A foreign page cannot reach the server by its address (Origin), nor by a name of its own that
    resolves to this machine (Host: DNS rebinding).
    """

    def __init__(self, app: Any, token: str, port: int, host: str = "127.0.0.1") -> None:
        self.app = app
        self.token = token
        self.cookie: str = f"mvemo-{port}"
        shown = f"[{host}]" if ":" in host else host
        hosts = ("127.0.0.1", "localhost", "[::1]", shown)
        self.hosts: set[str] = {f"{name}:{port}" for name in hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/api/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        answer = self._answer(scope) or self.app
        await answer(scope, receive, guarded)

    def _answer(self, scope: Any) -> Any:
        """Return the answer to a request that is refused, or None."""
        headers = Headers(scope=scope)
        host, origin = _with_port(headers.get("host", "").lower()), headers.get("origin")
        # With --host 0.0.0.0, clients name the address by which they reached the server.
        address, port = scope["server"]
        reached = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        if host not in self.hosts and host != reached:
            return _refusal(403, f"Host {host!r} is not this server")
        if origin is not None and _with_port(origin) != f"http://{host}":
            return _refusal(403, f"Origin {origin!r} is not this server")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = HTTPConnection(scope).cookies.get(self.cookie, "")
        if self._is_token(bearer if scheme.lower() == "bearer" else cookie):
            return None
        return _refusal(401, "open the address that mvemo serve printed, or send its token")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _with_port(address: str) -> str:
    """Return a host or an origin with its port; browsers leave out port 80, the default."""
    return address if re.search(r":\d+$", address) else f"{address}:80"


def _refusal(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)
