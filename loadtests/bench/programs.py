"""The two programs in C: they are compiled where that is needed, and run."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

FOLDER: Final = Path(__file__).parent
BUILD: Final = FOLDER.parents[1] / "build" / "bench"
SOURCES: Final = {
    "load": ("load.c", "clients.c", "encodings.c", "transports.c", "options.c", "common.c"),
    "floor": ("floor.c", "common.c"),
}
FLAGS: Final = ("-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror")
FILES_BESIDE: Final = 64
"""Open files of a process that are not clients."""
TIMEOUT_BESIDE_S: Final = 90.0
"""What a run of the generator may take beside its measured time: it connects, and waits for what is late."""

Mode: TypeAlias = Literal["window", "rate", "connects", "idle"]


class BenchError(Exception):
    """The benchmark cannot be run, or a run of it was not clean. The text is one line, for people."""


class Quantiles(msgspec.Struct, frozen=True):
    """Of latency, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Watched(msgspec.Struct, frozen=True):
    """What a process of the server cost.

    Args:
        cpu_s: CPU time in the measured time.
        rss_before: memory in bytes before the first client came.
        rss_end: at the end of the measured time.
        rss_peak: the greatest that it ever was.
    """

    cpu_s: float
    rss_before: int
    rss_end: int
    rss_peak: int


class Measured(msgspec.Struct, frozen=True):
    """What the generator found.

    Args:
        seconds: of measured time.
        published: messages, and
        pings: that were answered, both from the beginning to the end.
        deliveries: in the measured time.
        cpu_s: CPU time of the generator itself.
        latency_ms: from the time at which a message was to be published, over all deliveries.
    """

    seconds: float
    connections: int
    published: int
    deliveries: int
    pings: int
    cpu_s: float
    latency_ms: Quantiles
    watched: list[Watched]

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds

    @property
    def server_cpu_s(self) -> float:
        """CPU time of all processes of the server."""
        return sum(process.cpu_s for process in self.watched)

    @property
    def cpu_us(self) -> float:
        """CPU time of the server for a delivery, in microseconds."""
        return 1e6 * self.server_cpu_s / self.deliveries

    @property
    def generator(self) -> float:
        """The share of a core that the generator took."""
        return self.cpu_s / self.seconds


async def compiled(name: str) -> Path:
    """A program, compiled anew if its source was changed since.

    Raises:
        BenchError: there is no compiler, or it refuses the source.
    """
    program = BUILD / name
    newest = max(path.stat().st_mtime for path in FOLDER.glob("*.[ch]"))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    if (compiler := shutil.which("cc")) is None:
        raise BenchError("there is no C compiler, cc: install one (on Debian: apt-get install gcc libc6-dev)")
    BUILD.mkdir(parents=True, exist_ok=True)
    sources = [str(FOLDER / source) for source in SOURCES[name]]
    process = await asyncio.create_subprocess_exec(
        compiler, *FLAGS, "-o", str(program), *sources, "-lm", stderr=PIPE
    )
    _, errors = await process.communicate()
    if process.returncode:
        raise BenchError(f"{name} does not compile:\n{errors.decode()}")
    return program


async def load(
    mode: Mode,
    ports: Sequence[int],
    pids: Sequence[int] = (),
    *,
    seconds: float = 1.0,
    warmup: float = 0.0,
    **options: float | str,
) -> Measured:
    """Run the generator.

    Args:
        mode: what it does.
        ports: of the server; clients are spread over them, and the publisher is on the first.
        pids: the server's processes.
        seconds: of measured time.
        warmup: seconds before it.
        options: others of its command line.

    Raises:
        BenchError: it could not, or not each message came once and in order.
    """
    arguments = _arguments(mode, ports, pids, {"seconds": seconds, "warmup": warmup, **options})
    process = await _generator(arguments)
    try:
        async with asyncio.timeout(seconds + warmup + TIMEOUT_BESIDE_S):
            output, errors = await process.communicate()
    except TimeoutError:
        raise BenchError(f"{' '.join(arguments)}: the generator does not end") from None
    finally:
        await end(process)
    if process.returncode:
        raise BenchError(f"{' '.join(arguments)}: {errors.decode().strip()}")
    return msgspec.json.decode(output, type=Measured)


@contextlib.asynccontextmanager
async def in_turns(
    ports: Sequence[int], pids: Sequence[int], **options: float | str
) -> AsyncIterator[Callable[[], Awaitable[Measured]]]:
    """Have the generator connected, with publishes in flight only while it is told to measure.

    Args:
        ports, pids, options: as for `load`.

    Raises:
        BenchError: as for `load`; at the end, where a message did not come once and in order in any turn.
    """
    arguments = _arguments("window", ports, pids, {**options, "turns": 1})
    process = await _generator(arguments)
    orders, found = process.stdin, process.stdout
    assert orders is not None
    assert found is not None

    async def measure() -> Measured:
        with contextlib.suppress(ConnectionError):
            orders.write(b"\n")
            await orders.drain()
        if line := await found.readline():
            return msgspec.json.decode(line, type=Measured)
        raise BenchError(await what_it_said())

    async def what_it_said() -> str:
        orders.close()
        _, errors = await process.communicate()
        return f"{' '.join(arguments)}: {errors.decode().strip()}"

    try:
        async with asyncio.timeout(TIMEOUT_BESIDE_S):
            yield measure
            said = await what_it_said()
    except TimeoutError:
        raise BenchError(f"{' '.join(arguments)}: the generator does not end") from None
    finally:
        await end(process)
    if process.returncode:
        raise BenchError(said)


def _arguments(
    mode: Mode, ports: Sequence[int], pids: Sequence[int], options: Mapping[str, float | str]
) -> list[str]:
    arguments = [mode, *(f"--port={port}" for port in ports), *(f"--watch={pid}" for pid in pids)]
    return arguments + [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


async def _generator(arguments: Sequence[str]) -> Process:
    program = str(await compiled("load"))
    return await asyncio.create_subprocess_exec(program, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE)


@contextlib.asynccontextmanager
async def floor() -> AsyncIterator[tuple[int, int]]:
    """The floor, running: its port and its process id."""
    process = await asyncio.create_subprocess_exec(str(await compiled("floor")), stdout=PIPE)
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline()), process.pid
    finally:
        await end(process)


async def end(process: Process) -> None:
    """End a process, if it has not ended."""
    if process.returncode is None:
        process.kill()
        await process.wait()


def raise_files_limit(clients: int) -> None:
    """Raise the limit on open files as far as may be, for this process and those that it starts.

    Args:
        clients: that a server and the generator must hold.

    Raises:
        BenchError: it cannot be raised so far.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A hub takes clients for 90 % of its limit.
    needed = clients * 10 // 9 + FILES_BESIDE
    if hard < needed:
        raise BenchError(
            f"{clients:,} clients need {needed:,} open files, and the hard limit is {hard:,}:"
            f" raise it (ulimit -Hn {needed}), or choose rows"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
