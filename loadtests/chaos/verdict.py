"""What a run proved: a table of promises, each with what was found."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from hub.protocol.codes import Errors
from loadtests.chaos.clients import Asking, StreamSubscriber
from loadtests.chaos.stage import Stage
from loadtests.faults.cluster import History
from loadtests.faults.verdict import judge

GONE_S = 15.0
"""How long the nodes have to end the connections of a revoked user, after the last outage."""
WHOLE_S = 30.0
"""How long a vandalised channel has to work again, after its keys were deleted."""
ROUND_S = 3.0
"""After so long a publication that did not arrive is followed by another one."""
OUTAGE_MARGIN_S = 4.0
"""Publishes may be refused for so long after an outage: the longest back-off, and a state that ends."""
RETURN_MARGIN_S = 1.5
"""A node may take its Redis for away so long after an outage: the longest back-off, and time to connect."""
MEMORY_BYTES_MAX = 64 << 20
"""What a node may hold more, once all clients are gone, than it held when all were connected."""
PEAK_BYTES_MAX = 192 << 20
"""What a node may hold more at any time: answers wait for clients that do not read."""
COMPLAINTS = ("never retrieved", "Task was destroyed", "was never awaited", "Fatal error on transport")
"""What Python writes when an exception reached nobody."""


@dataclass(frozen=True)
class Row:
    """A promise, whether it held, and the figures."""

    promise: str
    holds: bool
    found: str


@dataclass
class Verdict:
    """All promises of a run."""

    rows: list[Row] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all promises held."""
        return all(row.holds for row in self.rows)

    def add(self, promise: str, holds: bool, found: object) -> None:
        """Add a row."""
        self.rows.append(Row(promise, holds, str(found)))

    def add_levels(self, above: Mapping[str, str], full: list[int], now: list[int], most: list[int]) -> None:
        """Add the levels after all clients left.

        Args:
            above: the levels that stayed above those of the start.
            full: resident bytes of each node when all clients were connected, before the faults.
            now: the same at the end.
            most: the most that each node ever held.
        """
        for name in ("tasks", "timers", "descriptors", "subscriptions", "connections"):
            whose = {"subscriptions": "Redis subscriptions", "connections": "connections to Redis"}
            self.add(
                f"{whose.get(name, name)} are back at the start's level",
                name not in above,
                above.get(name, "yes"),
            )
        grown = max(end - begin for begin, end in zip(full, now, strict=True))
        self.add(
            f"a node holds at most {MEMORY_BYTES_MAX >> 20} MB more than with all clients, before the faults",
            grown <= MEMORY_BYTES_MAX,
            f"MB before: {[each >> 20 for each in full]}, after: {[each >> 20 for each in now]}",
        )
        grown = max(peak - begin for begin, peak in zip(full, most, strict=True))
        self.add(
            f"a node never held over {PEAK_BYTES_MAX >> 20} MB more",
            grown <= PEAK_BYTES_MAX,
            f"MB at the most: {[each >> 20 for each in most]}",
        )
        if "all" in above:
            self.add("the levels can be measured", False, above["all"])

    def table(self) -> str:
        """The rows, for people."""
        width = max(len(row.promise) for row in self.rows)
        return "\n".join(
            f"{'held  ' if row.holds else 'MISSED'}  {row.promise:<{width}}  {row.found}" for row in self.rows
        )


async def check(stage: Stage, histories: Mapping[str, History]) -> Verdict:
    """Check all that can be seen while the clients are connected."""
    verdict = Verdict()
    _add_delivery(verdict, stage, histories)
    _add_refusals(verdict, stage)
    await _add_exiles(verdict, stage)
    await _add_bystanders(verdict, stage)
    verdict.add(
        "every command got an answer, and every fault ran", not stage.failures, stage.failures or "yes"
    )
    await _add_nodes(verdict, stage)
    return verdict


def _add_delivery(verdict: Verdict, stage: Stage, histories: Mapping[str, History]) -> None:
    figures = judge(stage.honest, stage.publishers, histories, history_reads=0)
    verdict.add(
        "publications were acknowledged",
        figures.acknowledged > 0,
        f"{figures.acknowledged:,} of {figures.published:,}",
    )
    verdict.add("honest clients lost nothing", not figures.lost, f"{figures.lost:,} of {figures.delivered:,}")
    verdict.add("nothing came twice", not figures.duplicated, figures.duplicated)
    verdict.add("nothing came out of order", not figures.out_of_order, figures.out_of_order)
    told = [
        f"{client.channel} {type(client).__name__} at {client.told_at - stage.began:.1f} s"
        for client in stage.honest
        if client.told
    ]
    found = f"{figures.told}: {told[:5]}"
    verdict.add("no honest client was told 2500 or not recovered", not figures.told, found)
    broken: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    refused: Counter[int] = Counter()
    for client in stage.honest:
        relayed = isinstance(client, StreamSubscriber) and client.posts_elsewhere
        broken[relayed][f"{type(client).__name__} {client.codes}"] += client.dropped
        refused.update(client.connect_errors)
    broken = {relayed: +counts for relayed, counts in broken.items()}
    verdict.add("no connection of an honest client broke", not broken[False], dict(broken[False]) or 0)
    # Where Redis is away, a node cannot note that a client never received the token that replaces its own.
    # The client's next connect then looks like that of a thief.
    is_explained = not refused.keys() - {Errors.INTERNAL.code, Errors.TOKEN_EXPIRED.code}
    verdict.add("refused connects: not now, or a token presented twice", is_explained, dict(refused) or 0)
    # A command that a node passes on may be lost with the connection between the nodes.
    verdict.add("and for streams whose commands another node passes on", True, dict(broken[True]) or 0)
    unanswered = Counter(type(client).__name__ for client in stage.honest for _ in range(client.unanswered))
    is_relayed = not unanswered.keys() - {"StreamSubscriber"}
    verdict.add("subscribe commands without an answer: those passed on", is_relayed, dict(unanswered) or 0)
    verdict.add("longest way of a publication", True, f"{figures.lateness_s:.1f} s")


def _add_refusals(verdict: Verdict, stage: Stage) -> None:
    """A publish may be refused during an outage and shortly after it, and at no other time."""
    refusals = [each for publisher in stage.publishers for each in publisher.refusals]
    unexplained = [
        (round(at - stage.began, 1), code)
        for at, code in refusals
        if not stage.is_outage(at, OUTAGE_MARGIN_S)
    ]
    found = f"{len(unexplained)} of {len(refusals)} refusals: {unexplained[:5]}"
    verdict.add("publishes to sound channels were refused in outages alone", not unexplained, found)


async def _add_exiles(verdict: Verdict, stage: Stage) -> None:
    exiles = [each for each in itertools.chain(*stage.exiles.values()) if each.revoked_at]
    await _until(lambda: not any(each.is_in for each in exiles), GONE_S)
    there = [each for each in exiles if each.is_in]
    users = {each.user for each in exiles}
    left = sorted({each.user for each in there})
    found = f"{len(there)} of {len(exiles)} connections of {len(users)} users are there: {left}"
    verdict.add("every revoked user is gone from every node", not there, found)
    longest = max((each.gone_at - each.revoked_at for each in exiles if not each.is_in), default=0.0)
    verdict.add(
        "longest time until a revoked connection ended",
        True,
        f"{max(0.0, longest):.1f} s, {len(stage.unconfirmed)} unconfirmed",
    )
    returns = [each for exile in exiles for each in exile.returns]
    # A node that is cut off from Redis accepts reconnect tokens, and ends those that were revoked afterwards.
    unexplained = [each for each in returns if not stage.is_outage(each[0], RETURN_MARGIN_S)]
    attempts = sum(each.attempts for each in exiles)
    found = f"{len(unexplained)} of {attempts} attempts, and {len(returns) - len(unexplained)} in outages"
    verdict.add("no revoked user came back by a reconnect token but in outages", not unexplained, found)


async def _add_bystanders(verdict: Verdict, stage: Stage) -> None:
    """Publish once into each vandalised channel: its old subscribers and a new one get it."""
    newcomer = Asking(stage.cluster.ports, "newcomer")
    try:
        answers = {}
        for channel in stage.victims():
            try:
                answers[channel] = await newcomer.ask("subscribe", {"channel": channel}, WHOLE_S)
            except TimeoutError:
                answers[channel] = None
    finally:
        newcomer.end()
    unanswered = {
        channel: reply for channel, reply in answers.items() if not reply or "subscribe" not in reply
    }
    verdict.add("a new client subscribes to each vandalised channel", not unanswered, unanswered or "yes")
    # The first publication after the keys were deleted begins an epoch: subscribers are told of it by 2500,
    # and do not receive it. They receive the next one.
    last: list[str] = []
    refused: dict[str, Any] = {}
    deadline = asyncio.get_running_loop().time() + WHOLE_S
    while True:
        last.append(f"last {len(last)}")
        for channel in stage.victims():
            reply = await stage.api(0, "publish", channel=channel, data=last[-1])
            if "error" in reply:
                refused[channel] = reply
        await _until(lambda: all(each.last in last for each in stage.bystanders), ROUND_S)
        deaf = [each.channel for each in stage.bystanders if each.last not in last]
        if not deaf or asyncio.get_running_loop().time() > deadline:
            break
    verdict.add("a publish to each vandalised channel succeeds", not refused, refused or "yes")
    told = sum(each.told for each in stage.bystanders)
    found = f"{deaf or 'yes'}; told 2500 {told} times"
    verdict.add("its subscribers receive what is published from then on", not deaf, found)
    unreadable = sum(each.unreadable for each in stage.bystanders)
    verdict.add("no client received a message that is not JSON", not unreadable, unreadable)


async def _add_nodes(verdict: Verdict, stage: Stage) -> None:
    states: list[Any] = []
    async with httpx.AsyncClient(timeout=10.0) as client:
        for node in stage.cluster.nodes:
            states.append((await client.get(f"{node.url}/readyz")).json()["status"])
    verdict.add("both nodes are healthy at the end", states == ["healthy"] * 2, states)
    complaints = Counter(
        complaint
        for node in stage.cluster.nodes
        for complaint in COMPLAINTS
        for _ in range(node.log.count(complaint))
    )
    verdict.add("no exception reached nobody", not complaints, dict(complaints) or "none in the logs")
    lines = [node.log.count("\n") for node in stage.cluster.nodes]
    verdict.add("lines in the logs", True, lines)


async def _until(condition: Any, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition() and loop.time() < deadline:  # noqa: ASYNC110 - clients tell nobody
        await asyncio.sleep(0.1)
