"""An identity provider for tests: keys, tokens, and a real HTTP server on the loopback that publishes the keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from ofp_platform.api.principals import Issuer, Scope

AUDIENCE = "https://plane.bank.example"


def rsa_key(bits: int = 2_048) -> rsa.RSAPrivateKey:
    """A key that takes a moment."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


@dataclass
class SigningKey:
    """A private key with its id. It signs by its algorithm, whatever the published form says."""

    key_id: str
    algorithm: str = "ES256"
    private: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def public(self, **more: Any) -> dict[str, Any]:
        """As published."""
        form: Any = ECAlgorithm
        if isinstance(self.private, rsa.RSAPrivateKey):
            form = RSAAlgorithm
        elif isinstance(self.private, ed25519.Ed25519PrivateKey):
            form = OKPAlgorithm
        jwk = json.loads(form.to_jwk(self.private.public_key()))
        return {**jwk, "kid": self.key_id, "use": "sig", "alg": self.algorithm, **more}


@dataclass
class IdentityProvider:
    """`published`: what is answered to whoever asks for the keys; `status` and `pause` (seconds) how. `asked`: how often."""

    name: str = "idp"
    key: SigningKey = field(default_factory=lambda: SigningKey("first"))
    published: bytes = b""
    status: int = 200
    answering: threading.Event = field(default_factory=threading.Event)
    asked: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.answering.set()
        self.publish(self.key)

    @property
    def issuer(self) -> str:
        """As its tokens name it."""
        return f"https://{self.name}.bank.example/"

    def publish(self, *keys: SigningKey, more: tuple[dict[str, Any], ...] = ()) -> None:
        """Answer these from now on."""
        self.published = json.dumps({"keys": [*(key.public() for key in keys), *more]}).encode()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token; None takes one away."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "scorer",
            "iat": now,
            "exp": now + 300,
            "scope": "features.read",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey | None = None, head: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A token of it, signed by its key or another one."""
        key = key or self.key
        return jwt.encode(self.claims(**changes), key.private, key.algorithm, headers={"kid": key.key_id, **(head or {})})

    def declared(self, **changes: Any) -> Issuer:
        """As a file of principals names it."""
        content = {
            "name": self.name,
            "issuer": self.issuer,
            "audiences": [AUDIENCE],
            "algorithms": ["ES256", "RS256", "EdDSA"],
            "key_set": {"url": self.url, "refresh_seconds": 3_600, "unknown_key_seconds": 1},
            "scopes": {"features.read": ["features:read"], "plane.admin": [scope.value for scope in Scope]},
            "runs": "*",
        }
        return Issuer.model_validate({**content, **changes})


@contextmanager
def publishing(provider: IdentityProvider) -> Iterator[IdentityProvider]:
    """Its keys under `provider.url`, from a server of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version: ClassVar[str] = "HTTP/1.0"

        def do_GET(self) -> None:
            provider.asked += 1
            provider.answering.wait(30)
            self.send_response(provider.status)
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(provider.published)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        provider.url = f"http://127.0.0.1:{server.server_address[1]}/keys.json"
        try:
            yield provider
        finally:
            provider.answering.set()
            server.shutdown()
