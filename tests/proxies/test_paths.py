"""The paths that the proxies of docs/proxies pass on: only public paths reach a hub, however spelled."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from support.certificate import Certificate
from support.recorder import MARK, Recorder
from support.reverse_proxy import APPS, HUBS, ReverseProxy

PUBLIC = re.compile(r"/(connection/[a-z_]+|emulation|readyz|static/[a-z]+\.js)")
PROMISED = (
    "/connection/websocket",
    "/connection/uni_websocket",
    "/connection/http_stream",
    "/connection/uni_http_stream",
    "/connection/sse?cf_connect=%7B%22id%22%3A1%7D",
    "/connection/uni_sse?cf_connect=%7B%7D",
    "/emulation",
    "/readyz",
    "/static/hub.js",
)
PRIVATE = ("/metrics", "/api/info", "/api/docs", "/api/openapi.json", "/livez", "/readyz/details", "/")


def spellings(prefix: str, path: str) -> Iterator[str]:
    """Targets that some server on the way may take for a path."""
    whole = prefix + path
    letters = "".join(f"%{ord(letter):02x}" for letter in whole[1:])
    yield from (
        whole,
        f"{whole}/",
        f"{whole}?x=/readyz",
        f"{whole};/readyz",
        f"{whole}%20",
        f"{whole}%00",
        f"{whole}%3f/readyz",
        f"{whole}%23",
        f"{whole}#/readyz",
        f"{whole}%zz",
        f"/{letters}",
        f"/{letters.upper().replace('%2F', '/')}",
        f"/%{ord(whole[1:2] or '.'):02x}{whole[2:]}",
        f"{prefix}/%{ord(path[1:2] or '.'):02x}{path[2:]}",
        f"/%25{ord(whole[1:2] or '.'):02x}{whole[2:]}",
        f"/{whole}",
        f"//{whole}",
        f"{prefix}//{path[1:]}",
        f"/.{whole}",
        f"/x/..{whole}",
        f"/x/%2e%2e{whole}",
        f"/x/%2E.{whole}",
        f"/x%2f..{whole}",
        f"/..{whole}",
        f"\\{whole[1:]}",
        f"/%5c{whole[1:]}",
        f"/x\\..{whole}",
        f"/%c0%ae%c0%ae{whole}",
        f"http://127.0.0.1{whole}",
        f"HTTP://hub.example{whole}",
        whole.upper(),
        whole.title(),
        whole[1:],
    )
    for public in (
        "/connection/websocket",
        "/connection/",
        "/static/",
        "/static/hub.js",
        "/readyz",
        "/emulation",
    ):
        up = "/.." * public.rstrip("/").count("/")
        yield f"{prefix}{public}{up}{path}"
        yield f"{prefix}{public}/{up[1:]}{path}".replace("..", "%2e%2e")
        yield f"{prefix}{public}{up}{path}".replace("/..", "%2f..")
        yield f"{prefix}{public};{up}{path}"
        yield f"{prefix}{public}%3f{up}{path}"
        yield f"{prefix}{public}%00{up}{path}"
        yield f"{prefix}{public}%0a{path}"
        yield f"{prefix}{public}\t{path}"


def readings(target: str) -> Iterator[str]:
    """The paths that an app may take a target for: decoded once, and without dots and double slashes."""
    path = re.sub(r"^[a-zA-Z]+://[^/]*", "", target).partition("?")[0].partition("#")[0]
    decoded = unquote(path)
    yield decoded
    yield "/" + posixpath.normpath(decoded).lstrip("/")


@pytest.mark.parametrize("name", [*HUBS, *APPS])
async def test_all_that_browsers_are_promised_is_passed_on(name: str, certificate: Certificate) -> None:
    async with Recorder() as node, ReverseProxy(name, certificate, [node.port, node.port]) as proxy:
        for path in PROMISED:
            status, answer = await proxy.ask(proxy.prefix + path, [(MARK, "1")])
            assert status == 200, answer
        assert [request.target for request in node.requests] == [proxy.prefix + path for path in PROMISED]


@pytest.mark.parametrize("name", HUBS)
async def test_only_public_paths_reach_a_hub(name: str, certificate: Certificate) -> None:
    async with Recorder() as node, ReverseProxy(name, certificate, [node.port, node.port]) as proxy:
        for path in PRIVATE:
            for target in spellings("", path):
                for method in ("GET", "POST"):
                    node.requests.clear()
                    status, answer = await proxy.ask(target, [(MARK, "1")], method=method)
                    for request in node.requests:
                        assert PUBLIC.fullmatch(request.target.partition("?")[0]), (target, request)
                    assert target != path or status == 404, (target, answer)


@pytest.mark.parametrize("name", APPS)
async def test_the_hub_of_an_app_is_reached_by_public_paths_alone(
    name: str, certificate: Certificate
) -> None:
    async with Recorder() as node, ReverseProxy(name, certificate, [node.port, node.port]) as proxy:
        for path in PRIVATE:
            for target in spellings("/live", path):
                node.requests.clear()
                status, answer = await proxy.ask(target, [(MARK, "1")])
                for request in node.requests:
                    read = list(readings(request.target))
                    is_public = PUBLIC.fullmatch(request.target.partition("?")[0].removeprefix("/live"))
                    is_hubs = any(re.match("/live(/|$)", path, re.IGNORECASE) for path in read)
                    assert is_public or not is_hubs, (target, request)
                assert target != f"/live{path}" or status == 404, (target, answer)


@pytest.mark.parametrize("name", APPS)
async def test_all_other_paths_reach_an_app(name: str, certificate: Certificate) -> None:
    async with Recorder() as node, ReverseProxy(name, certificate, [node.port, node.port]) as proxy:
        paths = ["/", "/orders/7?size=2", "/livestock", "/metrics", "/api/info", "/caf%C3%A9", "/a%20b"]
        for path in paths:
            status, _ = await proxy.ask(path, [(MARK, "1")], method="POST", body=b"x")
            assert status == 200
        assert [request.target for request in node.requests] == paths
