"""Reconnect tokens, by which a client resumes its session without a login. Time is an argument.

A token is a JWT (RFC 7519) that the hub signs with its own keys and marks by the `typ` header. It names its
owner, the socket that it was sent to. The broker remembers which socket owns the session, so that a token
works once.

Tokens are signed for every client that connects, and verified by the thousand when a node fails. Since only
the hub writes them, the header is always the same bytes, and one HMAC replaces a JWS library (RFC 7515 A.1).

A client can read its token, except for the state that the app keeps of the connection. The state is
encrypted by AES-SIV (RFC 5297), which needs no random number, with a key that is derived from the key of the
signature.
"""

from __future__ import annotations

import hmac
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import UNSET, Raw, Struct, UnsetType

from hub.core.channel.subscription import OPEN, Grant
from hub.core.tokens import LEEWAY_S, RECONNECT_TYPE, TOKEN_BYTES_MAX, Expired, Invalid
from hub.protocol.payloads import NO_PAYLOAD, Payload, octets

OWNERS_MAX: Final = 8
"""Owners that a token names at the most: the present one, and earlier ones that the broker could not replace
while it was away."""

_STATE_VERSION: Final = b"\x01"
"""The first byte of an encrypted state. A node that does not know the version has the client log in."""

_STATE_KEY_USE: Final = b"hub reconnect token state"


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


_HEADER: Final = _base64url(msgspec.json.encode({"alg": "HS256", "typ": RECONNECT_TYPE})) + b"."


class _Form(Struct, omit_defaults=True):
    """A payload: JSON text, or binary."""

    text: Raw | UnsetType = UNSET
    binary: bytes = b""


class _Overrides(Struct, frozen=True, omit_defaults=True):
    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None


class _Channel(Struct, omit_defaults=True):
    server: bool = False
    granted: bool = False
    info: _Form | None = None
    data: _Form | None = None
    exp: float = 0
    override: _Overrides | None = None


class _TokenClaims(Struct, omit_defaults=True):
    aud: str
    exp: float
    client: str
    owners: list[str]
    sub: str = ""
    auth_time: float = 0
    info: _Form | None = None
    expire_at: float = 0
    anonymous: bool = False
    channels: dict[str, _Channel] = {}
    login_channels: str = ""
    state: str = ""


class _Peek(Struct):
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Restorable:
    """A subscription that a token brings back.

    Args:
        grant: permits the subscription; `OPEN` if the channel's rules do.
        server_side: whether the server makes it. Otherwise the client subscribes again.
    """

    grant: Grant
    server_side: bool


@dataclass(frozen=True, slots=True)
class SessionChain:
    """The sockets of a session since its login.

    Args:
        owners: the present socket, and earlier ones that may still be the owner at the broker.
        granted_at: Unix seconds of the login.
        by_token: whether the client logged in with a token of the app.
        channels: `ConnectionClaims.channels_digest` of this token; empty without a token.
    """

    owners: tuple[str, ...]
    granted_at: float
    by_token: bool
    channels: str = ""


@dataclass(frozen=True, slots=True)
class ReconnectClaims:
    """The content of a reconnect token.

    Args:
        user: the session's user; empty for an anonymous one.
        client: id of the session's client, which stays the same.
        chain: the sockets of the session before this reconnect.
        info: the connection's info, shown to other clients.
        expires_at: Unix seconds at which the connection expires, 0 for never.
        channels: subscriptions by channel.
        state: what the app keeps of the connection, as JSON; empty for nothing.
    """

    user: str
    client: str
    chain: SessionChain
    info: Payload
    expires_at: float
    channels: dict[str, Restorable]
    state: bytes = b""


def is_reconnect_token(token: str) -> bool:
    """Whether a token claims to be a reconnect token. Nothing is verified."""
    return token.startswith(_HEADER.decode())


def needs_login_token(token: str) -> bool:
    """Whether the session of a refused reconnect token began with a token of the app.

    Nothing is verified. The answer only decides whether the client is asked for such a token, or is treated
    like a client without one, which every client may be.
    """
    try:
        return not msgspec.json.decode(_payload_of(token.encode(errors="replace")), type=_Peek).anonymous
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return True


def _payload_of(token: bytes) -> bytes:
    """The payload part of a token.

    Raises:
        ValueError: the token has no valid payload part.
    """
    return _decoded(token.removeprefix(_HEADER).partition(b".")[0])


def _decoded(text: bytes) -> bytes:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))


class ReconnectTokens:
    """Signs and verifies the tokens of one hub.

    Args:
        keys: secrets of at least 32 bytes; the first signs, all verify.
        audience: name of the hub. Hubs that share keys by mistake refuse each other's tokens.
        ttl_s: seconds for which a token is valid.
    """

    def __init__(self, keys: Sequence[str], audience: str, ttl_s: float) -> None:
        assert keys, "without a key no token can be made"
        self._keys = {key.encode(): _cipher(key.encode()) for key in keys}
        self._key = keys[0].encode()
        self._audience = audience
        self.ttl_s: Final = ttl_s

    def sign(self, claims: ReconnectClaims, now: float) -> str:
        """Sign a token. It is empty if it would be too long, or expired.

        If a token with all channels is too long, it contains the server-side subscriptions alone.

        Args:
            now: Unix seconds.
        """
        ends = [each.grant.expires_at for each in claims.channels.values() if each.server_side]
        expires_at = min(now + self.ttl_s, *(end or math.inf for end in (claims.expires_at, *ends)))
        if expires_at <= now:
            return ""
        chain = claims.chain
        body = _TokenClaims(
            aud=self._audience,
            exp=math.floor(expires_at),
            client=claims.client,
            owners=list(chain.owners),
            sub=claims.user,
            auth_time=math.floor(chain.granted_at),
            info=_form(claims.info),
            expire_at=claims.expires_at,
            anonymous=not chain.by_token,
            channels={name: _channel(each) for name, each in claims.channels.items()},
            login_channels=chain.channels,
            state=self._sealed(claims),
        )
        token = self._encode(body)
        if len(token) > TOKEN_BYTES_MAX:
            body.channels = {name: channel for name, channel in body.channels.items() if channel.server}
            token = self._encode(body)
        return token if len(token) <= TOKEN_BYTES_MAX else ""

    def verify(self, token: str, now: float) -> ReconnectClaims | Invalid | Expired:
        """Verify a token. Only the broker knows whether it was used before.

        Args:
            now: Unix seconds.
        """
        if len(token) > TOKEN_BYTES_MAX:
            return Invalid(f"longer than {TOKEN_BYTES_MAX} bytes")
        signed, _, signature = token.encode(errors="replace").rpartition(b".")
        if not signed.startswith(_HEADER):
            return Invalid("no reconnect token")
        ciphers = (
            cipher for key, cipher in self._keys.items() if hmac.compare_digest(_sign(signed, key), signature)
        )
        cipher = next(ciphers, None)
        if cipher is None:
            return Invalid("no key of this hub has signed it")
        try:
            claims = msgspec.json.decode(_payload_of(signed), type=_TokenClaims)
        except (ValueError, msgspec.MsgspecError, RecursionError) as exc:
            return Invalid(str(exc))
        if claims.aud != self._audience:
            return Invalid("for another hub")
        if claims.exp + LEEWAY_S <= now:
            return Expired()
        state = self._opened(claims, cipher)
        if state is None:
            return Invalid("this hub cannot decrypt the connection's state in it")
        return ReconnectClaims(
            user=claims.sub,
            client=claims.client,
            chain=SessionChain(
                tuple(claims.owners), claims.auth_time, not claims.anonymous, claims.login_channels
            ),
            info=_payload(claims.info),
            expires_at=claims.expire_at,
            channels={name: _restorable(channel) for name, channel in claims.channels.items()},
            state=state,
        )

    def _sealed(self, claims: ReconnectClaims) -> str:
        """The encrypted state, which is bound to its session; empty for none."""
        if not claims.state:
            return ""
        sealed = self._keys[self._key].encrypt(claims.state, self._binding(claims))
        return _base64url(_STATE_VERSION + sealed).decode()

    def _opened(self, claims: _TokenClaims, cipher: AESSIV) -> bytes | None:
        """The decrypted state; None if it cannot be decrypted."""
        if not claims.state:
            return b""
        try:
            sealed = _decoded(claims.state.encode())
            if not sealed.startswith(_STATE_VERSION):
                return None
            return cipher.decrypt(sealed[1:], self._binding(claims))
        except (ValueError, InvalidTag):
            return None

    def _binding(self, claims: ReconnectClaims | _TokenClaims) -> list[bytes]:
        """What an encrypted state belongs to, so that it cannot be put into another token."""
        return [self._audience.encode(), claims.client.encode()]

    def _encode(self, claims: _TokenClaims) -> str:
        signed = _HEADER + _base64url(msgspec.json.encode(claims))
        return (signed + b"." + _sign(signed, self._key)).decode()


def _cipher(key: bytes) -> AESSIV:
    return AESSIV(hmac.digest(key, _STATE_KEY_USE, "sha512"))


def _sign(signed: bytes, key: bytes) -> bytes:
    return _base64url(hmac.digest(key, signed, "sha256"))


_NO_OVERRIDES: Final = _Overrides()


def _channel(restorable: Restorable) -> _Channel:
    grant = restorable.grant
    overrides = _Overrides(*(getattr(grant.overrides, name, None) for name in _Overrides.__struct_fields__))
    return _Channel(
        server=restorable.server_side,
        granted=grant is not OPEN,
        info=_form(grant.info),
        data=_form(grant.data),
        exp=grant.expires_at,
        override=None if overrides == _NO_OVERRIDES else overrides,
    )


def _restorable(channel: _Channel) -> Restorable:
    if not channel.granted:
        return Restorable(OPEN, channel.server)
    grant = Grant(_payload(channel.info), _payload(channel.data), channel.exp, channel.override)
    return Restorable(grant, channel.server)


def _form(value: Payload) -> _Form | None:
    if isinstance(value, bytes):
        return _Form(binary=value)
    return _Form(text=Raw(octets(value))) if value else None


def _payload(form: _Form | None) -> Payload:
    if form is None:
        return NO_PAYLOAD
    # Of its own bytes, so that it does not hold the token in memory.
    return Raw(bytes(form.text)) if isinstance(form.text, Raw) else form.binary
