"""`hub config`: check the settings, and print the effective ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from hub.app import Hub
from hub.checks import doubts
from hub.cli.options import Config
from hub.config import load
from hub.telemetry.redaction import without_secrets


def show_config(config: Config = None) -> None:
    """Check the settings, and print the effective ones as TOML, with the secrets hidden.

    What is doubtful in them is printed as a warning to stderr.
    """
    settings = Hub(load(config)).settings  # a hub also checks the keys
    for doubt in doubts(settings):
        print(f"hub: warning: {doubt}", file=sys.stderr)
    print("\n".join(_toml(settings.model_dump())).strip())


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
        shown = without_secrets(value) if "://" in value else value
        # JSON's escapes are also TOML's, but for DEL.
        return json.dumps(shown, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return str(value).lower()
