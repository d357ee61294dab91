"""`hub subscribe`: print the messages of a channel, as lines of JSON or as rows on a terminal."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from hub.cli.options import Config, url_of
from hub.client.client import Client
from hub.client.values import Connecting, Disconnected, Error, Published, Subscribed, Unsubscribed
from hub.config import load
from hub.errors import RequestError
from hub.protocol.messages import StreamPosition

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


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
    address = url or url_of(load(config))
    try:
        asyncio.run(listen(address, channel, token=token, since=since))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from None


async def listen(url: str, channel: str, *, token: str = "", since: int | None = None) -> None:
    """Print the publications of a channel, until a signal or the hub ends it.

    Args:
        url: of the hub.
        channel: its name.
        token: for the connection, where the hub asks for one.
        since: print the publications after this offset first.

    Raises:
        RequestError: the hub refused the token or the channel, or no hub answers at the address.
    """
    printer = _Printer()
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(error: RequestError | None = None) -> None:
        if over.done():
            return
        if error is None:
            over.set_result(None)
        else:
            over.set_exception(error)

    client = Client(url, token=token, name="hub subscribe")

    @client.on_error
    def failed(event: Error) -> None:
        if printer.began:
            printer.note(str(event.error))
        elif not _is_refusal(event.error):  # of a refusal, the next event tells
            why = str(event.error) or type(event.error).__name__
            end(RequestError(0, f"no hub answered at {url}: {why}; is it running?", temporary=True))

    @client.on_connecting
    def connecting(event: Connecting) -> None:
        if event.attempt:
            printer.note(f"{event.reason}; trying again in {event.delay_s:.1f} s")

    @client.on_disconnected
    def disconnected(event: Disconnected) -> None:
        end(RequestError(event.code, f"the hub at {url} refused the connection: {event.reason}"))

    # Without an epoch the hub takes the offset at its word.
    position = StreamPosition(since) if since is not None else None
    subscription = client.new_subscription(channel, recoverable=True, since=position)
    subscription.on_publication(printer.publication)
    subscription.on_subscribed(printer.subscribed)

    @subscription.on_unsubscribed
    def unsubscribed(event: Unsubscribed) -> None:
        end(RequestError(event.code, f"the hub refused {channel}: {event.reason}"))

    await subscription.subscribe()
    with _signals(end):
        async with client:
            await over


def _is_refusal(error: Exception) -> bool:
    """Whether the hub refused for good, so that the client or the subscription ends."""
    return isinstance(error, RequestError) and error.code >= 100 and not error.temporary


class _Printer:
    """Prints publications to stdout, and notes to stderr."""

    def __init__(self) -> None:
        self.began = False
        """Whether the subscription was made once."""
        self._out = Console(soft_wrap=True, highlight=False)
        self._err = Console(stderr=True, soft_wrap=True, highlight=False)

    def subscribed(self, event: Subscribed) -> None:
        if event.was_recovering and not event.recovered:
            self.note("the history no longer holds what was missed")
        elif self._out.is_terminal:
            self.note("listening again" if self.began else f"listening to {event.channel}: Ctrl-C ends it")
        self.began = True

    def publication(self, event: Published) -> None:
        pub = event.pub
        if not self._out.is_terminal:
            print(json.dumps(_fields(event), ensure_ascii=False), flush=True)
            return
        at = datetime.fromtimestamp(pub.time / 1000) if pub.time else datetime.now()
        row = Text.assemble(
            (f"{at:%H:%M:%S}  ", "dim"),
            (f"{pub.offset or '':>6}  ", "cyan"),
            (f"{pub.info.user if pub.info else '':<12}  ", "green"),
            json.dumps(pub.data, ensure_ascii=False),
        )
        self._out.print(row)

    def note(self, text: str) -> None:
        self._err.print(Text(f"hub: {text}", "yellow"))


def _fields(event: Published) -> dict[str, Any]:
    pub = event.pub
    fields: dict[str, Any] = {"channel": event.channel, "data": pub.data}
    fields |= {"offset": pub.offset} if pub.offset else {}
    fields |= {"time": pub.time} if pub.time else {}
    fields |= {"tags": pub.tags} if pub.tags else {}
    fields |= {"user": pub.info.user, "client": pub.info.client} if pub.info else {}
    return fields


@contextmanager
def _signals(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` at Ctrl-C and SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        with suppress(NotImplementedError):  # on Windows, where Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in _SIGNALS:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
