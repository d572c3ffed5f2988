"""Where a request comes from and what it claims to be: host, origin, type of its body. Looked at on the loopback, too.

A browser on this machine reaches the loopback for every page that it shows. A page whose name was pointed at this machine
(DNS rebinding) sends that name as the host; a page of another site sends its own origin, and, where it asks nobody first, a
body that is not called JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ofp_platform.api.refusals import Headers
from ofp_platform.vocabulary.errors import Reason, invalid

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_KNOWN_HOSTS = 256
_JSON = b"application/json"
_SINGLE = (b"host", b"origin", b"authorization", b"content-type")


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header."""
    for key, value in headers:
        if key == name:
            return bytes(value)
    return None


class OwnHosts:
    """The names under which this service may be asked: those of the loopback, the address that was connected to, and `names`."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = _LOOPBACK | {name.lower().strip("[]") for name in names}
        self._known_hosts: set[bytes] = set()

    def holds(self, host: bytes | None, server: tuple[Any, ...] | None) -> bool:
        """Whether the value of a Host header is one of them; none at all is not. `server`: the address that was connected to."""
        if host in self._known_hosts:
            return True
        if not host:
            return False
        text = host.decode("latin-1").lower()
        if text.startswith("["):
            name, bracket, port = text[1:].partition("]")
            port = port.removeprefix(":") if bracket and port[:1] in ("", ":") else "?"
        else:
            name, _, port = text.partition(":")
        if (port and not (port.isascii() and port.isdigit())) or not (
            name in self._names or (server is not None and name == server[0])
        ):
            return False
        if len(self._known_hosts) < _KNOWN_HOSTS:
            self._known_hosts.add(host)
        return True


def is_own_origin(origin: bytes, host: bytes) -> bool:
    """Whether a page that says so is one of this service, under the name that it was asked by; a proxy may have ended its TLS."""
    origin, host = origin.lower(), host.lower()
    return origin in (b"http://" + host, b"https://" + host)


def is_json(content_type: bytes | None) -> bool:
    """Whether a body is called JSON."""
    return content_type == _JSON or (content_type or b"").partition(b";")[0].strip().lower() == _JSON


def check_head(headers: Headers, server: tuple[Any, ...] | None, hosts: OwnHosts, *, has_body: bool) -> None:
    """Refuse what comes from another site, or as something else than JSON.

    Raises:
        ContractError: INVALID_REQUEST / FOREIGN_HOST, FOREIGN_ORIGIN, UNSUPPORTED_MEDIA_TYPE, INVALID_FIELD.
    """
    for name in _SINGLE:
        if sum(key == name for key, _ in headers) > 1:
            raise invalid(Reason.INVALID_FIELD, f"the header {name.decode()} stands there twice")
    host = header(headers, b"host")
    if host is None or not hosts.holds(host, server):
        raise invalid(Reason.FOREIGN_HOST, "this service is not known by the name in the header Host; see ofp serve --allow-host")
    origin = header(headers, b"origin")
    if origin is not None and not is_own_origin(origin, host):
        raise invalid(Reason.FOREIGN_ORIGIN, "pages of another origin may not ask this service")
    if has_body and not is_json(header(headers, b"content-type")):
        raise invalid(Reason.UNSUPPORTED_MEDIA_TYPE, "the body is sent with the header 'content-type: application/json'")
