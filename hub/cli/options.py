"""Options and arguments that several commands take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.errors import SettingsError
from hub.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(help="TOML file with settings; without it, the one HUB_CONFIG names.", metavar="FILE"),
]
Dev = Annotated[
    bool, typer.Option("--dev", help="Development mode: open to everyone. [bold red]Never in production.[/]")
]


def api_key(settings: Settings, option: str | None) -> str:
    """Return the key of the server API: an option's, or the settings'.

    Raises:
        SettingsError: neither is set.
    """
    key = option or settings.api.key.get_secret_value()
    if not key:
        raise SettingsError(
            "api.key: is empty; set it, or give --key (or --dev for a hub in development mode)"
        )
    return key


def url_of(settings: Settings) -> str:
    """Return the URL of the hub that runs on this machine with these settings."""
    anywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
    host = anywhere.get(settings.server.host, settings.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given: those that are not None."""
    nested = {key: given(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in nested.items() if value not in (None, {})}


def parse_json(text: str) -> Any:
    """Parse strict JSON.

    Raises:
        ValueError: the text is not JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def json_option(name: str, text: str) -> Any:
    """Parse the JSON of an option.

    Raises:
        typer.BadParameter: the text is not JSON.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        raise typer.BadParameter(f"must be JSON: {error}", param_hint=name) from None
