"""hub/core/tokens.py: what a token may say, and every way in which one is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hub.core.tokens import (
    KEY_ID_CHARS_MAX,
    LEEWAY_S,
    TOKEN_BYTES_MAX,
    ChannelOverrides,
    ConnectionClaims,
    Expired,
    Invalid,
    SubscriptionClaims,
    SubscriptionGrant,
    UnknownKey,
    Verifier,
    VerifyingKey,
    jwk_key,
    pem_key,
)
from hub.errors import SettingsError
from hub.protocol.messages import NO_PAYLOAD

NOW = 1_700_000_000.0
SECRET = "s" * 64
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()

HMAC = Verifier(hmac_secret=SECRET)


def pem(private: Any) -> str:
    text: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def sign(claims: Any, key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jwt.PyJWS().encode(text, key, algorithm, headers=header or None)


def forge(header: Any, claims: Any, secret: bytes) -> str:
    """A token by hand, for what a library will not sign."""

    def segment(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    signed = segment(text) + b"." + segment(json.dumps(claims).encode())
    signature = hmac.new(secret, signed, hashlib.sha256).digest() if secret else b""
    return (signed + b"." + segment(signature)).decode()


def reason(outcome: object) -> str:
    assert isinstance(outcome, Invalid), outcome
    return outcome.reason


def accepted(claims: Any, verifier: Verifier = HMAC) -> ConnectionClaims:
    outcome = verifier.connection(sign(claims), NOW)
    assert isinstance(outcome, ConnectionClaims), outcome
    return outcome


# Algorithms and keys


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_hmac(algorithm: str) -> None:
    token = sign({"sub": "ann"}, SECRET, algorithm)
    assert HMAC.connection(token, NOW) == ConnectionClaims(user="ann")
    assert (
        reason(Verifier(hmac_secret="x" * 64).connection(token, NOW))
        == f"its signature ({algorithm}) is by another key: sign it with the hmac_secret of the hub"
    )


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", RSA_KEY),
        ("RS384", RSA_KEY),
        ("RS512", RSA_KEY),
        *EC_KEYS.items(),
        ("EdDSA", ED_KEY),
        ("EdDSA", ed448.Ed448PrivateKey.generate()),
    ],
)
def test_public_key(algorithm: str, key: Any) -> None:
    token = sign({"sub": "ann"}, key, algorithm)
    assert Verifier(public_key=pem(key)).connection(token, NOW) == ConnectionClaims(user="ann")
    assert "no public key" in reason(HMAC.connection(token, NOW))


def test_a_key_verifies_only_algorithms_of_its_kind() -> None:
    verifier = Verifier(public_key=pem(EC_KEYS["ES256"]))
    for algorithm, key in [("ES384", EC_KEYS["ES384"]), ("RS256", RSA_KEY), ("EdDSA", ED_KEY)]:
        assert "does not verify" in reason(verifier.connection(sign({}, key, algorithm), NOW))
    assert "does not verify" in reason(verifier.connection(sign({}, RSA_KEY, "PS256"), NOW))


def test_a_public_key_never_serves_as_hmac_secret() -> None:
    public = pem(RSA_KEY)
    token = forge({"alg": "HS256"}, {"sub": "eve"}, public.encode())
    assert "no HMAC secret" in reason(Verifier(public_key=public).connection(token, NOW))
    assert reason(Verifier(public_key=public, hmac_secret=SECRET).connection(token, NOW))
    assert reason(Verifier(hmac_secret=public).connection(token, NOW))


@pytest.mark.parametrize("algorithm", ["none", "None", "", "HS1", "ES256K", None, 5, [], {}])
def test_other_algorithms_are_refused(algorithm: object) -> None:
    both = Verifier(hmac_secret=SECRET, public_key=pem(RSA_KEY))
    for secret in (b"", SECRET.encode()):
        assert reason(both.connection(forge({"alg": algorithm}, {"sub": "eve"}, secret), NOW))
    assert reason(both.connection(forge({}, {"sub": "eve"}, SECRET.encode()), NOW))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_short_secret_is_accepted_where_it_is_allowed(algorithm: str) -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = sign({"sub": "ann"}, "secret", algorithm)
    verifier = Verifier(hmac_secret="secret", allow_short_secret=True)
    claims = verifier.connection(token, NOW)
    assert isinstance(claims, ConnectionClaims)
    assert claims.user == "ann"
    assert isinstance(verifier.connection(token[:-4] + "AAAA", NOW), Invalid)
    assert isinstance(Verifier(hmac_secret="secret").connection(token, NOW), Invalid)


def test_short_keys_are_refused() -> None:
    secret = "k" * 32
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = sign({}, secret, "HS512")
    assert "64 bytes" in reason(Verifier(hmac_secret=secret).connection(token, NOW))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = sign({}, WEAK_RSA_KEY, "RS256")
    assert reason(Verifier(public_key=pem(WEAK_RSA_KEY)).connection(token, NOW))


def test_an_unusable_public_key_is_a_settings_error() -> None:
    unusable = [
        "no key",
        pem(ec.generate_private_key(ec.SECP256K1())),
        pem(dsa.generate_private_key(key_size=2048)),
    ]
    for text in unusable:
        with pytest.raises(SettingsError, match="public_key must be"):
            Verifier(public_key=text)


def test_no_keys_at_all() -> None:
    assert reason(Verifier().connection(sign({}), NOW))
    assert reason(Verifier().connection(sign({}, RSA_KEY, "RS256"), NOW))


# Key sets


def test_the_key_set_gives_the_key_that_a_token_names() -> None:
    keys: dict[str, VerifyingKey] = {}
    verifier = Verifier(hmac_secret=SECRET, jwks=keys)
    token = sign({"sub": "ann"}, RSA_KEY, "RS256", kid="one")
    assert verifier.connection(token, NOW) == UnknownKey("one")
    assert verifier.subscription(token, NOW) == UnknownKey("one")
    keys["one"] = pem_key(pem(RSA_KEY))
    assert verifier.connection(token, NOW) == ConnectionClaims(user="ann")
    keys["one"] = pem_key(pem(EC_KEYS["ES256"]))
    assert "does not verify" in reason(verifier.connection(token, NOW))


def test_a_long_key_id_names_no_key() -> None:
    verifier = Verifier(jwks={})
    for length, outcome in ((KEY_ID_CHARS_MAX, UnknownKey), (KEY_ID_CHARS_MAX + 1, Invalid)):
        token = sign({}, ED_KEY, "EdDSA", kid="k" * length)
        assert isinstance(verifier.connection(token, NOW), outcome)


def test_tokens_that_name_no_key_of_the_set() -> None:
    unnamed = sign({"sub": "ann"}, RSA_KEY, "RS256")
    assert reason(Verifier(jwks={}).connection(unnamed, NOW))
    beside = Verifier(public_key=pem(RSA_KEY), hmac_secret=SECRET, jwks={})
    assert beside.connection(unnamed, NOW) == ConnectionClaims(user="ann")
    assert beside.connection(sign({"sub": "ann"}, kid="one"), NOW) == ConnectionClaims(user="ann")
    assert reason(beside.connection(forge({"alg": "RS256", "kid": 7}, {}, b""), NOW))


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [(RSA_KEY, {"RS256", "RS384", "RS512"}), (EC_KEYS["ES384"], {"ES384"}), (ED_KEY, {"EdDSA"})],
)
def test_jwk(key: Any, algorithms: set[str]) -> None:
    kind: Any = {"RS256": jwt.algorithms.RSAAlgorithm, "ES384": jwt.algorithms.ECAlgorithm}.get(
        min(algorithms), jwt.algorithms.OKPAlgorithm
    )
    jwk = kind.to_jwk(key.public_key(), as_dict=True)
    found = jwk_key(jwk)
    assert found is not None
    assert found.algorithms == algorithms
    one = max(algorithms)
    narrowed = jwk_key({**jwk, "alg": one, "use": "sig"})
    assert narrowed is not None
    assert narrowed.algorithms == {one}
    assert jwk_key({**jwk, "use": "enc"}) is None


def test_a_private_key_in_a_set_is_passed_over() -> None:
    assert jwk_key(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True)) is None


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 5, "e": []},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "PS256"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-999"},
        {"kty": ["RSA"]},
        {"kty": "RSA", "alg": []},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
    ],
)
def test_unusable_jwk(jwk: dict[str, Any]) -> None:
    assert jwk_key(jwk) is None


# Time


@pytest.mark.parametrize("claim", ["exp", "expire_at"])
def test_expiry_with_leeway(claim: str) -> None:
    token = sign({"sub": "ann", claim: NOW})
    assert isinstance(HMAC.connection(token, NOW + LEEWAY_S - 0.1), ConnectionClaims)
    assert HMAC.connection(token, NOW + LEEWAY_S) == Expired()
    assert HMAC.subscription(sign({"channel": "c", claim: NOW}), NOW + LEEWAY_S) == Expired()


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_not_valid_yet(claim: str) -> None:
    token = sign({"sub": "ann", claim: NOW})
    assert isinstance(HMAC.connection(token, NOW - LEEWAY_S), ConnectionClaims)
    assert "not valid yet" in reason(HMAC.connection(token, NOW - LEEWAY_S - 0.1))


def test_expire_at_stands_in_for_exp() -> None:
    later = int(NOW) + 60
    assert accepted({"exp": later}).expires_at == later
    assert accepted({"exp": later, "expire_at": later + 600}).expires_at == later + 600
    assert accepted({"exp": later, "expire_at": 0}).expires_at == 0
    assert accepted({}).expires_at == 0
    assert HMAC.connection(sign({"exp": NOW - 60, "expire_at": 0}), NOW) == Expired()


# Claims


def test_connection_claims() -> None:
    claims = b"""{"sub":"ann","jti":"t1","info":{"name":"Ann",\n "n":1.0},"meta":[1,2],"channels":["a","b"],
        "subs":{"news":{"info":"i","data":{"k":null},"override":{"presence":{"value":false},
        "force_recovery":{"value":true},"join_leave":{}}},"plain":{}},"unknown":1}"""
    outcome = HMAC.connection(sign(claims), NOW)
    assert isinstance(outcome, ConnectionClaims)
    assert (outcome.user, outcome.jti) == ("ann", "t1")
    assert outcome.info == Raw(b'{"name":"Ann",  "n":1.0}')
    assert outcome.meta == Raw(b"[1,2]")
    assert outcome.channels == ("a", "b")
    override = ChannelOverrides(presence=False, force_recovery=True)
    grant = SubscriptionGrant(Raw(b'"i"'), Raw(b'{"k":null}'), override)
    assert outcome.subs == {"news": grant, "plain": SubscriptionGrant()}


def test_absent_claims_and_nulls_are_alike() -> None:
    nulls = dict.fromkeys(["exp", "nbf", "iat", "aud", "iss", "jti", "info", "meta", "channels", "subs"])
    assert accepted(nulls) == accepted({}) == ConnectionClaims(user="")
    assert accepted(nulls).info is NO_PAYLOAD


@pytest.mark.parametrize("channel", ["chat:a", "", 7, False, [], {"a": 1}])
@pytest.mark.parametrize("times", [{}, {"exp": NOW - 3600}], ids=["valid", "expired"])
def test_a_subscription_token_is_no_login(channel: Any, times: dict[str, float]) -> None:
    """RFC 8725 section 3.11. An expired one must not make the client fetch another and try again."""
    outcome = HMAC.connection(sign({"sub": "ann", "channel": channel, **times}), NOW)
    assert "it is a subscription token" in reason(outcome)


def test_a_connection_token_is_no_subscription_token() -> None:
    for claims in ({"sub": "ann"}, {"sub": "ann", "exp": NOW - 3600, "channels": ["chat:a"]}):
        assert "it has no channel" in reason(HMAC.subscription(sign(claims), NOW))


def test_a_digest_of_channels_tells_other_channels_apart() -> None:
    def digest(**claims: Any) -> str:
        return accepted({"sub": "ann", **claims}).channels_digest()

    presence = {"override": {"presence": {"value": True}}}
    same = [
        digest(channels=["a", "b"]),
        digest(channels=["b", "a", "b"]),
        digest(channels=["b"], subs={"a": {"info": 1, "data": 2}}),
        digest(channels=["a"], subs={"a": {}, "b": {"override": {}}}),
    ]
    others = [
        digest(channels=["a"]),
        digest(channels=["a", "c"]),
        digest(channels=["a", "b", "c"]),
        digest(channels=["a,b"]),
        digest(channels=["a", "b"], subs={"a": presence}),
        digest(channels=["a", "b"], subs={"b": presence}),
    ]
    assert len(set(same)) == 1
    assert len({same[0], *others}) == 1 + len(others)
    assert digest() == digest(channels=[], subs={}) == ""


def test_subscription_claims() -> None:
    claims = {
        "sub": "ann",
        "channel": "news",
        "info": {"role": "editor"},
        "exp": int(NOW) + 9,
        "jti": "t2",
        "override": {"join_leave": {"value": True}},
    }
    assert HMAC.subscription(sign(claims), NOW) == SubscriptionClaims(
        user="ann",
        channel="news",
        expires_at=int(NOW) + 9,
        info=Raw(b'{"role": "editor"}'),
        override=ChannelOverrides(join_leave=True),
        jti="t2",
    )
    assert "it has no channel" in reason(HMAC.subscription(sign({"sub": "ann"}), NOW))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 42},
        {"sub": None},
        {"exp": "soon"},
        {"exp": -1},
        {"expire_at": 1e300},
        {"nbf": []},
        {"iat": True},
        {"aud": 5},
        {"aud": [5]},
        {"iss": {}},
        {"jti": 1},
        {"channels": "news"},
        {"channels": [1]},
        {"subs": []},
        {"subs": {"news": 1}},
        {"subs": {"news": {"override": {"presence": True}}}},
        {"subs": {"news": {"override": {"presence": {"value": "yes"}}}}},
        [],
        "text",
        None,
    ],
)
def test_claims_of_a_wrong_type(claims: Any) -> None:
    assert reason(HMAC.connection(sign(claims), NOW))


@pytest.mark.parametrize(
    "claims",
    [
        b"",
        b"\xff",
        b"{",
        b'{"sub":"a","sub":"b"}',
        b'{"info":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"info":"\\ud800"}',
        b'{"info":1e999}',
        b'{"exp":NaN}',
        b'{"exp":1e400}',
    ],
)
def test_claims_that_are_not_plain_json(claims: bytes) -> None:
    assert reason(HMAC.connection(sign(claims), NOW))


def test_audience() -> None:
    verifier = Verifier(hmac_secret=SECRET, audience="hub")
    assert accepted({"aud": "hub"}, verifier)
    assert accepted({"aud": ["other", "hub"]}, verifier)
    assert accepted({"aud": "anything"})
    refused: list[dict[str, Any]] = [{}, {"aud": "hu"}, {"aud": ["other"]}, {"aud": []}]
    for claims in refused:
        assert "for another audience" in reason(verifier.connection(sign(claims), NOW))


def test_issuer() -> None:
    verifier = Verifier(hmac_secret=SECRET, issuer="app")
    assert accepted({"iss": "app"}, verifier)
    assert accepted({"iss": "anything"})
    for claims in ({}, {"iss": "apps"}):
        assert "from another issuer" in reason(verifier.connection(sign(claims), NOW))


def test_a_reason_names_the_remedy() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    by_public_key = Verifier(public_key=pem(RSA_KEY))
    for verifier, token, remedy in [
        (HMAC, f"Bearer {sign({})}", "send the token alone, without a scheme or quotes"),
        (HMAC, sign({"sub": 7}), "a claim is of the wrong type: Expected `str`, got `int` - at `$.sub`"),
        (HMAC, sign({}, RSA_KEY, "RS256"), "or sign with HS256 and hmac_secret"),
        (by_public_key, sign({}), "set hmac_secret, or sign with a private key"),
        (by_public_key, sign({}, other, "RS256"), "sign it with the private key of public_key or jwks_url"),
        (by_public_key, sign({}, ED_KEY, "EdDSA"), "sign with RS256, RS384, RS512"),
    ]:
        assert remedy in reason(verifier.connection(token, NOW))


# Text that is no token


def test_a_long_token_is_refused_unread() -> None:
    token = sign({"info": "x" * TOKEN_BYTES_MAX})
    assert "longer than" in reason(HMAC.connection(token, NOW))
    assert "longer than" in reason(HMAC.connection("x" * (TOKEN_BYTES_MAX + 1), NOW))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "\ud800.a.b", "ey\0.e.e"])
def test_garbage(token: str) -> None:
    assert reason(HMAC.connection(token, NOW))


@pytest.mark.parametrize("header", [b"", b"[]", b"[" * 5000, b'{"alg":"HS256","crit":["x"]}', b"\xff"])
def test_hostile_header(header: bytes) -> None:
    assert reason(HMAC.connection(forge(header, {"sub": "eve"}, SECRET.encode()), NOW))


@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,80}\.[\w-]{0,80}\.[\w-]{0,80}", fullmatch=True))
def test_any_text_gets_an_answer(token: str) -> None:
    assert isinstance(HMAC.connection(token, NOW), Invalid)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_any_change_breaks_a_token(place: int, byte: int) -> None:
    token = sign({"sub": "ann", "info": {"a": 1}})
    place %= len(token)
    changed = token[:place] + chr(byte) + token[place + 1 :]
    outcome = HMAC.connection(changed, NOW)
    # The last character of a segment has bits that base64 does not use.
    assert changed == token or isinstance(outcome, Invalid) or outcome == HMAC.connection(token, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
claim_names = st.sampled_from(
    ["sub", "exp", "nbf", "iat", "aud", "iss", "jti", "info", "meta", "channels", "subs", "expire_at", "x"]
)


@given(st.dictionaries(claim_names, json_values))
def test_any_claims_get_an_answer(claims: dict[str, Any]) -> None:
    token = sign(claims)
    assert isinstance(HMAC.connection(token, NOW), ConnectionClaims | Invalid | Expired)
    assert isinstance(HMAC.subscription(token, NOW), Invalid | Expired)


def test_a_token_that_is_nested_deeply_is_invalid() -> None:
    def part(text: bytes) -> str:
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    deep = part(b"[" * 1_900 + b"]" * 1_900)
    verifier = Verifier(hmac_secret=SECRET)
    for token in (f"{deep}.{deep}.{deep}", f"{part(b'{}')}.{deep}.{deep}"):
        assert isinstance(verifier.connection(token, 0), Invalid)
        assert isinstance(verifier.subscription(token, 0), Invalid)
