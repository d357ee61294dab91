"""The table of mistakes: each test finds its row by its own name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.mistakes import GROUPS, Mistake


class Says:
    """Checks what a mistake leads to against the mistake's row.

    Args:
        mistake: the row.
    """

    def __init__(self, mistake: Mistake) -> None:
        self._mistake = mistake
        self.is_checked = False

    def __call__(self, seen: object) -> None:
        """Check that one of the lines that a developer sees is the row's message."""
        self.is_checked = True
        lines = str(seen).splitlines()
        assert any(self._mistake.is_said_by(line) for line in lines), f"not {self._mistake.says!r}: {seen}"


class Log:
    """The log of the hubs in this process, since the test began.

    Args:
        caplog: what was logged.
    """

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def events(self) -> list[str]:
        """The names of all lines."""
        return [line["event"] for line in self._lines()]

    def __str__(self) -> str:
        """The reasons in all lines, and the exceptions, a line each."""
        said = [line["reason"] for line in self._lines() if "reason" in line]
        said += [line["exception"].rpartition("\n")[2] for line in self._lines() if "exception" in line]
        return "\n".join(said)

    def _lines(self) -> list[dict[str, str]]:
        return [record.msg for record in self._caplog.records if isinstance(record.msg, dict)]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Log:
    """The hub's log, with every line: otherwise a line of a kind comes every ten seconds at most."""
    caplog.set_level("INFO")
    monkeypatch.setattr("hub.telemetry.logs.LIMIT_LOG_PERIOD_S", 0.0)
    return Log(caplog)


@pytest.fixture
def says(request: pytest.FixtureRequest) -> Iterator[Says]:
    """Checks what the mistake of the test's name leads to. The test must use it."""
    group = request.module.__name__.rpartition("test_")[2]
    checker = Says(GROUPS[group].mistakes[request.function.__name__.removeprefix("test_")])
    yield checker
    assert checker.is_checked, "the test does not look at what is said"
