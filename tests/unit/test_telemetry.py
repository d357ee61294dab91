"""hub.telemetry: what a log line may hold, and what the metrics say."""

from __future__ import annotations

import ast
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from hub.protocol.codes import DISCONNECTS
from hub.telemetry import EVENTS, STATES, Metrics, configure_logging, get_logger

ROOT = Path(__file__).parents[2]
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.AbCd_canary-1234"

Lines = Callable[[], list[str]]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What the log wrote since it was last asked; logging is as it was, after the test."""
    root, hub = logging.getLogger(), logging.getLogger("hub")
    before = (root.handlers[:], root.level, hub.level)
    yield lambda: capsys.readouterr().err.splitlines()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    hub.setLevel(before[2])


def test_a_production_line_is_one_json_object(stderr: Lines) -> None:
    configure_logging(dev=False)
    get_logger("hub.test").info("hub.started", host="::", port=8000, dev=False)
    (line,) = stderr()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "hub.started",
        "level": "info",
        "logger": "hub.test",
        "host": "::",
        "port": 8000,
        "dev": False,
    }


def test_a_development_line_is_readable_and_begins_at_debug(stderr: Lines) -> None:
    configure_logging(dev=True)
    get_logger("hub.test").debug("client.connected", client="c1")
    (line,) = stderr()
    assert "client.connected" in line
    assert "client=c1" in line
    assert "\x1b" not in line, "colours are for terminals"


def test_levels(stderr: Lines) -> None:
    configure_logging(dev=False)
    get_logger("hub.test").debug("client.connected")
    logging.getLogger("uvicorn.error").info("connection open")
    assert stderr() == []
    configure_logging(dev=False, level="error")
    get_logger("hub.test").warning("origin.refused")
    assert stderr() == []


@pytest.mark.parametrize("dev", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        TOKEN,
        TOKEN.rpartition(".")[0],
        f"could not read {TOKEN}: expired",
        {"token": TOKEN},
        ["x", TOKEN.encode()],
        "/connection/websocket?token=canary",
        '127.0.0.1:1 - "WebSocket /connection/websocket?cf="canary" [accepted]',
        "https://login.example/keys?apikey=canary and more",
        "https://me:canary@login.example/keys",
        "redis://:canary@canary/ca%40nary?canary@redis.example/1: refused",
        "rediss+sentinel://canary@s1:1,s2:2/main?sentinel_password=canary",
        "Authorization: Bearer canary",
        "apikey canary",
        "x" * 490 + TOKEN,
        "x" * 990 + TOKEN,
    ],
)
def test_no_line_holds_a_token(stderr: Lines, dev: bool, value: object) -> None:
    configure_logging(dev)
    log = get_logger("hub.test")
    log.warning("client.token_refused", reason=value)
    log.warning("client.token_refused", token="canary", key="canary", authorization="canary")
    logging.getLogger("uvicorn.error").warning("refused %s", value)
    logging.getLogger("other").error(str(value))
    try:
        raise ValueError(value)
    except ValueError:
        log.exception("hook.failed", hook="on_connect")
        logging.getLogger("asyncio").exception("a task failed")
    text = "\n".join(stderr())
    assert text.count("client.token_refused") == 2
    assert "a task failed" in text
    assert "ValueError" in text
    assert "canary" not in text
    assert "Y2FuYXJ5" not in text  # canary, as a token's base64 has it
    assert "eyJzdWIi" not in text


def test_an_embedding_app_gets_readable_lines_redacted_too(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("hub.embedded").warning("origin.refused", origin=f"https://a.example/?t={TOKEN}")
    (record,) = caplog.records
    assert record.name == "hub.embedded"
    assert record.levelname == "WARNING"
    assert record.getMessage() == "origin.refused [origin=https://a.example/?[hidden]]"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "api.refused"),
        ({"reason": "no such channel"}, "api.refused: no such channel"),
        ({"method": "publish", "code": 102}, "api.refused [method=publish code=102]"),
        (
            {"reason": "no such channel", "channel": "a b", "method": "", "suppressed": 3},
            "api.refused: no such channel [channel='a b' method='' suppressed=3]",
        ),
        ({"reason": "two\nlines"}, "api.refused: two\N{REPLACEMENT CHARACTER}lines"),
    ],
)
def test_a_line_in_the_log_of_an_embedding_app_is_one_readable_line(
    caplog: pytest.LogCaptureFixture, fields: dict[str, Any], text: str
) -> None:
    get_logger("hub.embedded").warning("api.refused", **fields)
    assert caplog.records[0].getMessage() == text


def test_a_traceback_follows_the_line_in_the_log_of_an_embedding_app(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise ValueError(f"a fault of {TOKEN}")
    except ValueError:
        get_logger("hub.embedded").exception("hook.failed", hook="on_connect")
    first, second, *_, last = caplog.records[0].getMessage().splitlines()
    assert first == "hook.failed [hook=on_connect]"
    assert second == "Traceback (most recent call last):"
    assert last == "ValueError: a fault of [token]"


def test_a_formatter_of_structured_lines_finds_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("hub.embedded").warning("api.refused", method="publish", code=102)
    fields: Any = caplog.records[0].msg
    assert isinstance(fields, dict)
    assert (fields["event"], fields["method"], fields["code"]) == ("api.refused", "publish", 102)


def test_lines_are_bounded(stderr: Lines) -> None:
    configure_logging(dev=False)
    get_logger("hub.test").info("client.fault", reason="x" * 1_000_000, code=1)
    try:
        raise ValueError("y" * 1_000_000)
    except ValueError:
        get_logger("hub.test").exception("hook.failed")
    fault, failure = map(json.loads, stderr())
    assert fault["reason"] == "x" * 499 + "…"
    assert len(failure["exception"]) == 8000


def test_a_value_cannot_forge_a_line(stderr: Lines) -> None:
    configure_logging(dev=True)
    get_logger("hub.test").info("client.fault", reason="x\n2026 [info] hub.started \x1b[2J")
    (line,) = stderr()
    assert "\x1b" not in line


def test_the_catalogue_is_what_the_code_logs() -> None:
    logged: dict[str, tuple[set[str], set[str]]] = {}
    for path in (ROOT / "hub").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    ast.Attribute(ast.Name("_log") | ast.Attribute(_, "_log") as logger, level),
                    [ast.Constant(str(event))],
                    keywords,
                ):
                    levels, fields = logged.setdefault(event, (set(), set()))
                    levels.add("error" if level == "exception" else level)
                    fields.update(word.arg or "" for word in keywords)
                    if isinstance(logger, ast.Attribute):  # a `RateLimitedLog`
                        fields.discard("kind")
                        fields.add("suppressed")
                    if level == "exception" or "exc_info" in fields:
                        fields.discard("exc_info")
                        fields.add("exception")
    assert logged == {name: (set(event.levels), set(event.fields)) for name, event in EVENTS.items()}


def test_the_catalogues_page_lists_exactly_these() -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert rows == sorted(EVENTS)


def samples(metrics: Metrics) -> dict[str, float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_counters() -> None:
    metrics = Metrics()
    metrics.received["publish"] += 2
    metrics.sent["publication"] += 1000
    metrics.bytes_in += 10
    metrics.bytes_out += 20
    metrics.connects.inc()
    metrics.disconnects.labels(DISCONNECTS[0].code).inc()
    metrics.errors.labels(103).inc()
    metrics.recoveries.labels("yes").inc()
    metrics.api_requests.labels("publish").inc()
    metrics.broker_errors.inc()
    found = samples(metrics)
    expected = {
        "hub_messages_in_total{type=publish}": 2,
        "hub_messages_out_total{type=publication}": 1000,
        "hub_bytes_in_total": 10,
        "hub_bytes_out_total": 20,
        "hub_connects_total": 1,
        "hub_disconnects_total{code=3000}": 1,
        "hub_errors_total{code=103}": 1,
        "hub_recoveries_total{recovered=yes}": 1,
        "hub_api_requests_total{method=publish}": 1,
        "hub_broker_errors_total": 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert not any("_created" in name for name in found)
    assert all(name.startswith("hub_") for name in found)


def test_gauges_are_read_when_asked() -> None:
    metrics = Metrics()
    clients = [1, 2]
    metrics.bind(connections=lambda: 3, clients=lambda: len(clients))
    assert samples(metrics)["hub_clients"] == 2
    clients.append(3)
    assert samples(metrics)["hub_clients"] == 3
    assert samples(metrics)["hub_connections"] == 3
    with pytest.raises(AssertionError, match="connects is no gauge"):
        metrics.bind(connects=lambda: 1)


def test_state() -> None:
    metrics = Metrics()
    metrics.state.state("draining")
    found = samples(metrics)
    assert {state: found[f"hub_state{{hub_state={state}}}"] for state in STATES} == {
        "healthy": 0,
        "degraded": 0,
        "overloaded": 0,
        "draining": 1,
    }


def test_histograms() -> None:
    metrics = Metrics()
    metrics.publish_to_send_seconds.observe(0.0002)
    metrics.ping_pong_seconds.observe(0.02)
    found = samples(metrics)
    assert found["hub_publish_to_send_seconds_bucket{le=0.0001}"] == 0
    assert found["hub_publish_to_send_seconds_bucket{le=0.00025}"] == 1
    assert found["hub_publish_to_send_seconds_bucket{le=1.0}"] == 1
    assert found["hub_ping_pong_seconds_count"] == 1


def test_each_hub_has_metrics_of_its_own() -> None:
    one, other = Metrics(), Metrics()
    one.connects.inc()
    assert samples(other)["hub_connects_total"] == 0
    assert not [family for family in REGISTRY.collect() if family.name.startswith("hub_")]


def test_a_traceback_in_the_text_of_a_line_does_not_hide_the_reason(stderr: Lines) -> None:
    configure_logging(dev=False)
    try:
        raise ValueError("the reason, and a " + TOKEN)
    except ValueError:
        text = traceback.format_exc().replace("File", "File" + "x" * 1000)
    logging.getLogger("uvicorn.error").error(text)
    entry = json.loads(stderr()[0])
    assert entry["event"] == "ValueError: the reason, and a [token]"
    assert entry["exception"].startswith("Traceback")
    assert "the reason" in entry["exception"]
