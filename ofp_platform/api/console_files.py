"""The console: static pages that ask the JSON routes of the same service with the key of whoever looks, and load nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.vocabulary.errors import Reason, not_found

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class ConsoleFile:
    """One file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def read_console_files() -> dict[str, ConsoleFile]:
    """The files of the console by name; the empty name is the page."""
    files = {}
    for item in resources.files("ofp_platform.api").joinpath("console").iterdir():
        _, _, ending = item.name.rpartition(".")
        if ending in _TYPES:
            content = item.read_bytes()
            files[item.name] = ConsoleFile(content, _TYPES[ending], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return {**files, "": files["index.html"]}


class ConsoleFiles:
    """Answers for the files, which are read once."""

    def __init__(self) -> None:
        self._files = read_console_files()

    async def send(self, request: Request) -> Response:
        """The page, or the file that the path names."""
        file = self._files.get(request.path_params.get("name", ""))
        if file is None:
            raise not_found(Reason.UNKNOWN_PATH, "the console has no such file; see GET /console")
        headers = {**_HEADERS, "etag": file.etag}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if file.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers={**headers, "content-type": file.media_type})
