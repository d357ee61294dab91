"""hub/client/exchange.py: the tries of a call to the server API, their outcomes and errors."""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import msgspec
import pytest
from msgspec import Raw

from hub.client.exchange import (
    RETRY_MIN_S,
    TRY_MIN_S,
    APICall,
    HTTPAnswer,
    Pause,
    Try,
    TryFailure,
    call_of,
    call_of_body,
    checked_key,
    checked_url,
    exchange,
    is_hopeless,
    result_of,
)
from hub.errors import RequestError, SetupError, UnconfirmedError
from hub.protocol import api
from hub.protocol.payloads import Packed

URL = "http://hub"
KEYED = APICall("publish", b"{}", "k")
READ = APICall("history", b"{}")
COMMAND = APICall("disconnect", b"{}")
RESULT = HTTPAnswer(200, b'{"result":{"offset":1}}')
REFUSED = TryFailure("connection refused", was_sent=False)
CUT = TryFailure("cut off", was_sent=True)
BROKEN = HTTPAnswer(200, b'{"error":{"code":100,"message":"internal server error: Redis is away"}}')

Outcome: TypeAlias = HTTPAnswer | TryFailure


class Played:
    """A call whose tries end as a script says; its last line repeats.

    Args:
        call: what is made.
        script: an outcome for each try.
        budget_s: of the call.
        try_s: how long each try takes.
    """

    def __init__(self, call: APICall, *script: Outcome, budget_s: float = 5.0, try_s: float = 0.0) -> None:
        self.tries: list[float] = []
        self.pauses: list[float] = []
        self.result: Any = None
        self.now = 100.0
        outcomes = itertools.chain(script, itertools.repeat(script[-1]))
        steps = exchange(call, URL, budget_s, self.now, itertools.repeat(0.0))
        try:
            step = next(steps)
            while True:
                outcome = None
                if isinstance(step, Try):
                    self.tries.append(step.timeout_s)
                    outcome = next(outcomes)
                    self.now += try_s
                else:
                    self.pauses.append(step.duration_s)
                    self.now += step.duration_s
                step = steps.send((outcome, self.now))
        except StopIteration as end:
            self.result = end.value

    @property
    def value(self) -> Any:
        return msgspec.json.decode(self.result)


def failed(call: APICall, *script: Outcome, **times: float) -> RequestError:
    with pytest.raises(RequestError) as error:
        Played(call, *script, **times)
    assert "\n" not in str(error.value)
    return error.value


def test_an_answer_ends_the_call() -> None:
    played = Played(KEYED, RESULT)
    assert (played.value, played.pauses) == ({"offset": 1}, [])


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        *(
            (call, outcome)
            for call in (KEYED, READ)
            for outcome in (REFUSED, CUT, BROKEN, HTTPAnswer(503, b""))
        ),
        *((KEYED, HTTPAnswer(status, b"<html>")) for status in (408, 429, 500, 502, 504)),
        *((COMMAND, outcome) for outcome in (REFUSED, HTTPAnswer(503, b""), HTTPAnswer(429, b""))),
    ],
)
def test_a_call_is_made_again_where_a_repeat_is_safe(call: APICall, outcome: Outcome) -> None:
    played = Played(call, outcome, outcome, RESULT)
    assert played.value == {"offset": 1}
    assert played.pauses == [RETRY_MIN_S] * 2


@pytest.mark.parametrize("outcome", [CUT, BROKEN, HTTPAnswer(502, b""), HTTPAnswer(504, b"")])
def test_a_command_that_the_hub_may_have_carried_out_is_not_repeated(outcome: Outcome) -> None:
    error = failed(COMMAND, outcome, RESULT)
    assert isinstance(error, UnconfirmedError)
    assert (error.idempotency_key, error.temporary) == ("", True)
    assert "the hub may have carried out the call" in str(error)
    assert "idempotency_key" not in str(error)


def test_the_wait_between_tries_grows() -> None:
    pauses: list[float] = []
    steps = exchange(KEYED, URL, 60.0, 0.0, itertools.repeat(0.999_999))
    next(steps)
    for now in range(8):
        step = steps.send((REFUSED, float(now)))
        assert isinstance(step, Pause)
        pauses.append(round(step.duration_s, 3))
        steps.send((None, float(now)))
    assert pauses == [0.2, 0.3, 0.5, 0.9, 1.7, 2.0, 2.0, 2.0]


def test_each_try_has_half_of_the_time_that_is_left() -> None:
    with pytest.raises(UnconfirmedError) as error:
        Played(KEYED, CUT, budget_s=8.0, try_s=2.0)
    assert str(error.value) == (
        "no answer came from http://hub: cut off; the hub may have carried out the call: repeat it with"
        " idempotency_key='k', and it is sent once"
    )
    assert error.value.idempotency_key == "k"
    steps = exchange(KEYED, URL, 8.0, 0.0, itertools.repeat(0.0))
    tries = [next(steps)]
    for now in (4.0, 6.0, 7.5):
        steps.send((CUT, now - RETRY_MIN_S))
        tries.append(steps.send((None, now)))
    assert tries == [Try(4.0), Try(2.0), Try(TRY_MIN_S), Try(0.5)]


def test_the_code_and_cause_of_the_last_error_are_told() -> None:
    error = failed(KEYED, BROKEN)
    assert isinstance(error, UnconfirmedError)
    assert (error.code, error.temporary) == (100, True)
    assert "Redis is away" in str(error)
    told = failed(READ, BROKEN)
    assert type(told) is RequestError
    assert (told.code, told.temporary) == (100, True)


def test_a_try_that_may_have_been_sent_is_remembered() -> None:
    error = failed(KEYED, CUT, REFUSED)
    assert isinstance(error, UnconfirmedError)
    assert "connection refused" in str(error)
    assert type(failed(KEYED, REFUSED)) is RequestError


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (HTTPAnswer(200, b'{"error":{"code":102,"message":"unknown channel"}}'), "unknown channel"),
        (
            HTTPAnswer(401, b'{"error":{"code":401,"message":"no"}}'),
            "the hub at http://hub did not accept the API key: give its api.key",
        ),
        (
            HTTPAnswer(413, b'{"error":{"code":413,"message":"the body is over 9 bytes"}}'),
            "larger than http://hub takes: the body is over 9 bytes",
        ),
        (HTTPAnswer(413, b""), "the call is larger than http://hub takes"),
        (HTTPAnswer(301, b"", "https://hub"), "http://hub redirects to https://hub: give the URL of the hub"),
        (HTTPAnswer(302, b""), "redirects to nowhere"),
        (
            HTTPAnswer(404, b"Not Found"),
            "answered HTTP 404, and not as a hub does: give the URL of the hub, with its path",
        ),
        (
            HTTPAnswer(404, b'{"error":{"code":404,"message":"no method \'x\'"}}'),
            "not as a hub does: no method 'x'",
        ),
        (HTTPAnswer(200, b"<html>\xff"), "answered HTTP 200, and not as a hub does"),
        (HTTPAnswer(200, b"{}"), "answered HTTP 200, and not as a hub does"),
        (
            TryFailure("no scheme", was_sent=False, is_final=True),
            "no scheme; give a URL such as http://127.0.0.1:8000",
        ),
        (
            TryFailure("[SSL: CERTIFICATE_VERIFY_FAILED] x", was_sent=False, is_final=True),
            "its certificate is not trusted",
        ),
        (
            TryFailure("[SSL: WRONG_VERSION_NUMBER] x", was_sent=False, is_final=True),
            "try http:// in place of https://",
        ),
    ],
)
def test_a_fault_that_no_try_mends_ends_the_call(outcome: Outcome, words: str) -> None:
    error = failed(KEYED, outcome, RESULT)
    assert words in str(error)
    assert not error.temporary
    assert not isinstance(error, UnconfirmedError)


def test_a_hub_that_does_not_answer_may_not_be_running() -> None:
    error = failed(KEYED, REFUSED)
    assert str(error) == "no hub answered at http://hub: connection refused; is it running?"
    assert error.temporary


def test_hopeless_failures_are_told_from_others() -> None:
    assert is_hopeless("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert not is_hopeless("connection refused")


def test_a_publication_without_a_key_gets_one() -> None:
    for request in (
        api.PublishRequest(channel="a", data=Raw(b"1")),
        api.BroadcastRequest(channels=["a"], data=Raw(b"1")),
    ):
        made, given = (
            call_of(request, "new"),
            call_of(msgspec.structs.replace(request, idempotency_key="own"), "new"),
        )
        assert (made.key, msgspec.json.decode(made.body)["idempotency_key"]) == ("new", "new")
        assert (given.key, msgspec.json.decode(given.body)["idempotency_key"]) == ("own", "own")
    assert call_of_body("publish", {"channel": "a", "data": 1}, "new") == APICall(
        "publish", b'{"channel":"a","data":1,"idempotency_key":"new"}', "new"
    )
    assert call_of_body("broadcast", {"idempotency_key": "own"}, "new").key == "own"
    assert call_of_body("disconnect", {"user": "ann"}, "new") == APICall("disconnect", b'{"user":"ann"}')
    assert call_of(api.PresenceRequest(channel="a"), "new") == APICall("presence", b'{"channel":"a"}')


def test_binary_payloads_have_members_of_their_own() -> None:
    request = api.PublishRequest(channel="a", data=b"\xff", idempotency_key="k")
    assert msgspec.json.decode(call_of(request, "").body) == {
        "channel": "a",
        "b64data": "/w==",
        "idempotency_key": "k",
    }
    packed = api.PublishRequest(channel="a", data=Packed(b"\x01"), idempotency_key="k")
    assert msgspec.json.decode(call_of(packed, "").body)["data"] == 1
    subscribe = api.SubscribeRequest(user="ann", channel="a", info=b"\xff", data=Raw(b"{}"))
    assert msgspec.json.decode(call_of(subscribe, "").body) == {
        "user": "ann",
        "channel": "a",
        "b64info": "/w==",
        "data": {},
    }


def test_results_have_their_types() -> None:
    request = api.PresenceStatsRequest(channel="a")
    assert result_of(request, Raw(b'{"num_clients":1,"num_users":2}')) == api.PresenceStatsResult(
        num_clients=1, num_users=2
    )
    with pytest.raises(RequestError, match="another version"):
        result_of(request, Raw(b"{}"))


@pytest.mark.parametrize("key", ["s3cret\n", " s3cret", "s3cret\x00", "s3crét"])
def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    with pytest.raises(SetupError) as error:
        checked_key(key)
    assert key.strip() not in str(error.value)


@pytest.mark.parametrize("url", ["not a url", "ws://127.0.0.1:8000", "http://", "127.0.0.1:8000", ""])
def test_a_url_that_is_not_of_http_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="give one such as http://127"):
        checked_url(url)


def test_a_url() -> None:
    assert checked_url("https://shop.example/live/") == "https://shop.example/live"


def test_a_key() -> None:
    assert checked_key("key") == "key"
