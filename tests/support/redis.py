"""Redis servers to test against, each on a free port, with its data in a folder that goes with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hiredis
from support.ports import free_port

START_TIMEOUT_S = 10.0


class RedisServer:
    """A Redis server of its own.

    Args:
        options: of its command line, as in `"--appendonly", "yes"`.
        port: 0 takes a free one.
        sentinel: whether it is a Sentinel.
    """

    def __init__(self, *options: str, port: int = 0, sentinel: bool = False) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="hub-redis-"))
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def cluster_port(self) -> int:
        """Where it speaks with the others of its cluster."""
        return int(self._options[self._options.index("--cluster-port") + 1])

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> RedisServer:
        """Start it, again if need be, and wait until it answers."""
        config = self.folder / "redis.conf"
        config.touch()  # where a Sentinel, or CONFIG REWRITE, keeps what it knows
        command = ["redis-server", str(config), "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--bind", "127.0.0.1", "--save", "", *self._options]
        if self._sentinel:
            command.append("--sentinel")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                if not isinstance(self.call("PING"), hiredis.ReplyError):
                    return self
            assert self._process.poll() is None, f"redis-server ended:\n{self.log}"
            assert time.monotonic() < deadline, f"redis-server does not answer:\n{self.log}"
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def call(self, *words: str | int | bytes) -> Any:
        """Run one command, over a connection of its own."""
        [reply] = self.calls([words])
        return reply

    def calls(self, commands: Sequence[Sequence[str | int | bytes]]) -> list[Any]:
        """Run commands. An error is among the replies."""
        reader = hiredis.Reader(notEnoughData=self)
        replies: list[Any] = []
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_TIMEOUT_S) as sock:
            sock.sendall(b"".join(hiredis.pack_command(tuple(words)) for words in commands))  # type: ignore[arg-type]
            while len(replies) < len(commands):
                if (reply := reader.gets()) is not self:
                    replies.append(reply)
                elif chunk := sock.recv(65_536):
                    reader.feed(chunk)
                else:
                    raise ConnectionResetError("the server closed the connection")
        return replies

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a power cut would; its folder stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(START_TIMEOUT_S)

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Watched:
    """A master, a replica and three Sentinels that watch over them: `with Watched() as watched`."""

    def __init__(self) -> None:
        self.master = RedisServer("--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(
            *("--replicaof", f"127.0.0.1 {self.master.port}", "--repl-diskless-sync-delay", "0")
        )
        self.sentinels = [RedisServer(sentinel=True) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/main"

    def __enter__(self) -> Watched:
        self.master.start()
        self.replica.start()
        _until(lambda: b"master_link_status:up" in self.replica.call("INFO", "replication"), "replicate")
        for sentinel in self.sentinels:
            (sentinel.folder / "redis.conf").write_text(
                f"sentinel monitor main 127.0.0.1 {self.master.port} 2\n"
                "sentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 3000\n"
            )
            sentinel.start()
        for sentinel in self.sentinels:
            _until(lambda sentinel=sentinel: _sees_all(sentinel), "find each other")  # type: ignore[misc]
        return self

    def __exit__(self, *exc: object) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()


def _sees_all(sentinel: RedisServer) -> bool:
    fields = iter(sentinel.call("SENTINEL", "MASTER", "main"))
    known = dict(zip(fields, fields, strict=True))
    return bool(known[b"num-other-sentinels"] == b"2" and known[b"num-slaves"] == b"1")


class RedisCluster:
    """Three masters with a replica each: `with RedisCluster() as cluster`."""

    def __init__(self) -> None:
        self.servers = [
            RedisServer(
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
                *("--cluster-port", str(free_port())),
            )
            for _ in range(6)
        ]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def __enter__(self) -> RedisCluster:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> RedisCluster:
        """Start the servers, join them, share the slots out, and wait until all agree."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        for other in others:
            first.call("CLUSTER", "MEET", "127.0.0.1", other.port, other.cluster_port)
        for number, server in enumerate(self.servers[:3]):
            server.call("CLUSTER", "ADDSLOTSRANGE", *_SLOTS[number])
        for server in self.servers:
            _until(lambda server=server: server.call("CLUSTER", "NODES").count(b"connected") == 6, "meet")  # type: ignore[misc]
        for number, server in enumerate(self.servers[3:]):
            server.call("CLUSTER", "REPLICATE", self.servers[number].call("CLUSTER", "MYID"))
        for server in self.servers:
            _until(lambda server=server: b"cluster_state:ok" in server.call("CLUSTER", "INFO"), "agree")  # type: ignore[misc]
        for server in self.servers[3:]:
            _until(
                lambda server=server: b"master_link_status:up" in server.call("INFO", "replication"),  # type: ignore[misc]
                "replicate",
            )
        return self

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def master_of(self, key: str) -> RedisServer:
        """The server that keeps a key."""
        slot = self.servers[0].call("CLUSTER", "KEYSLOT", key)
        for server in self.servers:
            if server.alive and (b"role:master" in server.call("INFO", "replication")):
                nodes = server.call("CLUSTER", "SLOTS")
                for low, high, master, *_ in nodes:
                    if low <= slot <= high:
                        return next(each for each in self.servers if each.port == master[1])
        raise AssertionError(f"nobody keeps {key}")


_SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 2 * START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"the servers do not {what}"
        time.sleep(0.02)
