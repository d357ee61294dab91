"""The targets without I/O, in a process of their own: `python -m loadtests.fuzz.pure`.

Each has a turn of a second, one after the other. A line of JSON on standard output tells which cases come
next; the last line is the tally.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import msgspec
import psutil

from loadtests.fuzz.target import PureTarget, Tally
from loadtests.fuzz.targets.bus_messages import BusMessages
from loadtests.fuzz.targets.client_frames import ClientFrames
from loadtests.fuzz.targets.envelopes import Envelopes
from loadtests.fuzz.targets.handshakes import Handshakes
from loadtests.fuzz.targets.json_commands import JSONCommands
from loadtests.fuzz.targets.msgpack_commands import MessagePackCommands
from loadtests.fuzz.targets.protobuf_commands import ProtobufCommands
from loadtests.fuzz.targets.reconnect_tokens import ReconnectTokenTarget
from loadtests.fuzz.targets.tokens import Tokens

TARGETS: tuple[type[PureTarget], ...] = (
    ClientFrames,
    Handshakes,
    JSONCommands,
    MessagePackCommands,
    ProtobufCommands,
    Tokens,
    ReconnectTokenTarget,
    BusMessages,
    Envelopes,
)

CASE_S = 10.0
"""A case that takes longer hangs."""

TURN_S = 1.0
GROWTH_BYTES_MAX = 64 << 20
"""What the process may grow by after every target had its first turn."""


class HangError(BaseException):
    """A case took too long. No target catches it."""


def run_case(target: PureTarget, number: int, data: bytes, tally: Tally) -> None:
    """Run a case, and note what is wrong."""
    signal.setitimer(signal.ITIMER_REAL, CASE_S)
    kinds: dict[str, None] = {}
    try:
        for kind in target.check(data):
            kinds[kind] = None
    except HangError:
        tally.note(target.name, f"hangs: no end after {CASE_S:g} s", number, data)
    except Exception as exc:
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.name}"
        tally.note(target.name, f"raises {type(exc).__name__} in {place}", number, data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for kind in kinds:
        tally.note(target.name, kind, number, data)


@contextmanager
def catching_hangs() -> Iterator[None]:
    """Have a case that takes too long raise `HangError`."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def run(targets: list[PureTarget], seed: int, seconds: float) -> Tally:
    """Run cases of each target for a time."""
    tally = Tally()
    process = psutil.Process()
    memory = 0
    end = time.monotonic() + seconds
    turn_s = min(TURN_S, seconds / len(targets) / 2)
    while time.monotonic() < end:
        for target in targets:
            print(msgspec.json.encode({target.name: tally.cases.get(target.name, 0)}).decode(), flush=True)
            turn_ends = time.monotonic() + turn_s
            while time.monotonic() < turn_ends:
                number = tally.count(target.name)
                run_case(target, number, target.case(seed, number), tally)
        memory = memory or process.memory_info().rss
    grown = process.memory_info().rss - memory
    if grown > GROWTH_BYTES_MAX:
        tally.note("memory", f"the readers grew by {grown >> 20} MB", 0, b"")
    return tally


def main() -> None:
    """Run the targets that are named, and print the tally."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.fuzz.pure", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("targets", nargs="+", choices=[each.name for each in TARGETS])
    arguments = parser.parse_args()
    faulthandler.enable()
    os.nice(5)  # the hub and the honest client come first
    chosen = [each() for each in TARGETS if each.name in arguments.targets]
    with catching_hangs():
        tally = run(chosen, arguments.seed, arguments.seconds)
    sys.stdout.buffer.write(msgspec.json.encode(tally) + b"\n")


if __name__ == "__main__":
    main()
