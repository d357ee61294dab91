"""Connection and subscription tokens: the hub's verifier beside PyJWT's `decode`."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hub.core.tokens import Expired, Invalid, UnknownKey, Verifier, VerifyingKey
from loadtests.fuzz.model import is_utf8
from loadtests.fuzz.mutate import json_text, mutate, mutate_value
from loadtests.fuzz.target import PureTarget
from loadtests.fuzz.targets.json_commands import read as read_json

SECRET = "signs-the-tokens-that-a-fuzzer-makes-and-nothing-else-in-this-world!"  # noqa: S105 - of these runs
PAST, NOW, FUTURE = 1_500_000_000, int(time.time()), 4_000_000_000
"""Far apart: a case is the same whenever it runs."""
LEEWAY_S = 5

_ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"the key of a fuzzer, of no other")
_P256 = ec.derive_private_key(0x5EED, ec.SECP256R1())
ALGORITHMS = (
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "ES256",
    "ES384",
    "EdDSA",
    "PS256",
    "none",
    "None",
    "hs256",
    "",
)
KEYS = {
    "ed": VerifyingKey(_ED25519.public_key(), frozenset({"EdDSA"})),
    "ec": VerifyingKey(_P256.public_key(), frozenset({"ES256"})),
}
AUDIENCE, ISSUER = "hub", "app"

CLAIMS: tuple[dict[str, Any], ...] = (
    {"sub": "ann", "exp": FUTURE},
    {"sub": "ann", "exp": FUTURE, "iat": PAST, "nbf": PAST, "jti": "1", "info": {"name": "Ann"}},
    {"sub": "ann", "exp": PAST},
    {"sub": "ann", "nbf": FUTURE},
    {"sub": "ann", "channels": ["a", "b"], "meta": {"x": 1}, "aud": ["x", AUDIENCE], "iss": ISSUER},
    {"sub": "ann", "subs": {"a": {"info": 1, "data": [], "override": {"presence": {"value": True}}}}},
    {"sub": "", "expire_at": 0, "exp": FUTURE},
    {"sub": "ann", "expire_at": FUTURE},
)
WORDS = (
    b".",
    b"=",
    b"-",
    b"_",
    b"+",
    b"/",
    b"e30",
    b"eyJ",
    b"..",
    b"\xc3\xa9",
    b"\x00",
    b" ",
    b"A",
    b"AA",
    b"AAA",
)


class Tokens(PureTarget):
    name = "tokens"

    def __init__(self) -> None:
        self._verifiers = {
            False: Verifier(hmac_secret=SECRET, jwks=KEYS),
            True: Verifier(hmac_secret=SECRET, jwks=KEYS, audience=AUDIENCE, issuer=ISSUER),
        }

    def draw(self, chance: random.Random) -> bytes:
        """Return a token that is signed whatever it says, and now and then changed after that."""
        algorithm, kid = chance.choice(
            (("HS256", ""), ("HS256", ""), ("HS384", ""), ("HS512", ""), ("EdDSA", "ed"))
        )
        if chance.random() < 0.05:
            algorithm, kid = "ES256", "ec"
        header: Any = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid else {})}
        if chance.random() < 0.2:
            header = mutate_value(
                header, chance, lambda chance: chance.choice((*ALGORITHMS, None, 1, [], {}, "ed"))
            )
        if isinstance(header, dict) and chance.random() < 0.03:
            header = {
                **header,
                **chance.choice(({"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}, {"b64": False})),
            }
        claims: Any = chance.choice(CLAIMS)
        for _ in range(chance.choice((0, 1, 1, 2))):
            claims = mutate_value(claims, chance)
        head = json.dumps(header).encode() if chance.random() < 0.9 else json_text(header, chance)
        body = json_text(claims, chance)
        if chance.random() < 0.1:
            body = mutate(body, chance)
        signed = _base64url(head) + b"." + _base64url(body)
        token = signed + b"." + _base64url(_sign(algorithm, signed))
        return mutate(token, chance, WORDS) if chance.random() < 0.3 else token

    def check(self, data: bytes) -> Iterator[str]:
        token = data.decode("latin-1")
        for strict, verifier in self._verifiers.items():
            yield from _compare(verifier.connection(token, NOW), token, strict)
            ours, theirs = verifier.subscription(token, NOW), _decode(token, strict)
            if not isinstance(ours, Invalid | Expired | UnknownKey) and isinstance(theirs, str):
                yield _accepted(token, theirs)


def _compare(ours: Any, token: str, strict: bool) -> Iterator[str]:
    theirs = _decode(token, strict)
    if isinstance(ours, Expired):
        if theirs != "ExpiredSignatureError" and not _ends(theirs):
            yield f"hub: expired, PyJWT: {theirs if isinstance(theirs, str) else 'valid'}"
    elif isinstance(ours, Invalid | UnknownKey):
        if isinstance(theirs, dict):
            reason = ours.reason[:50] if isinstance(ours, Invalid) else "unknown key"
            yield f"hub refuses: {_wrong(token) or reason}"
        elif theirs == "ExpiredSignatureError":
            yield "hub: invalid, PyJWT: expired"
    elif isinstance(theirs, str):
        yield _accepted(token, theirs)
    else:
        if ours.user != theirs.get("sub", ""):
            yield "another user"
        end = theirs["expire_at"] if theirs.get("expire_at") is not None else theirs.get("exp") or 0
        if ours.expires_at != int(float(end)):
            yield "another end"
        if list(ours.channels) != (theirs.get("channels") or []) or list(ours.subs) != list(
            theirs.get("subs") or {}
        ):
            yield "other channels"


def _ends(claims: Any) -> bool:
    """Whether `expire_at`, which PyJWT does not know, has passed."""
    end = claims.get("expire_at") if isinstance(claims, dict) else None
    return isinstance(end, int | float) and 0 < end <= NOW


def _decode(token: str, strict: bool) -> dict[str, Any] | str:
    """The claims, or the name of what PyJWT raises."""
    try:
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        found = KEYS.get(kid) if isinstance(kid, str) else None
        symmetric = algorithm in ("HS256", "HS384", "HS512")
        key: Any = SECRET if symmetric or found is None else found.key
        algorithms = ["HS256", "HS384", "HS512"] if symmetric or found is None else sorted(found.algorithms)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            leeway=LEEWAY_S,
            audience=AUDIENCE if strict else None,
            issuer=ISSUER if strict else None,
            options={"verify_aud": strict, "verify_iss": strict},
        )
    except Exception as exc:
        return type(exc).__name__
    return claims


def _wrong(token: str) -> str | None:
    """What the hub's own rules find wrong with a token's header or claims."""
    parts = token.split(".")
    try:
        header, claims = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts[:2])
        kind = json.loads(header).get("typ")
    except ValueError:
        return None
    if kind == "hub-reconnect+jwt":
        return "a reconnect token"
    if not is_utf8(claims):
        return "claims that are not UTF-8"
    _, wrong = read_json(claims)
    if wrong in (
        "NaN or Infinity",
        "nested too deep",
        "a number beyond a double",
        "a lone surrogate",
        "a key twice",
    ):
        return f"claims with {wrong}"
    if not _are_typed(json.loads(claims)):
        return "a claim of another type"
    return None if json.loads(claims).get("channel") is None else "a subscription token"


def _accepted(token: str, refusal: str) -> str:
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    has_null = any(claims.get(name, 0) is None for name in ("exp", "nbf", "iat", "jti"))
    return f"hub accepts, PyJWT refuses: {'a claim that is null' if has_null else refusal}"


def _are_typed(claims: dict[str, Any]) -> bool:
    """Whether claims have the types that RFC 7519 and the protocol give them; null is absent."""
    return all(
        name not in claims or (claims[name] is None and name != "sub") or check(claims[name])
        for name, check in _TYPES.items()
    )


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= float(value) <= 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_subs(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, dict) and _is_override(each.get("override")) for each in value.values()
    )


def _is_override(value: Any) -> bool:
    options = ("presence", "join_leave", "force_push_join_leave", "force_recovery", "force_positioning")
    return value is None or (
        isinstance(value, dict)
        and all(
            value.get(name) is None
            or (isinstance(value[name], dict) and type(value[name].get("value")) in (bool, type(None)))
            for name in options
        )
    )


_TYPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("exp", "nbf", "iat", "expire_at"), _is_time),
    **dict.fromkeys(("sub", "iss", "jti"), _is_text),
    "aud": lambda value: _is_text(value) or _are_texts(value),
    "channels": _are_texts,
    "subs": _are_subs,
}


def _sign(algorithm: str, signed: bytes) -> bytes:
    if algorithm == "EdDSA":
        return _ED25519.sign(signed)
    if algorithm == "ES256":
        signature = _P256.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))
    made = jwt.PyJWS().get_algorithm_by_name(algorithm)
    return made.sign(signed, made.prepare_key(SECRET))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
