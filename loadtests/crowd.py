"""A crowd of subscribers in a process of its own, so that who measures is not late for its sake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import uvloop

from loadtests.faults.clients import Publisher, Subscriber, sdk_backoff, subscribed
from loadtests.faults.cluster import History
from loadtests.faults.verdict import Account, Verdict, judge
from loadtests.remote import Remote, next_question

START_TIMEOUT_S = 60.0
CONNECT_STEP = 100


@dataclass(frozen=True)
class Moves:
    """What became of a crowd's sockets since they were open. Times are monotonic.

    Args:
        lost_at: when sockets broke.
        back_at: when subscriptions stood again.
        refused_at: when handshakes were refused.
        away: clients that are not subscribed.
        logins: how often they asked the app for a token, the first time of each among them.
    """

    lost_at: list[float]
    back_at: list[float]
    refused_at: list[float]
    away: int
    logins: int


class Crowd(Remote):
    """Subscribers that connect at once, or in steps: `async with Crowd(…) as crowd`.

    Args:
        ports: of the nodes, the preferred one first.
        channels: that they follow, spread evenly.
        count: of them.
        backoff: of each when it comes back.
        at_once: whether all connect at the same time, and are not waited for.
    """

    def __init__(
        self,
        ports: Sequence[int],
        channels: Sequence[str],
        count: int,
        backoff: Callable[[int], float] = sdk_backoff,
        *,
        at_once: bool = False,
    ) -> None:
        super().__init__(_run, list(ports), list(channels), count, backoff, at_once)

    async def moves(self) -> Moves:
        """What became of them."""
        moves: Moves = await self.ask("moves")
        return moves

    async def judge(self, publishers: Sequence[Publisher], histories: Mapping[str, History]) -> Verdict:
        """What they have against what was published; called until they have it all, or for long enough."""
        accounts = [
            Account(publisher.published, publisher.refused, publisher.dropped, publisher.acknowledged)
            for publisher in publishers
        ]
        verdict: Verdict = await self.ask("judge", accounts, dict(histories))
        return verdict


def _run(
    pipe: Connection,
    ports: list[int],
    channels: list[str],
    count: int,
    backoff: Callable[[int], float],
    at_once: bool,
) -> None:
    uvloop.run(_serve(pipe, ports, channels, count, backoff, at_once))


async def _serve(
    pipe: Connection,
    ports: list[int],
    channels: list[str],
    count: int,
    backoff: Callable[[int], float],
    at_once: bool,
) -> None:
    crowd: list[Subscriber] = []
    for number in range(count):
        crowd.append(Subscriber(ports, channels[number % len(channels)], backoff))
        if not at_once and number % CONNECT_STEP == CONNECT_STEP - 1:
            await subscribed(crowd, START_TIMEOUT_S)
    if not at_once:
        await subscribed(crowd, START_TIMEOUT_S)
    pipe.send("ready")
    while (question := await next_question(pipe)) is not None:
        if question[0] == "moves":
            pipe.send(_moves(crowd))
        else:
            pipe.send(await _judge(crowd, *question[1:]))
    for client in crowd:
        client.end()


def _moves(crowd: Sequence[Subscriber]) -> Moves:
    return Moves(
        [at for client in crowd for at in client.lost_at],
        [at for client in crowd for at in client.back_at[1:]],
        [at for client in crowd for at in client.refused_at],
        sum(not client.subscribed.is_set() for client in crowd),
        sum(client.logins for client in crowd),
    )


async def _judge(
    crowd: Sequence[Subscriber], accounts: Sequence[Account], histories: Mapping[str, History]
) -> Verdict:
    await settled(crowd, histories)
    return judge(crowd, accounts, histories, history_reads=0)


async def settled(crowd: Sequence[Subscriber], histories: Mapping[str, History]) -> None:
    """Wait until all have what there is, or for long enough."""
    tops = {channel: (history.epoch, history.offset) for channel, history in histories.items()}
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:
        if all((client.epoch, client.offset) == tops[client.channel] for client in crowd):
            break
        await asyncio.sleep(0.1)
