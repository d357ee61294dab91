"""The command `hub`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jwt
import typer
from pydantic import SecretStr

from hub.app import Hub
from hub.cli.roll import roll
from hub.cli.subscribe import listen
from hub.client.publisher import Publisher
from hub.config import load
from hub.errors import HubError, SettingsError
from hub.node.authenticator import KEY_BYTES
from hub.server import server
from hub.settings import Settings

app = typer.Typer(
    name="hub",
    help="A real-time WebSocket hub that speaks the Centrifuge client protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None,
    typer.Option(help="TOML file with settings; without it, the one HUB_CONFIG names.", metavar="FILE"),
]
Dev = Annotated[
    bool, typer.Option("--dev", help="Development mode: open to everyone. [bold red]Never in production.[/]")
]


def main(arguments: list[str] | None = None) -> None:
    """Run the command; the process exits with 2 for faulty settings, and 1 for what failed otherwise.

    Args:
        arguments: those of the command line by default.
    """
    try:
        app(arguments)
    except HubError as error:
        for line in str(error).splitlines():
            print(f"hub: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


def _version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("hub"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to listen on.", show_default="8000")] = None,
    config: Config = None,
    dev: Dev = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port. Several need Redis.", show_default="1")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="URL of the Redis that joins several nodes.", metavar="URL"),
    ] = None,
) -> None:
    """Run a hub until a signal ends it."""
    flags = {
        "dev": dev or None,
        "server": {"host": host, "port": port, "workers": workers},
        "redis": {"url": redis},
    }
    server.serve(partial(load, config, _given(flags)))


tokens = typer.Typer(invoke_without_command=True)
app.add_typer(tokens, name="token")


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
    client = load(config, _given({"dev": dev or None})).client
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
    claims |= {"info": _json_option("--info", info)} if info is not None else {}
    print(jwt.encode(claims, secret, algorithm="HS256"))


@tokens.command()
def keys() -> None:
    """Print a new key for `client.reconnect.keys`."""
    print(secrets.token_urlsafe(KEY_BYTES))


@app.command("config")
def show_config(config: Config = None) -> None:
    """Check the settings, and print the effective ones as TOML, with the secrets hidden."""
    settings = Hub(load(config)).settings  # which also finds a key that is none
    print("\n".join(_toml(settings.model_dump())).strip())


@app.command()
def publish(
    channel: Annotated[str, typer.Argument(help="Channel to publish to.")],
    data: Annotated[str, typer.Argument(help="JSON; what is not JSON is sent as a string.")],
    url: Annotated[
        str | None, typer.Option(help="Where the hub is.", show_default="the host and port of the settings")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of the server API.", show_default="that of the settings")
    ] = None,
    config: Config = None,
    dev: Dev = False,
) -> None:
    """Publish to a channel, through the server API of a running hub."""
    settings = load(config, _given({"dev": dev or None}))
    key = _key(settings, key)
    try:
        payload = _json(data)
    except ValueError:
        payload = data
    with Publisher(url or _url(settings), key) as publisher:
        position = publisher.publish(channel, payload)
    print(f"published to {channel}" + (f" at offset {position.offset}" if position.offset else ""))


@app.command()
def subscribe(
    channel: Annotated[str, typer.Argument(help="Channel to listen to.")],
    url: Annotated[
        str | None, typer.Option(help="Where the hub is.", show_default="the host and port of the settings")
    ] = None,
    token: Annotated[
        str, typer.Option(help="Token of the connection, as `hub token` makes one.", show_default="none")
    ] = "",
    since: Annotated[
        int | None, typer.Option(min=0, help="Print what came after this offset first.", metavar="OFFSET")
    ] = None,
    config: Config = None,
) -> None:
    """Print a channel's messages as they come: lines of JSON, or rows on a terminal. Ctrl-C ends it."""
    address = url or _url(load(config))
    try:
        asyncio.run(listen(address, channel, token=token, since=since))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


@app.command("roll")
def roll_hubs(
    urls: Annotated[
        list[str] | None,
        typer.Argument(help="Where the hubs are.", show_default="the host and port of the settings"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of the server API.", show_default="that of the settings")
    ] = None,
    config: Config = None,
    dev: Dev = False,
) -> None:
    """Restart running hubs one after another, so that no client loses anything.

    Each drains and begins anew; the next one follows once it serves again. A hub of several workers replaces
    them one by one.
    """
    settings = load(config, _given({"dev": dev or None}))
    for url in urls or [_url(settings)]:
        count = roll(url, _key(settings, key), settings.server.drain_timeout_s)
        print(f"{url} serves again, with {count} new {'node' if count == 1 else 'nodes'}", flush=True)


def _key(settings: Settings, given: str | None) -> str:
    key = given or settings.api.key.get_secret_value()
    if not key:
        raise SettingsError(
            "api.key: is empty; set it, or give --key (or --dev for a hub in development mode)"
        )
    return key


def _url(settings: Settings) -> str:
    anywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
    host = anywhere.get(settings.server.host, settings.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given: those that are not None."""
    nested = {key: _given(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in nested.items() if value not in (None, {})}


def _json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _json_option(name: str, text: str) -> Any:
    try:
        return _json(text)
    except ValueError as error:
        raise typer.BadParameter(f"must be JSON: {error}", param_hint=name) from None


def _toml(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    for key, value in table.items():
        if key not in tables and value is not None:
            yield f"{key} = {toml_value(value)}"
    for key, value in tables.items():
        if len(value) > sum(isinstance(below, Mapping) for below in value.values()):
            yield f"\n[{prefix}{key}]"
        yield from _toml(value, f"{prefix}{key}.")


def toml_value(value: object) -> str:
    """A setting's value as TOML, or stars in place of a secret."""
    if isinstance(value, SecretStr):
        return '"********"' if value.get_secret_value() else '""'
    if isinstance(value, str):
        # A URL may carry a password. JSON's escapes are also TOML's, but for DEL.
        shown = re.sub(r"(?<=://)[^/@]*@", "********@", value)
        return json.dumps(shown, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return str(value).lower()
