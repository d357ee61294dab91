"""The command `hub`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hub.cli.config import show_config
from hub.cli.load import PASSED_ON, load
from hub.cli.publish import publish
from hub.cli.roll import roll
from hub.cli.serve import serve
from hub.cli.subscribe import subscribe
from hub.cli.token import tokens
from hub.errors import HubError, SettingsError
from hub.version import VERSION, commit

app = typer.Typer(
    name="hub",
    help="A real-time WebSocket hub that speaks the Centrifuge client protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.add_typer(tokens, name="token")
app.command("config")(show_config)
app.command()(publish)
app.command()(subscribe)
app.command()(roll)
app.command(context_settings=PASSED_ON)(load)


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
        print(f"hub {VERSION}, commit {commit()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and the commit."),
    ] = False,
) -> None:
    pass
