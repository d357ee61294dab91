"""Service levels: what a file may say, the verdict, and what the command refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.cli.main import main
from hub.load.levels import Level, LevelsError, judge, read
from hub.load.run import FOLDER

TOTALS = {
    "totals": {
        "receive": {"n": 90, "fail": 1, "p50": 2.0, "p99": 9.5, "max": 20.0},
        "receive late": {"n": 10, "fail": 0, "p99": 400.0},
    },
    "counts": {"lost": 1, "repeated": 0, "disordered": 0, "told": 0},
}


def test_the_verdict() -> None:
    levels = {
        "receive_p99_ms": 9.5,
        "receive_late_p99_ms": 399,
        "reconnect_p99_ms": 1,
        "lost": 0,
        "told": 0,
        "error_share": 0.01,
        "node_memory_bytes": 99,
    }
    judged = judge(levels, TOTALS, 100)
    assert [level.name for level in judged if not level.holds] == [
        "receive_late_p99_ms",
        "lost",
        "node_memory_bytes",
    ]
    assert Level("reconnect_p99_ms", 1, None) in judged
    assert judge({"error_share": 0}, {"totals": {}, "counts": {}}, None)[0].value is None
    assert judge({"node_memory_bytes": 1}, TOTALS, None)[0].holds


def test_the_levels_that_come_along() -> None:
    assert read(FOLDER / "levels.toml")["lost"] == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[levels", "Expected"),
        ("lost = 0", "one table"),
        ("[levels]\nlost = 0\n[other]", "one table"),
        ("[levels]\nlots = 0", "levels.lots: is no level"),
        ("[levels]\nreceive_p98_ms = 0", "is no level"),
        ("[levels]\nlost = true", "must be a number, got True"),
    ],
)
def test_levels_that_are_none(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "levels.toml"
    path.write_text(text)
    with pytest.raises(LevelsError, match=why):
        read(path)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("chat --at 3s kill-everything", "is no fault; there are kill-node"),
        ("chat --at 3s kill-node", "needs another node to go to: give --nodes 2"),
        ("chat --at 3s freeze-redis", "needs Redis: give --nodes 2"),
        ("chat --nodes 2 --at soon roll", "must begin with seconds"),
        ("chat --target http://x --at 3s roll", "a local hub alone"),
        ("chat --slo missing.toml", "No such file"),
        ("chatter", "invalid choice"),
        ("", "give a scenario or -f FILE CLASS: chat, live, "),
        ("chat -f mine.py Reader", "give a scenario or -f FILE CLASS: chat, live, "),
        ("-f mine.py", "-f mine.py: needs the classes of its users behind it"),
    ],
)
def test_what_the_command_refuses(arguments: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["load", *arguments.split()])
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
