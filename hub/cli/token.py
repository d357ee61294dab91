"""`hub token`: print tokens for clients, and keys for reconnect tokens."""

from __future__ import annotations

import secrets
import time
import warnings
from typing import Annotated, Any

import jwt
import typer
from jwt.warnings import InsecureKeyLengthWarning

from hub.cli.options import Config, Dev, given, json_option
from hub.config import load
from hub.errors import SettingsError
from hub.node.authenticator import KEY_BYTES

tokens = typer.Typer(invoke_without_command=True)


@tokens.callback()
def token(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Id of the user.", show_default="required")] = None,
    channel: Annotated[
        str | None, typer.Option(help="Make a subscription token for this channel, not a connection token.")
    ] = None,
    ttl: Annotated[int, typer.Option(min=0, help="Seconds that the token is good for; 0: for ever.")] = 3600,
    info: Annotated[
        str | None, typer.Option(help="What others see of the user, in presence for one.", metavar="JSON")
    ] = None,
    config: Config = None,
    dev: Dev = False,
) -> None:
    """Print a token for a client, signed with the settings' HMAC secret."""
    if context.invoked_subcommand:
        return
    if user is None:
        raise typer.BadParameter("is missing", param_hint="--user")
    client = load(config, given({"dev": dev or None})).client
    keys, key = client.token, "client.token.hmac_secret"
    if channel is not None and client.subscription_token is not None:
        keys, key = client.subscription_token, "client.subscription_token.hmac_secret"
    if not (secret := keys.hmac_secret.get_secret_value()):
        raise SettingsError(f"{key}: is empty; set it, so that tokens can be signed")
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user, "iat": now}
    claims |= {"exp": now + ttl} if ttl else {}
    claims |= {"aud": keys.audience} if keys.audience else {}
    claims |= {"iss": keys.issuer} if keys.issuer else {}
    claims |= {"channel": channel} if channel is not None else {}
    claims |= {"info": json_option("--info", info)} if info is not None else {}
    with warnings.catch_warnings(category=InsecureKeyLengthWarning, action="ignore"):  # in development alone
        print(jwt.encode(claims, secret, algorithm="HS256"))


@tokens.command()
def keys() -> None:
    """Print a new key for `client.reconnect.keys`."""
    print(secrets.token_urlsafe(KEY_BYTES))
