"""Reading the settings: a TOML file, then the environment, then flags, into one frozen `Settings`."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from hub.errors import SettingsError
from hub.settings import PREFIX, RELATION, Section, Settings
from hub.telemetry.redaction import without_secrets

_ALIASES = {"HUB_PORT": "HUB_SERVER__PORT"}
_FILE_VARIABLE = "HUB_CONFIG"


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings: the file, over it the environment, over both the overrides.

    Where `dev` is set by any of them, the result is that of `Settings.for_development`.

    Args:
        config: a TOML file; without it, the one that HUB_CONFIG names, if any.
        overrides: nested values by key, such as `{"server": {"port": 9000}}`.
        env: the environment, `os.environ` by default. `HUB_CLIENT__PING_INTERVAL_S` is
            `client.ping_interval_s`; `HUB_PORT` is `server.port`.

    Raises:
        SettingsError: an unknown key, a value of a wrong type, relations that do not hold, or a file that
            cannot be read: a line each, that names the key as it was written.
    """
    variables = {
        name.upper(): value
        for name, value in (os.environ if env is None else env).items()
        if name.upper().startswith(PREFIX)
    }
    read_again = partial(load, config, overrides, env)
    named = variables.pop(_FILE_VARIABLE, "")
    if config is None and named:
        config = Path(named)
    flags = dict(overrides or {})
    values = _merged(_from_file(config) if config else {}, _from_environment(variables))
    try:
        settings = Settings(**_merged(values, flags))
    except ValidationError as error:
        flagged = set(_leaves(flags))
        names = {key: name for name in variables if (key := _key(name)) not in flagged}
        lines = [without_secrets(line) for detail in error.errors() for line in _explained(detail, names)]
        raise SettingsError("\n".join(lines)) from None
    settings._origin.read_again = read_again
    return settings.for_development() if settings.dev else settings


def fields(model: type[Section] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting there is, as a dotted key (with `NAME` for a namespace) and what pydantic knows of it."""
    for name, field in model.model_fields.items():
        if (section := section_of(field)) is None:
            yield prefix + name, field
        else:
            of_name = "NAME." if get_origin(field.annotation) is dict else ""
            yield from fields(section, f"{prefix}{name}.{of_name}")


def section_of(field: FieldInfo) -> type[Section] | None:
    """The model of the table that a field holds, if it holds one."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or error
        raise SettingsError(
            f"{path}: cannot be read: {why}; give the path of a TOML file by --config or HUB_CONFIG"
        ) from None
    except ValueError as error:  # of the syntax or of the encoding
        raise SettingsError(f"{path}: is not valid TOML: {error}") from None


def _key(variable: str) -> str:
    """The dotted key that a variable of the environment stands for."""
    return _ALIASES.get(variable, variable).removeprefix(PREFIX).lower().replace("__", ".")


def _from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    known = [PREFIX + key.upper().replace(".", "__") for key, _ in fields()] + [*_ALIASES, _FILE_VARIABLE]
    tables = {key.rpartition(".")[0] for key, _ in fields()} | {"channels"}
    roots = sorted({name.partition("__")[0] + "__…" * ("__" in name) for name in known})
    lines = []
    for name in variables:
        if _key(name).partition(".")[0] not in Settings.model_fields:
            lines.append(f"{name}: is not a setting{_instead(name, known, roots)}")
        elif _key(name) in tables:
            lines.append(f"{name}: is a table; set its keys, as in {name}__KEY")
    if lines:
        raise SettingsError("\n".join(lines))
    source = EnvSettingsSource(Settings)
    # The short names come last, and so prevail.
    source.env_vars = {
        _ALIASES.get(name, name).lower(): variables[name]
        for name in sorted(variables, key=_ALIASES.__contains__)
    }
    return source()


def _explained(detail: ErrorDetails, names: Mapping[str, str]) -> Iterator[str]:
    """Lines for a person, of one of pydantic's errors; `names` has the variable that each key came from."""
    location = [part for part in detail["loc"] if isinstance(part, str)]  # and no index into a list
    key = ".".join(location)
    if detail["type"] == RELATION:
        yield from (f"{key}.{line}" if key else line for line in detail["msg"].split("\n"))
        return
    below = (name for of, name in names.items() if of.startswith(f"{key}.".lower()))
    shown = names.get(key.lower()) or next(below, key)
    message = detail["msg"].replace("Input should be", "must be").partition(", unable to ")[0]
    match detail["type"]:
        case "extra_forbidden":
            siblings = _siblings(location)
            yield f"{shown}: is not a setting{_instead(location[-1], siblings, siblings)}"
        case "value_error":
            yield f"{shown}: {detail['ctx']['error']}"
        case "model_type" | "dict_type":
            yield f"{shown}: must be a table"
        case _ if location[-1] in _SECRETS:
            yield f"{shown}: {message}"
        case _:
            yield f"{shown}: {message}, got {_bounded(detail['input'])}"


_SECRETS = {
    key.rpartition(".")[2]
    for key, field in fields()
    if SecretStr in (field.annotation, *get_args(field.annotation)) or not field.repr
}
"""Settings whose values are not shown: secrets, URLs that may carry one, and keys that may be private."""


def _siblings(location: list[str]) -> list[str]:
    model: type[Section] = Settings
    for part in location[:-1]:
        if part in model.model_fields:
            model = section_of(model.model_fields[part]) or model
    return list(model.model_fields)


def _instead(name: str, known: list[str], allowed: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed are {', '.join(allowed)}"


def _bounded(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
