"""The URL of Redis: where the servers are, and how to log in to them. Nothing in a URL is ignored."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

SCHEMES: Final = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)

TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
"""Options of `rediss` URLs, by the names that redis-py gave them."""

_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")
_CERT_REQS: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_TRUTH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_PARTS: Final = re.compile(
    r"(?P<tls>redis|rediss|unix)(?:\+(?P<way>sentinel|cluster))?://(?P<netloc>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?"
)
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]*)(?::(?P<port>\d{1,5}))?")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class RedisURL:
    """A URL of `redis.url`, as `parse` reads it. Its text form shows no password.

    Args:
        way: `sentinel`, `cluster`, or empty for one server.
        hosts: host and port of each server of a cluster, of each Sentinel, or of the one server.
        path: of a Unix socket; empty for a server with a host.
        service: whose master the Sentinels know.
        username, password: of the data servers; empty if the URL has none.
        db: number of the database.
        sentinel_username, sentinel_password: of the Sentinels.
        tls: options of TLS by name, as redis-py takes them; None for connections without TLS.
    """

    way: str
    hosts: tuple[tuple[str, int], ...]
    path: str = ""
    service: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    tls: Mapping[str, Any] | None = field(default=None, repr=False)

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS of every connection, with the certificates read from their files; None without TLS.

        Raises:
            ValueError: a file cannot be read or is no certificate. The text names the option.
        """
        if self.tls is None:
            return None
        given = self.tls
        option = "ssl_ca_certs"
        try:
            context = ssl.create_default_context(cafile=given.get(option))
            option = "ssl_certfile"
            if certificate := given.get(option):
                # Without this function OpenSSL asks for the password of an encrypted key at the terminal.
                context.load_cert_chain(certificate, given.get("ssl_keyfile"), lambda: "")
        except OSError as error:
            raise ValueError(f"{option}: {error.strerror or error}") from None
        context.check_hostname = given["ssl_check_hostname"]
        context.verify_mode = given["ssl_cert_reqs"]
        return context


def parse(url: str) -> RedisURL:
    """Read a URL of Redis.

    Raises:
        ValueError: the URL is not valid. The text names the part and the remedy, and nothing of the URL that
            may belong to a password.
    """
    if not url.startswith(SCHEMES):
        raise ValueError(f"must begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    parts = _PARTS.match(url)
    assert parts is not None, "the scheme matches, and the rest may be anything"
    if re.search(r"\s", url):
        raise ValueError("must not hold spaces; in a password write %20")
    if "#" in url or "@" in url[parts.end("netloc") :]:
        raise ValueError("in a user, password or option, write / as %2F, ? as %3F, # as %23 and @ as %40")
    if _BAD_ESCAPE.search(url):
        raise ValueError("write % as %25")
    way = parts["way"] or ""
    username, password, listed = _credentials(parts["netloc"])
    hosts = _hosts(listed, way) if parts["tls"] != "unix" else ()
    options = _options(parts["query"] or "", _allowed(parts["tls"], way))
    if parts["tls"] == "unix":
        path, service, db = unquote(f"{listed}{parts['path']}"), "", ""
        if not path:
            raise ValueError("must name a path, as in unix:///run/redis.sock")
    else:
        path = ""
        service, db = _path(parts["path"], way)
    sentinel_username = options.pop("sentinel_username", "")
    sentinel_password = options.pop("sentinel_password", "")
    if (username and not password) or (sentinel_username and not sentinel_password):
        raise ValueError("names a user and no password: a password alone is written :password@")
    return RedisURL(
        way,
        hosts,
        path,
        service,
        username,
        password,
        _db(db, options.pop("db", ""), way),
        sentinel_username,
        sentinel_password,
        _tls(options) if parts["tls"] == "rediss" else None,
    )


def _credentials(netloc: str) -> tuple[str, str, str]:
    """User and password, and what is left: the hosts. A password may hold @ and : as they are."""
    credentials, _, hosts = netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    return unquote(username), unquote(password), hosts


def _hosts(listed: str, way: str) -> tuple[tuple[str, int], ...]:
    hosts = listed.split(",")
    if len(hosts) > 1 and not way:
        raise ValueError(
            f"names {len(hosts)} hosts, and redis:// is one server: for several use redis+sentinel:// or"
            " redis+cluster://"
        )
    return tuple(_host(host, SENTINEL_PORT if way == "sentinel" else REDIS_PORT) for host in hosts)


def _host(text: str, default_port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found["port"] or default_port) <= 65535:
        raise ValueError("a host must be host or host:port, with a port from 1 to 65535; IPv6 as [::1]:6379")
    return found["host"].strip("[]") or "localhost", int(found["port"] or default_port)


def _path(path: str, way: str) -> tuple[str, str]:
    """The service of Sentinel, and the number of the database as text."""
    segments = [unquote(segment) for segment in path.strip("/").split("/")]
    service = segments.pop(0) if way == "sentinel" else ""
    if way == "sentinel" and not service:
        raise ValueError("Sentinel needs a service, as in redis+sentinel://host:26379/main")
    db = segments.pop(0) if segments else ""
    if segments:
        raise ValueError("holds too many / after the host; in a password write / as %2F")
    return service, db


def _db(of_path: str, of_query: str, way: str) -> int:
    if of_path and of_query:
        raise ValueError("the database is given twice, in the path and as db")
    text = of_path or of_query or "0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("the database must be a number, as in redis://host:6379/1")
    if way == "cluster" and int(text):
        raise ValueError("a cluster has no database but 0")
    return int(text)


def _allowed(tls: str, way: str) -> tuple[str, ...]:
    allowed: tuple[str, ...] = ("db",)
    if tls == "rediss":
        allowed += TLS_OPTIONS
    if way == "sentinel":
        allowed += _SENTINEL_OPTIONS
    return allowed


def _options(query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """The options of a query. A + in a value is a +."""
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in allowed:
            raise ValueError(_unknown(name, allowed))
        if not equals or not value:
            raise ValueError(f"the option {name} needs a value, as in ?{name}=…")
        if name in options:
            raise ValueError(f"the option {name} is given twice")
        options[name] = unquote(value)
    return options


def _unknown(name: str, allowed: tuple[str, ...]) -> str:
    shown = name if re.fullmatch(r"[A-Za-z_]{1,40}", name) else "of the query"
    if name in TLS_OPTIONS:
        return f"the option {shown} needs TLS: begin the URL with rediss"
    if name in _SENTINEL_OPTIONS:
        return (
            f"the option {shown} needs Sentinel: begin the URL with redis+sentinel:// or rediss+sentinel://"
        )
    return f"the option {shown} is unknown; allowed are {', '.join(allowed)}"


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    requirement = options.get("ssl_cert_reqs", "required")
    if requirement not in _CERT_REQS:
        raise ValueError("ssl_cert_reqs must be none, optional or required")
    checked = options.get("ssl_check_hostname", "false" if requirement == "none" else "true").lower()
    if checked not in _TRUTH:
        raise ValueError("ssl_check_hostname must be true or false")
    if _TRUTH[checked] and requirement == "none":
        raise ValueError("ssl_check_hostname=true needs a certificate: ssl_cert_reqs must not be none")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("the option ssl_keyfile needs ssl_certfile")
    return {
        **options,
        "ssl_cert_reqs": _CERT_REQS[requirement],
        "ssl_check_hostname": _TRUTH[checked],
    }
