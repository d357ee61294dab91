"""The tables of README.md and of pages in docs, written from the code and the tests between two marks."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

from hub.cli.config import toml_value
from hub.config import fields, section_of
from hub.settings import Section, Settings
from hub.telemetry import EVENTS
from loadtests.fuzz import differences

ROOT = Path(__file__).parent.parent
_BETWEEN = re.compile(r"(?<=<!-- from the code: scripts/docs -->\n).*(?=<!-- end -->)", re.DOTALL)


def settings_tables() -> Iterator[str]:
    """Every setting, a table for each table of the file."""
    shown: dict[type[Section], str] = {}
    for name, section, description in [("", Settings, ""), *_sections(Settings)]:
        yield f"### `[{name}]`\n" if name else "### At the top of the file\n"
        if section in shown:
            yield f"{description} They are set as in `[{shown[section]}]`.\n"
            continue
        shown[section] = name
        if name:
            yield f"{(section.__doc__ or '').partition(': ')[2]}\n"
        yield from _table(section)


def settings_overview() -> Iterator[str]:
    """Every setting with its default, a row for each table of the file."""
    yield "| table | keys, with their defaults |"
    yield "| --- | --- |"
    shown: dict[type[Section], str] = {}
    for name, section, _ in [("", Settings, ""), *_sections(Settings)]:
        if section in shown:
            keys = f"as `[{shown[section]}]`, for subscriptions; where it is absent those keys serve for both"
        else:
            keys = ", ".join(
                f"`{key} = {toml_value(field.default)}`" for key, field in fields(section) if "." not in key
            )
        shown.setdefault(section, name)
        yield f"| {f'`[{name}]`' if name else 'at the top'} | {keys} |"


def events_table() -> Iterator[str]:
    """Every event of the log."""
    yield "| event | level | when | fields |"
    yield "| --- | --- | --- | --- |"
    for name, event in sorted(EVENTS.items()):
        shown = " ".join(f"`{field}`" for field in event.fields)
        yield f"| `{name}` | {', '.join(event.levels)} | {event.when} | {shown} |"


def mistakes_tables() -> Iterator[str]:
    """Every mistake that the tests make, a table for each kind."""
    groups = tomllib.loads((ROOT / "tests" / "mistakes" / "mistakes.toml").read_text(encoding="utf-8"))
    for group in groups.values():
        yield f"### {group.pop('title')}\n"
        yield "| mistake | seen in | says |"
        yield "| --- | --- | --- |"
        for row in group.values():
            says = row["says"].replace("|", "\\|")
            fence = "``" if "`" in says else "`"
            padding = " " if says.startswith("`") or says.endswith("`") else ""
            yield f"| {row['mistake']} | {row['seen']} | {fence}{padding}{says}{padding}{fence} |"
        yield ""


def pages() -> dict[Path, str]:
    """What each page should hold."""
    tables = {
        "README.md": settings_overview(),
        "docs/settings.md": settings_tables(),
        "docs/events.md": events_table(),
        "docs/fuzzing.md": differences.table(),
        "docs/mistakes.md": mistakes_tables(),
    }
    result = {}
    for name, table in tables.items():
        text = "\n".join(table)
        result[ROOT / name] = _BETWEEN.sub(lambda _, text=text: f"{text}\n", (ROOT / name).read_text())
    return result


def _table(section: type[Section]) -> Iterator[str]:
    yield "| key | default | what |"
    yield "| --- | --- | --- |"
    for key, field in fields(section):
        if "." not in key:
            default = toml_value(field.default)
            meaning = " ".join((field.description or "").split())  # a row of a table is one line
            yield f"| `{key}` | `{default}` | {meaning}{_allowed(field.annotation)} |"
    yield ""


def _sections(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section], str]]:
    for name, field in section.model_fields.items():
        if (below := section_of(field)) is not None:
            named = ".NAME" if typing.get_origin(field.annotation) is dict else ""
            yield f"{prefix}{name}{named}", below, field.description or ""
            yield from _sections(below, f"{prefix}{name}.")


def _allowed(annotation: object) -> str:
    if typing.get_origin(annotation) is not typing.Literal:
        return ""
    return f" One of {', '.join(f'`{toml_value(value)}`' for value in typing.get_args(annotation))}."


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(f"wrote {path}")
