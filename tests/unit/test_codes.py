"""hub/protocol/codes.py: the table, against the protocol's own."""

from __future__ import annotations

import pytest

from hub.protocol.codes import (
    DISCONNECTS,
    ERRORS,
    REASON_BYTES_MAX,
    UNSUBSCRIBES,
    Disconnect,
    Disconnects,
    Error,
    Errors,
    Unsubscribe,
    Unsubscribes,
    disconnect_of,
)


def test_errors() -> None:
    assert [error.code for error in ERRORS] == list(range(100, 114))
    assert [error.code for error in ERRORS if error.temporary] == [100, 111, 113]
    assert Error(109, "token expired") == Errors.TOKEN_EXPIRED


def test_disconnects() -> None:
    codes = [disconnect.code for disconnect in DISCONNECTS]
    assert codes == [3000, 3001, 3004, 3005, 3006, *range(3008, 3015), *range(3500, 3510)]
    assert [d.code for d in DISCONNECTS if d.reconnect] == [code for code in codes if code < 3500]
    assert Disconnect(3500, "invalid token") == Disconnects.INVALID_TOKEN


def test_unsubscribes() -> None:
    assert [unsubscribe.code for unsubscribe in UNSUBSCRIBES] == [2000, 2500, 2501, 2502]
    assert Unsubscribe(2501, "subscription expired") == Unsubscribes.EXPIRED


def test_every_entry_has_words_of_its_own() -> None:
    assert len({error.message for error in ERRORS}) == len(ERRORS)
    for table in (DISCONNECTS, UNSUBSCRIBES):
        assert len({entry.reason for entry in table}) == len(table)


@pytest.mark.parametrize(
    ("code", "reconnect"),
    [(3000, True), (3499, True), (3500, False), (3999, False), (4000, True), (4500, False)],
)
def test_the_range_of_a_disconnect_says_whether_to_come_back(code: int, reconnect: bool) -> None:
    assert Disconnect(code, "").reconnect is reconnect


@pytest.mark.parametrize("code", [1000, 2999, 5000])
def test_a_disconnect_code_out_of_range(code: int) -> None:
    with pytest.raises(ValueError, match=f"{code} is outside 3000-4999"):
        Disconnect(code, "")


def test_a_reason_fits_a_close_frame() -> None:
    assert Disconnect(4000, "é" * 61 + "x").reason
    with pytest.raises(ValueError, match=f"over {REASON_BYTES_MAX} bytes"):
        Disconnect(4000, "é" * 62)


@pytest.mark.parametrize(
    ("error", "disconnect"),
    [
        (Errors.TOKEN_EXPIRED, Disconnects.EXPIRED),
        (Errors.TOO_MANY_REQUESTS, Disconnects.TOO_MANY_REQUESTS),
        (Errors.INTERNAL, Disconnects.INTERNAL_ERROR),
        (Errors.UNAUTHORIZED, Disconnect(3507, "unauthorized")),
        (Error(1000, "é" * 100), Disconnect(3507, "é" * 61)),
    ],
)
def test_an_error_that_cannot_be_told_is_a_disconnect(error: Error, disconnect: Disconnect) -> None:
    assert disconnect_of(error) == disconnect
