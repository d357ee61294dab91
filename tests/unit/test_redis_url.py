"""hub.redis_url: what a URL of Redis says, and what it may not say."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from hub.redis_url import RedisURL, parse

PASSWORDS = [
    "p@ss",
    "p:ss",
    "p/ss",
    "p%ss",
    "p?ss",
    "p#ss",
    "p ss",
    "p+ss",
    "p&s=s",
    "é",
    "[p]",
    "p,s",
    "%40",
]


def escaped(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_that_is_percent_encoded_may_be_anything(password: str) -> None:
    text = escaped(password)
    one = parse(f"redis://us%3Aer:{text}@r.example:7000/1")
    assert (one.username, one.password, one.hosts, one.db) == ("us:er", password, (("r.example", 7000),), 1)
    watched = parse(
        f"redis+sentinel://:{text}@s1,[::1]:7/main/2?sentinel_username={text}&sentinel_password={text}"
    )
    assert (watched.way, watched.service, watched.db) == ("sentinel", "main", 2)
    assert (watched.username, watched.password) == ("", password)
    assert (watched.sentinel_username, watched.sentinel_password) == (password, password)
    assert watched.hosts == (("s1", 26379), ("::1", 7))
    assert parse(f"unix://:{text}@/run/r.sock?db=3") == RedisURL(
        "", (), "/run/r.sock", password=password, db=3
    )


@pytest.mark.parametrize("password", ["p@ss", "p:ss", "p+ss", "p&s=s", "é", "[p]", "p,s", "@", "p@"])
def test_a_password_may_hold_these_as_they_are(password: str) -> None:
    assert parse(f"redis://ann:{password}@r.example").password == password


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must begin with redis://, "),
        ("http://r", "must begin with redis://, "),
        ("REDIS://r", "must begin with redis://, "),
        ("unix+sentinel:///x", "must begin with redis://, "),
        ("redis://:canary/canary@h", "write / as %2F"),
        ("redis://:canary?canary@h", "? as %3F"),
        ("redis://:canary#canary@h", "# as %23"),
        ("redis://:canary%_canary@h", "write % as %25"),
        ("redis://:canary%4@h", "write % as %25"),
        ("redis://:can ary@h", "must not hold spaces"),
        ("redis://:canary", "a host must be host or host:port"),
        ("redis://canary@h", "names a user and no password"),
        ("redis+sentinel://h/main?sentinel_username=canary", "names a user and no password"),
        ("redis://a,b", "names 2 hosts, and redis:// is one server"),
        ("rediss://:canary@a:1,b:2,c/1", "names 3 hosts"),
        ("redis://h:x", "a host must be"),
        ("redis://h:0", "a host must be"),
        ("redis://h:65536", "a host must be"),
        ("redis://::1", "a host must be"),
        ("redis+cluster://a,b:x", "a host must be"),
        ("redis://h/x", "the database must be a number"),
        ("redis://h?db=x", "the database must be a number"),
        ("redis://h/-1", "the database must be a number"),
        ("redis://h/1?db=1", "the database is given twice"),
        ("redis://h/1/2", "holds too many /"),
        ("redis+sentinel://h", "Sentinel needs a service"),
        ("redis+sentinel://h/?sentinel_password=canary", "Sentinel needs a service"),
        ("redis+sentinel://h/main/1/2", "holds too many /"),
        ("redis+cluster://h/1", "a cluster has no database but 0"),
        ("redis+cluster://h?db=1", "a cluster has no database but 0"),
        ("unix://", "must name a path"),
        ("redis://h?nonsense=canary", "the option nonsense is unknown; allowed are db"),
        ("redis://h?DB=1", "the option DB is unknown; allowed are db"),
        ("redis://h?ca-nary=1", "the option of the query is unknown"),
        ("redis://h?=canary", "the option of the query is unknown"),
        ("redis://h?socket_timeout=1", "the option socket_timeout is unknown"),
        ("unix:///x?ssl_cert_reqs=none", "the option ssl_cert_reqs needs TLS"),
        ("redis://h?ssl_ca_certs=canary", "the option ssl_ca_certs needs TLS: begin the URL with rediss"),
        ("redis://h?sentinel_password=canary", "the option sentinel_password needs Sentinel"),
        ("redis+cluster://h?sentinel_password=canary", "the option sentinel_password needs Sentinel"),
        ("redis://h?db", "the option db needs a value"),
        ("redis://h?db=", "the option db needs a value"),
        ("redis://h?db=1&db=2", "the option db is given twice"),
        ("rediss://h?ssl_cert_reqs=canary", "ssl_cert_reqs must be none, optional or required"),
        ("rediss://h?ssl_check_hostname=canary", "ssl_check_hostname must be true or false"),
        ("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=true", "ssl_cert_reqs must not be none"),
        ("rediss://h?ssl_keyfile=canary", "the option ssl_keyfile needs ssl_certfile"),
        ("rediss://h?ssl_password=canary", "the option ssl_password is unknown"),
    ],
)
def test_a_url_that_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse(url)
    assert reason in str(refused.value)
    assert "canary" not in str(refused.value)


def test_its_text_form_hides_passwords() -> None:
    url = "rediss+sentinel://:canary@s/main?sentinel_password=canary"
    assert "canary" not in f"{parse(url)}"


def test_tls() -> None:
    assert parse("redis://h").tls_context() is None
    context = parse("rediss://h").tls_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.get_ca_certs() or not ssl.create_default_context().get_ca_certs()
    context = parse("rediss+cluster://h?ssl_cert_reqs=none").tls_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    context = parse("rediss+sentinel://h/main?ssl_check_hostname=no").tls_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_certificate_that_cannot_be_read(option: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{option}: No such file or directory$"):
        parse(f"rediss://h?{option}={tmp_path}/missing").tls_context()
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=f"^{option}: "):
        parse(f"rediss://h?{option}={tmp_path}/empty").tls_context()
