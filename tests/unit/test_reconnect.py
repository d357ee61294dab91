"""Reconnect tokens: what they hold, and which are refused."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import jwt
import msgspec
import pytest

from hub.core.channel.subscription import OPEN, Grant
from hub.core.hooks import STATE_BYTES_MAX
from hub.core.reconnect import (
    ReconnectClaims,
    ReconnectTokens,
    Restorable,
    SessionChain,
    is_reconnect_token,
    needs_login_token,
)
from hub.core.tokens import (
    LEEWAY_S,
    RECONNECT_TYPE,
    TOKEN_BYTES_MAX,
    ChannelOverrides,
    Expired,
    Invalid,
    Verifier,
)
from hub.protocol.messages import NO_PAYLOAD, Payload, payload
from hub.protocol.payloads import Packed

NOW = 1_700_000_000
KEY, OTHER = "k" * 32, "o" * 32
TOKENS = ReconnectTokens([KEY], "hub", 300)


def claims(**changed: object) -> ReconnectClaims:
    values: dict[str, object] = {
        "user": "ann",
        "client": "client-1",
        "chain": SessionChain(("session-2", "session-1"), NOW - 100, by_token=True),
        "info": NO_PAYLOAD,
        "expires_at": 0,
        "channels": {},
    }
    return ReconnectClaims(**{**values, **changed})  # type: ignore[arg-type]


def test_a_token_contains_the_session() -> None:
    override = ChannelOverrides(presence=True, force_recovery=False)
    channels = {
        "news": Restorable(Grant(payload({"a": 1}), payload("data"), NOW + 60, override), server_side=True),
        "private:x": Restorable(Grant(), server_side=False),
        "open": Restorable(OPEN, server_side=False),
    }
    made = claims(info=payload({"name": "Ann"}), expires_at=NOW + 1000.5, channels=channels)
    found = TOKENS.verify(TOKENS.sign(made, NOW), NOW)
    assert isinstance(found, ReconnectClaims)
    assert (found.user, found.client, found.chain) == ("ann", "client-1", made.chain)
    assert (found.info, found.expires_at) == (made.info, made.expires_at)
    news = found.channels["news"]
    assert (news.server_side, news.grant.info, news.grant.data) == (True, payload({"a": 1}), payload("data"))
    assert news.grant.expires_at == NOW + 60
    assert news.grant.overrides is not None
    assert (news.grant.overrides.presence, news.grant.overrides.force_recovery) == (True, False)
    assert news.grant.overrides.join_leave is None
    assert found.channels["private:x"].grant is not OPEN
    assert found.channels["open"] == Restorable(OPEN, server_side=False)


@pytest.mark.parametrize(
    ("info", "restored"),
    [
        (payload({"a": "é"}), payload({"a": "é"})),
        (b"\xff\n", b"\xff\n"),
        (Packed(msgspec.msgpack.encode([1])), payload([1])),
        (NO_PAYLOAD, NO_PAYLOAD),
    ],
)
def test_a_payload_keeps_its_form(info: Payload, restored: Payload) -> None:
    found = TOKENS.verify(TOKENS.sign(claims(info=info), NOW), NOW)
    assert isinstance(found, ReconnectClaims)
    assert found.info == restored


def test_a_token_is_told_apart_by_its_type() -> None:
    made = TOKENS.sign(claims(), NOW)
    assert is_reconnect_token(made)
    assert jwt.get_unverified_header(made)["typ"] == RECONNECT_TYPE
    assert jwt.PyJWS().decode(made, KEY, ["HS256"])
    for other in ("", "no token", jwt.encode({}, KEY), jwt.encode({}, KEY, headers={"typ": 7})):
        assert not is_reconnect_token(other)


def test_a_reconnect_token_is_not_valid_as_a_token_of_the_app() -> None:
    made = TOKENS.sign(claims(), NOW)
    verifier = Verifier(hmac_secret=KEY)
    for verdict in (verifier.connection(made, NOW), verifier.subscription(made, NOW)):
        assert isinstance(verdict, Invalid)
        assert "reconnect" in verdict.reason


def test_keys_rotate() -> None:
    old, both, new = (ReconnectTokens(keys, "hub", 300) for keys in ([KEY], [OTHER, KEY], [OTHER]))
    assert isinstance(both.verify(old.sign(claims(), NOW), NOW), ReconnectClaims)
    assert isinstance(new.verify(both.sign(claims(), NOW), NOW), ReconnectClaims)
    refused = new.verify(old.sign(claims(), NOW), NOW)
    assert isinstance(refused, Invalid)
    assert "no key" in refused.reason


def test_a_token_expires_and_clocks_may_differ() -> None:
    made = TOKENS.sign(claims(), NOW)
    assert isinstance(TOKENS.verify(made, NOW + 300 + LEEWAY_S - 1), ReconnectClaims)
    assert isinstance(TOKENS.verify(made, NOW + 300 + LEEWAY_S), Expired)
    assert isinstance(TOKENS.verify(made, NOW - 60), ReconnectClaims), "of a node whose clock is ahead"


@pytest.mark.parametrize(
    "changed",
    [
        {"expires_at": NOW + 20},
        {"channels": {"news": Restorable(Grant(expires_at=NOW + 20), server_side=True)}},
    ],
    ids=["the connection", "a subscription of the server's"],
)
def test_a_token_expires_with_the_connection_and_its_server_side_subscriptions(
    changed: dict[str, object],
) -> None:
    made = TOKENS.sign(claims(**changed), NOW)
    assert isinstance(TOKENS.verify(made, NOW + 20 + LEEWAY_S), Expired)
    assert TOKENS.sign(claims(**changed), NOW + 20) == ""


def test_a_clients_own_subscription_that_ends_does_not_end_the_token() -> None:
    channels = {"private:x": Restorable(Grant(expires_at=NOW + 20), server_side=False)}
    assert isinstance(TOKENS.verify(TOKENS.sign(claims(channels=channels), NOW), NOW + 60), ReconnectClaims)


def test_a_token_that_would_be_too_long_leaves_out_what_can_be_asked_again() -> None:
    info = payload("x" * 200)
    channels = {f"c{n}": Restorable(Grant(info), server_side=n == 0) for n in range(100)}
    made = TOKENS.sign(claims(channels=channels), NOW)
    found = TOKENS.verify(made, NOW)
    assert isinstance(found, ReconnectClaims)
    assert list(found.channels) == ["c0"]
    assert TOKENS.sign(claims(info=payload("x" * TOKEN_BYTES_MAX)), NOW) == ""


def signed(payload: bytes, key: str = KEY) -> str:
    return jwt.PyJWS().encode(payload, key, headers={"typ": RECONNECT_TYPE})


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (ReconnectTokens([KEY], "another", 300).sign(claims(), NOW), "another hub"),
        (signed(b"[]"), "Expected `object`"),
        (signed(b'{"aud":"hub"}'), "missing required field"),
        (signed(b"\xff"), "malformed"),
        (signed(b'{"x":' + b"[" * 5_000), "recursion"),
        (jwt.encode({}, KEY * 2, "HS512", {"typ": RECONNECT_TYPE}), "no reconnect token"),
        (jwt.encode({}, KEY, "HS256"), "no reconnect token"),
        ("no token \ud800", "no reconnect token"),
        ("x" * (TOKEN_BYTES_MAX + 1), "longer"),
    ],
)
def test_a_token_of_another_hub_is_invalid(token: str, reason: str) -> None:
    found = TOKENS.verify(token, NOW)
    assert isinstance(found, Invalid)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("token", "needs"),
    [
        (TOKENS.sign(claims(), NOW), True),
        (TOKENS.sign(claims(chain=SessionChain(("s",), NOW, by_token=False)), NOW), False),
        (signed(b"\xff"), True),
        (signed(b'{"anonymous":true,"x":' + b"[" * 9_000), True),
        ("a", True),
        ("a.b", True),
    ],
)
def test_a_refused_token_says_how_its_session_began(token: str, needs: bool) -> None:
    assert needs_login_token(token) == needs


# The connection's state


def test_a_state_is_in_the_token_and_nobody_can_read_it() -> None:
    state = b'{"cart":[1,2,3],"name":"a secret"}'
    made = TOKENS.sign(claims(state=state), NOW)
    found = TOKENS.verify(made, NOW)
    assert isinstance(found, ReconnectClaims)
    assert found.state == state
    payload_part = made.split(".")[1]
    readable = urlsafe_b64decode(payload_part + "=" * (-len(payload_part) % 4))
    sealed = json.loads(readable)["state"]
    for text in (readable, urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))):
        assert b"secret" not in text
        assert b"cart" not in text


def test_a_token_without_a_state_is_as_it_was() -> None:
    made = TOKENS.sign(claims(), NOW)
    assert b"state" not in urlsafe_b64decode(made.split(".")[1] + "==")
    found = TOKENS.verify(made, NOW)
    assert isinstance(found, ReconnectClaims)
    assert found.state == b""


def test_a_state_is_decrypted_by_the_key_that_signed_its_token() -> None:
    old = ReconnectTokens([OTHER], "hub", 300).sign(claims(state=b"1"), NOW)
    both = ReconnectTokens([KEY, OTHER], "hub", 300)
    found = both.verify(old, NOW)
    assert isinstance(found, ReconnectClaims)
    assert found.state == b"1"
    assert isinstance(TOKENS.verify(both.sign(claims(state=b"1"), NOW), NOW), ReconnectClaims)


def altered(**changed: object) -> str:
    """A token of the key whose claims were changed."""
    made = TOKENS.sign(claims(state=b'{"a":1}'), NOW)
    head, body, _ = made.split(".")
    content = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4))) | changed
    text = f"{head}.{urlsafe_b64encode(json.dumps(content).encode()).rstrip(b'=').decode()}"
    signature = hmac.digest(KEY.encode(), text.encode(), "sha256")
    return f"{text}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "changed",
    [
        {"state": "AgAAAAAAAAAAAAAAAAAAAAAAAAAA"},  # of another version
        {"state": "AQAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {"state": "AQ"},
        {"state": "A"},
        {"state": "\u00e9"},
        {"client": "client-2"},  # the state of another session
    ],
)
def test_a_state_that_cannot_be_decrypted_makes_the_token_invalid(changed: dict[str, object]) -> None:
    assert isinstance(TOKENS.verify(altered(), NOW), ReconnectClaims)
    verdict = TOKENS.verify(altered(**changed), NOW)
    assert isinstance(verdict, Invalid)
    assert "cannot decrypt the connection's state" in verdict.reason


def test_the_longest_state_fits_into_a_token() -> None:
    made = TOKENS.sign(claims(state=b"x" * STATE_BYTES_MAX, info=payload("i" * 1000)), NOW)
    assert isinstance(TOKENS.verify(made, NOW), ReconnectClaims)
