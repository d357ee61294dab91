"""An issuer of tokens: its keys, and the HTTP server that publishes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519

KEYS = {kid: ed25519.Ed25519PrivateKey.generate() for kid in ("one", "two")}


def jwks(*kids: str) -> bytes:
    members: list[Any] = [{"kty": "oct", "k": "AA", "kid": "secret"}, {"kty": "RSA"}]
    for kid in kids:
        jwk = jwt.algorithms.OKPAlgorithm.to_jwk(KEYS[kid].public_key(), as_dict=True)
        members.append({**jwk, "kid": kid, "use": "sig", "alg": "EdDSA"})
    return json.dumps({"keys": members}).encode()


def token(kid: str, key: str = "", **claims: Any) -> str:
    """A token of the user ann.

    Args:
        kid: what it names as its key.
        key: its key, if that is another one.
        claims: others.
    """
    text = json.dumps({"sub": "ann", **claims}).encode()
    return jwt.PyJWS().encode(text, KEYS[key or kid], "EdDSA", headers={"kid": kid})


class Issuer:
    """An HTTP server that answers every request with what `body` holds, once `ready` is set."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.body = jwks("one")
        self.requests = 0
        self.asked = asyncio.Event()
        self.ready = asyncio.Event()
        self.ready.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.asked.set()
        await self.ready.wait()
        size = len(self.body)
        head = f"HTTP/1.1 {self.status}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + self.body)
        writer.close()


@contextlib.asynccontextmanager
async def publishing() -> AsyncIterator[tuple[Issuer, str]]:
    """An issuer, and the URL of its key set."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    try:
        yield issuer, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    finally:
        issuer.ready.set()
        server.close()
