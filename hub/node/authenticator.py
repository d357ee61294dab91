"""Verifies the tokens of clients with the keys of the settings, and with keys that a URL publishes."""

from __future__ import annotations

import secrets
from typing import Final, Literal, TypeAlias

from hub.broker.base import Broker
from hub.broker.memory import MemoryBroker
from hub.core.effects import Verify
from hub.core.reconnect import ReconnectTokens
from hub.core.tokens import ConnectionClaims, Invalid, Refusal, SubscriptionClaims, UnknownKey, Verifier
from hub.errors import SettingsError
from hub.node.key_set import KeySet
from hub.protocol.codes import Error, Errors
from hub.settings import ClientSettings, Settings, TokenSettings

KEY_BYTES: Final = 32
"""Random bytes of a key of reconnect tokens."""

Verdict: TypeAlias = ConnectionClaims | SubscriptionClaims | Refusal


def reconnect_tokens(settings: Settings, broker: Broker) -> ReconnectTokens | None:
    """The signer of a hub's reconnect tokens; None if its nodes share no keys."""
    reconnect = settings.client.reconnect
    keys = [key.get_secret_value() for key in reconnect.keys]
    if not keys and isinstance(broker, MemoryBroker):
        keys = [secrets.token_urlsafe(KEY_BYTES)]
    return ReconnectTokens(keys, settings.redis.prefix, reconnect.ttl_s) if keys else None


class Authenticator:
    """The verifiers of connection and subscription tokens. One set of keys may serve for both.

    Args:
        client: the settings that hold the keys.
        token_secret: HMAC secret of connection tokens where the settings have none; empty for none.
        allow_short_secrets: as development mode does.

    Raises:
        SettingsError: a configured key is invalid.
    """

    def __init__(self, client: ClientSettings, token_secret: str, allow_short_secrets: bool) -> None:
        self._allow_short_secrets = allow_short_secrets
        self._key_sets: list[KeySet] = []
        connection = self._verifier("client.token", client.token, token_secret)
        subscription = connection
        if client.subscription_token is not None:
            subscription = self._verifier("client.subscription_token", client.subscription_token)
        self._connection, self._subscription = connection, subscription

    def _verifier(
        self, key: str, token: TokenSettings, token_secret: str = ""
    ) -> tuple[Verifier, KeySet | None]:
        key_set = KeySet(token.jwks_url) if token.jwks_url else None
        if key_set:
            self._key_sets.append(key_set)
        try:
            verifier = Verifier(
                hmac_secret=token.hmac_secret.get_secret_value() or token_secret,
                public_key=token.public_key,
                jwks=key_set.keys if key_set else None,
                audience=token.audience,
                issuer=token.issuer,
                allow_short_secret=self._allow_short_secrets,
            )
        except SettingsError as exc:
            raise SettingsError(f"{key}.{exc}") from None
        return verifier, key_set

    async def start(self) -> None:
        """Begin to fetch keys."""
        for key_set in self._key_sets:
            await key_set.start()

    async def stop(self) -> None:
        """Stop fetching keys."""
        for key_set in self._key_sets:
            await key_set.stop()

    def check(self, operation: Verify, now: float) -> Verdict:
        """Verify a token with the present keys. After `UnknownKey`, call `look_up`.

        Args:
            now: Unix seconds.
        """
        verifier, _ = self._of(operation.kind)
        if operation.kind == "connection":
            return verifier.connection(operation.token, now)
        return verifier.subscription(operation.token, now)

    async def look_up(self, operation: Verify, kid: str, now: float) -> Verdict | Error:
        """Verify a token that names a key which the key set lacks.

        Returns:
            The verdict; error 100 while nobody knows whether the issuer has such a key.
        """
        _, key_set = self._of(operation.kind)
        assert key_set is not None, "only a key set lacks a key"
        if await key_set.lacks(kid):
            return Invalid(f"the key set has no key {kid[:64]!r}")
        verdict = self.check(operation, now)
        return Errors.INTERNAL if isinstance(verdict, UnknownKey) else verdict

    def _of(self, kind: Literal["connection", "subscription"]) -> tuple[Verifier, KeySet | None]:
        return self._connection if kind == "connection" else self._subscription
