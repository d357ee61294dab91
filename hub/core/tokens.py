"""Tokens of clients: JWTs (RFC 7519) that the app signs and the hub verifies. Time is an argument.

A token that is not valid leads to a return value, never to an exception, because a peer sent it.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from msgspec import Meta, Raw, Struct

from hub.errors import SettingsError
from hub.protocol.json import check, one_line
from hub.protocol.messages import NO_PAYLOAD, Payload

TOKEN_BYTES_MAX: Final = 16_384
"""A longer token is invalid before anything of it is parsed."""

RECONNECT_TYPE: Final = "hub-reconnect+jwt"
"""The `typ` header of the hub's own reconnect tokens. It prevents that one kind of token is accepted in place
of the other (RFC 8725 section 3.11)."""

DIGEST_BYTES: Final = 9
"""Bytes of a digest of channels. The app makes the lists, so a client cannot look for equal digests."""

KEY_ID_CHARS_MAX: Final = 1_024
"""A longer `kid` names no key: key sets are not searched for it."""

LEEWAY_S: Final = 5
"""How far the clock of whoever signed may be off."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

_HMAC: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
_RSA: Final = frozenset({"RS256", "RS384", "RS512"})
_EDDSA: Final = frozenset({"EdDSA"})
_CURVES: Final = {
    "secp256r1": frozenset({"ES256"}),
    "secp384r1": frozenset({"ES384"}),
    "secp521r1": frozenset({"ES512"}),
}


@dataclass(frozen=True, slots=True)
class ChannelOverrides:
    """Channel options that a token changes for one subscription. None leaves the channel's own."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None


NO_OVERRIDE: Final = ChannelOverrides()


class SubscriptionGrant(Struct, frozen=True):
    """A server-side subscription that a connection token makes."""

    info: Payload = NO_PAYLOAD
    data: Payload = NO_PAYLOAD
    override: ChannelOverrides = NO_OVERRIDE


class ConnectionClaims(Struct, frozen=True):
    """What a connection token says.

    Args:
        user: its `sub`; empty for an anonymous user.
        expires_at: Unix seconds at which the connection expires, 0 for never: the claim `expire_at` where
            there is one, else `exp`.
        info: shown to others as the connection's info.
        meta: for the app alone, never sent to a client.
        channels: server-side subscriptions without options.
        subs: server-side subscriptions by channel.
        jti: the token's own id, or empty.
    """

    user: str
    expires_at: int = 0
    info: Payload = NO_PAYLOAD
    meta: Payload = NO_PAYLOAD
    channels: tuple[str, ...] = ()
    subs: dict[str, SubscriptionGrant] = {}
    jti: str = ""

    def channels_digest(self) -> str:
        """A short text that differs if the server-side subscriptions differ; empty without any.

        The order of `channels` does not count, nor does the `info` and `data` of `subs`, which an app may
        compute again for each token.
        """
        overrides = dict.fromkeys(self.channels, NO_OVERRIDE)
        overrides |= {channel: grant.override for channel, grant in self.subs.items()}
        if not overrides:
            return ""
        encoded = msgspec.json.encode(sorted(overrides.items()))
        return urlsafe_b64encode(hashlib.sha256(encoded).digest()[:DIGEST_BYTES]).decode()


class SubscriptionClaims(Struct, frozen=True):
    """What a subscription token says. The caller compares user and channel with who asks for what.

    Args:
        expires_at: Unix seconds at which the subscription expires, 0 for never, told as for a connection.
        info: shown to others as the subscription's info.
    """

    user: str
    channel: str
    expires_at: int = 0
    info: Payload = NO_PAYLOAD
    override: ChannelOverrides = NO_OVERRIDE
    jti: str = ""


@dataclass(frozen=True, slots=True)
class Invalid:
    """The keys and settings do not accept the token. `reason` is for the log and contains no secret."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """The token is authentic and has expired."""


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """The key set lacks the key that the token names: ask the issuer for the key, then verify again."""

    kid: str

    @property
    def reason(self) -> str:
        """Why the token is refused if the key is still missing, for the log."""
        return f"the key set has no key with the id (kid) {self.kid[:64]!r}"


def reason_of(verdict: object) -> str:
    """Why a token is refused, for the log.

    Args:
        verdict: of a verifier.
    """
    return verdict.reason if isinstance(verdict, Invalid | UnknownKey) else "it is another kind of token"


Refusal: TypeAlias = Invalid | Expired | UnknownKey


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key and its algorithms, which depend on the kind of the key and never on the token."""

    key: PublicKey
    algorithms: frozenset[str]


def pem_key(pem: str) -> VerifyingKey:
    """A public key from PEM.

    Raises:
        SettingsError: it is not a PEM public key: RSA, EC (P-256, P-384, P-521), Ed25519 or Ed448.
    """
    try:
        key: Any = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    algorithms = _algorithms(key)
    if not algorithms:
        raise SettingsError(
            "public_key must be a public key in PEM (-----BEGIN PUBLIC KEY-----): "
            "RSA, EC on P-256, P-384 or P-521, or Ed25519"
        )
    return VerifyingKey(key, algorithms)


def jwk_key(jwk: Mapping[str, Any]) -> VerifyingKey | None:
    """The public key in a member of a JWKS, or None if it verifies none of the accepted algorithms.

    RFC 7517 section 5: members that are not understood are ignored. A symmetric key is ignored too, because a
    key in a published set is not secret.
    """
    if jwk.get("kty") == "oct" or jwk.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(dict(jwk)).key
    except Exception:  # PyJWT raises whatever an odd member leads to, NotImplementedError for one
        return None
    algorithms = _algorithms(key)
    if "alg" in jwk:
        algorithms &= {str(jwk["alg"])}
    return VerifyingKey(key, algorithms) if algorithms else None


def _algorithms(key: Any) -> frozenset[str]:
    if isinstance(key, RSAPublicKey):
        return _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, frozenset())
    if isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return _EDDSA
    return frozenset()


_UnixSeconds = Annotated[float, Meta(ge=0, le=2**53)]


class _Flag(Struct):
    value: bool | None = None


class _Override(Struct):
    presence: _Flag | None = None
    join_leave: _Flag | None = None
    force_push_join_leave: _Flag | None = None
    force_recovery: _Flag | None = None
    force_positioning: _Flag | None = None


class _Grant(Struct):
    info: Payload = NO_PAYLOAD
    data: Payload = NO_PAYLOAD
    override: _Override | None = None


class _Claims(Struct):
    """Claims that both kinds of token have, in the types that RFC 7519 section 4.1 gives them."""

    sub: str = ""
    exp: _UnixSeconds | None = None
    nbf: _UnixSeconds | None = None
    iat: _UnixSeconds | None = None
    aud: str | list[str] | None = None
    iss: str | None = None
    jti: str | None = None
    info: Payload = NO_PAYLOAD
    expire_at: _UnixSeconds | None = None


class _ConnectionToken(_Claims):
    channel: Any = None
    meta: Payload = NO_PAYLOAD
    channels: list[str] | None = None
    subs: dict[str, _Grant] | None = None


class _SubscriptionToken(_Claims):
    channel: str = ""
    override: _Override | None = None


_Token = TypeVar("_Token", bound=_Claims)


class _HMACOfAnyLength(HMACAlgorithm):
    """HMAC without the minimum length of RFC 7518 section 3.2."""

    def check_key_length(self, key: bytes) -> None:
        return None


class Verifier:
    """Verifies tokens with one set of keys.

    The algorithm must be one of the key's own kind, so no public key ever serves as an HMAC secret, and
    `none` is no algorithm. A token that names a key (`kid`) is verified by that key of the key set.

    Args:
        hmac_secret: for HS256, HS384 and HS512, at least 32, 48 and 64 bytes (RFC 7518 section 3.2).
        public_key: PEM, for the algorithm of its kind: RS256/384/512, ES256, ES384, ES512 or EdDSA.
        jwks: the keys of a key set by `kid`; read at each call, so it may change. None where there is no set.
        audience: a token must be for it. Empty: not checked.
        issuer: a token must be from it. Empty: not checked.
        allow_short_secret: accept an `hmac_secret` of any length, as development mode does.

    Raises:
        SettingsError: `public_key` is not such a key.
    """

    def __init__(
        self,
        *,
        hmac_secret: str = "",
        public_key: str = "",
        jwks: Mapping[str, VerifyingKey] | None = None,
        audience: str = "",
        issuer: str = "",
        allow_short_secret: bool = False,
    ) -> None:
        self._secret = hmac_secret
        self._public_key = pem_key(public_key) if public_key else None
        self._jwks = jwks
        self._audience = audience
        self._issuer = issuer
        self._jws = jwt.PyJWS(options={"enforce_minimum_key_length": True})
        if allow_short_secret:
            for name, digest in _HMAC.items():
                self._jws.unregister_algorithm(name)
                self._jws.register_algorithm(name, _HMACOfAnyLength(digest))

    def connection(self, token: str, now: float) -> ConnectionClaims | Refusal:
        """Verify a connection token.

        Args:
            now: Unix seconds.
        """
        claims = self._verify(token, now, _CONNECTION)
        if not isinstance(claims, _ConnectionToken):
            return claims
        return ConnectionClaims(
            user=claims.sub,
            expires_at=_expires_at(claims),
            info=_payload(claims.info),
            meta=_payload(claims.meta),
            channels=tuple(claims.channels or ()),
            subs={
                channel: SubscriptionGrant(
                    _payload(grant.info), _payload(grant.data), _override(grant.override)
                )
                for channel, grant in (claims.subs or {}).items()
            },
            jti=claims.jti or "",
        )

    def subscription(self, token: str, now: float) -> SubscriptionClaims | Refusal:
        """Verify a subscription token.

        Args:
            now: Unix seconds.
        """
        claims = self._verify(token, now, _SUBSCRIPTION)
        if not isinstance(claims, _SubscriptionToken):
            return claims
        return SubscriptionClaims(
            user=claims.sub,
            channel=claims.channel,
            expires_at=_expires_at(claims),
            info=_payload(claims.info),
            override=_override(claims.override),
            jti=claims.jti or "",
        )

    def _verify(self, token: str, now: float, decoder: msgspec.json.Decoder[_Token]) -> _Token | Refusal:
        if len(token) > TOKEN_BYTES_MAX:
            return Invalid(f"longer than {TOKEN_BYTES_MAX} bytes")
        try:
            header = self._jws.get_unverified_header(token)
            if header.get("typ") == RECONNECT_TYPE:
                return Invalid("a reconnect token, which stands for a login alone")
            algorithm = str(header.get("alg"))
            key = self._key(algorithm, header.get("kid", ""))
            if isinstance(key, Invalid | UnknownKey):
                return key
            payload: bytes = self._jws.decode_complete(token, key, algorithms=[algorithm])["payload"]
            check(payload)
            claims = decoder.decode(payload)
        except jwt.InvalidSignatureError:
            named = "hmac_secret" if algorithm in _HMAC else "private key of public_key or jwks_url"
            return Invalid(
                f"its signature ({algorithm}) is by another key: sign it with the {named} of the hub"
            )
        except jwt.DecodeError as exc:
            return Invalid(f"it is not a JWT ({exc}): send the token alone, without a scheme or quotes")
        except msgspec.ValidationError as exc:
            return Invalid(f"a claim is of the wrong type: {exc}")
        except Exception as exc:  # a peer wrote the token, and PyJWT does not document what it raises
            return Invalid(str(exc))
        return self._refusal(claims, now) or claims

    def _key(self, algorithm: str, kid: str) -> str | PublicKey | Invalid | UnknownKey:
        """The key for a token with this header, if the algorithm fits the key."""
        if algorithm in _HMAC:
            return self._secret or Invalid(
                f"it is signed with {algorithm}, and the hub has no HMAC secret: set hmac_secret, or sign"
                " with a private key"
            )
        found = self._public_key
        if self._jwks is not None and kid:
            found = self._jwks.get(kid)
            if found is None and len(kid) <= KEY_ID_CHARS_MAX:
                return UnknownKey(kid)
        if found is None:
            return Invalid(
                f"it is signed with {algorithm[:16]!r}, and the hub has no public key for it: set"
                " public_key, or jwks_url and a kid in the token, or sign with HS256 and hmac_secret"
            )
        if algorithm not in found.algorithms:
            known = ", ".join(sorted(found.algorithms))
            return Invalid(f"the public key does not verify {algorithm[:16]!r}: sign with {known}")
        return found.key

    def _refusal(self, claims: _Claims, now: float) -> Invalid | Expired | None:
        # RFC 8725 section 3.11: one kind of token must not be accepted in place of the other.
        if isinstance(claims, _ConnectionToken) and claims.channel is not None:
            return Invalid("it is a subscription token: sign one without a channel to connect")
        if isinstance(claims, _SubscriptionToken) and not claims.channel:
            return Invalid("it has no channel: sign one with the channel in it")
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        if self._audience and self._audience not in audience:
            return Invalid("it is for another audience: its aud must hold the audience of the settings")
        if self._issuer and claims.iss != self._issuer:
            return Invalid("it is from another issuer: its iss must be the issuer of the settings")
        if max(claims.nbf or 0, claims.iat or 0) > now + LEEWAY_S:
            return Invalid("it is not valid yet: correct its nbf and iat, or the clock of one machine")
        if claims.exp is not None and claims.exp + LEEWAY_S <= now:
            return Expired()
        if claims.expire_at and claims.expire_at + LEEWAY_S <= now:
            return Expired()
        return None


_CONNECTION: Final = msgspec.json.Decoder(_ConnectionToken)
_SUBSCRIPTION: Final = msgspec.json.Decoder(_SubscriptionToken)


def _expires_at(claims: _Claims) -> int:
    return int(claims.exp or 0) if claims.expire_at is None else int(claims.expire_at)


def _payload(value: Payload) -> Payload:
    """A claim of its own bytes, so that it does not hold the token in memory; `null` is no payload."""
    text = bytes(value) if isinstance(value, Raw) else b"null"
    return NO_PAYLOAD if text == b"null" else one_line(text)


def _override(claim: _Override | None) -> ChannelOverrides:
    if claim is None:
        return NO_OVERRIDE

    def value(flag: _Flag | None) -> bool | None:
        return None if flag is None else flag.value

    return ChannelOverrides(
        presence=value(claim.presence),
        join_leave=value(claim.join_leave),
        force_push_join_leave=value(claim.force_push_join_leave),
        force_recovery=value(claim.force_recovery),
        force_positioning=value(claim.force_positioning),
    )
