"""hub/core/channel/subscription.py: a subscription from a channel's options, a grant and a request."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec import Raw
from support.sessions import options

from hub.core.channel.deltas import Deltas, whole
from hub.core.channel.filter import Filter, compiled
from hub.core.channel.subscription import FORMS_MAX, Grant, Subscription, build
from hub.core.hooks import SubscribeReply
from hub.core.tokens import ChannelOverrides
from hub.protocol.messages import (
    ClientInfo,
    DeltaPublication,
    FilterNode,
    Publication,
    Publications,
    SubscribeRequest,
)
from hub.settings import ChannelOptions

ANN = ClientInfo("ann", "client-1", Raw(b'"Ann"'))


def built(
    rules: ChannelOptions, grant: Grant | None = None, *, may_read_history: bool = True, **request: Any
) -> Subscription:
    asked = SubscribeRequest("room", **request)
    return build(rules, asked, ANN, grant or Grant(), server_side=False, may_read_history=may_read_history)


def test_a_plain_subscription() -> None:
    subscription = built(options())
    assert subscription.channel == "room"
    assert subscription.info == ANN
    assert not subscription.presence
    assert not subscription.announces
    assert not subscription.hears_joins
    assert not subscription.has_position
    assert (subscription.deadline, subscription.offset) == (math.inf, 0)


def test_the_channel_adds_to_what_others_see() -> None:
    assert built(options(), Grant(info=Raw(b"1"))).info == ClientInfo(
        "ann", "client-1", Raw(b'"Ann"'), Raw(b"1")
    )


@pytest.mark.parametrize(
    ("rules", "asked", "hears"),
    [
        (options(), True, False),
        (options(join_leave=True), False, False),
        (options(join_leave=True), True, True),
        (options(join_leave=True, force_push_join_leave=True), False, True),
    ],
)
def test_who_hears_of_joins(rules: ChannelOptions, asked: bool, hears: bool) -> None:
    subscription = built(rules, join_leave=asked)
    assert subscription.hears_joins is hears
    assert subscription.announces is rules.join_leave


@pytest.mark.parametrize("option", ["positioned", "recoverable"])
@pytest.mark.parametrize(
    ("changed", "asked", "may_read", "given"),
    [
        pytest.param({}, True, True, False, id="no history"),
        pytest.param({"history": True}, False, True, False, id="not asked for"),
        pytest.param({"history": True}, True, True, True, id="asked for"),
        pytest.param({"history": True}, True, False, False, id="not for this client"),
        pytest.param({"history": True, "force": True}, False, False, True, id="forced"),
    ],
)
def test_positions(option: str, changed: dict[str, Any], asked: bool, may_read: bool, given: bool) -> None:
    forced = {"positioned": "force_positioning", "recoverable": "force_recovery"}[option]
    rules = options(history="history" in changed, **({forced: True} if "force" in changed else {}))
    request: dict[str, Any] = {option: asked}
    subscription = built(rules, may_read_history=may_read, **request)
    assert getattr(subscription, option) is given
    assert subscription.has_position is given


NAMES = ["presence", "join_leave", "force_push_join_leave", "force_recovery", "force_positioning"]
SWITCHED_ON = options(history=True, **dict.fromkeys(NAMES, True))


@pytest.mark.parametrize("overrides", [ChannelOverrides, SubscribeReply])
@pytest.mark.parametrize(
    ("option", "seen"),
    [
        ("presence", "presence"),
        ("join_leave", "announces"),
        ("force_push_join_leave", "hears_joins"),
        ("force_recovery", "recoverable"),
        ("force_positioning", "positioned"),
    ],
)
def test_options_that_a_grant_replaces(overrides: Any, option: str, seen: str) -> None:
    off = options(history=True, join_leave=option == "force_push_join_leave")
    assert getattr(built(SWITCHED_ON, Grant(overrides=overrides())), seen) is True
    assert getattr(built(SWITCHED_ON, Grant(overrides=overrides(**{option: False}))), seen) is False
    assert getattr(built(off, Grant(overrides=overrides(**{option: True}))), seen) is True


def test_no_grant_makes_a_history() -> None:
    grant = Grant(overrides=ChannelOverrides(force_recovery=True, force_positioning=True))
    assert not built(options(), grant).has_position


# What a subscriber is sent

GOALS = compiled(FilterNode(key="kind", cmp="eq", val="goal"))


def missed(*kinds: str) -> Publications:
    items: list[Publication] = [
        DeltaPublication(Raw(b'"%s%d"' % (b"-" * 50, number)), offset=number, tags={"kind": kind})
        for number, kind in enumerate(kinds, 1)
    ]
    return Publications(items, 1000)


def wishing(*, filter: Filter | None = None, delta: bool = False) -> Subscription:
    return build(
        options(allowed_delta_types=("fossil",)),
        SubscribeRequest("room", delta="fossil" if delta else ""),
        ANN,
        Grant(),
        server_side=False,
        may_read_history=False,
        filter=filter,
    )


def test_a_publication_for_one_alone() -> None:
    goal, foul = missed("goal", "foul")
    assert wishing().single(goal) is goal
    assert wishing(filter=GOALS).single(goal) is goal
    assert wishing(filter=GOALS).single(foul) is None
    assert wishing(delta=True).single(goal) == whole(goal)
    assert wishing(filter=GOALS, delta=True).single(foul) is None


@pytest.mark.parametrize(
    ("filter", "delta", "expected"),
    [
        (None, False, [(1, False), (2, False), (3, False)]),
        (GOALS, False, [(1, False), (3, False)]),
        (None, True, [(1, False), (2, True), (3, True)]),
        (GOALS, True, [(1, False), (3, True)]),
    ],
)
def test_a_page_is_what_the_subscriber_takes_of_it(
    filter: Filter | None, delta: bool, expected: list[tuple[int, bool]]
) -> None:
    page, deltas = missed("goal", "foul", "goal"), Deltas()
    taken = wishing(filter=filter, delta=delta).page(page, deltas)
    assert [(publication.offset, publication.delta) for publication in taken] == expected
    assert wishing(filter=filter, delta=delta).page(page, deltas) is taken


def test_few_forms_of_a_page_are_kept() -> None:
    page, deltas = missed("goal", "foul"), Deltas()
    for number in range(2 * FORMS_MAX):
        filter = compiled(FilterNode(key="kind", cmp="neq", val=str(number)))
        assert len(wishing(filter=filter).page(page, deltas)) == 2
    assert len(page.encoded) == FORMS_MAX
