"""The command `hub`: its exit codes, its one-line errors, and what it does to a running hub."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import websockets
from starlette.applications import Starlette
from support.limits import WAIT_S
from support.ports import free_port
from support.redis import RedisServer
from support.server import Process, running

from hub.cli.main import main
from hub.config import load
from hub.errors import StartupError
from hub.protocol.api import HistoryRequest
from hub.settings import DEVELOPMENT_SECRET, Settings
from hub.version import commit

SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = SECRET[::-1]
PEM = "-----BEGIN PUBLIC KEY-----\nbm8=\n-----END PUBLIC KEY-----\n"

Run = Callable[..., tuple[int, str, str]]


def settings(**sections: Any) -> Settings:
    """Settings of a hub that a busy machine does not overload."""
    return load(overrides={"server": {"lag_max_s": 0}, **sections}, env={})


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process; its exit code, stdout and stderr."""
    for name in os.environ:
        if name.startswith("HUB_"):
            monkeypatch.delenv(name)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "hub.toml"
        path.write_text(text)
        return str(path)

    return write


def test_version(run: Run) -> None:
    version = importlib.metadata.version("hub-realtime")
    assert run("--version") == (0, f"hub {version}, commit {commit()}\n", "")
    assert re.fullmatch("[0-9a-f]{12}|unknown", commit())


def test_help_names_every_command_and_flag(run: Run) -> None:
    code, shown, _ = run("--help")
    assert code == 0
    assert all(command in shown for command in ("serve", "token", "config", "publish"))
    code, shown, _ = run("serve", "--help")
    assert code == 0
    assert all(flag in shown for flag in ("--host", "--port", "--config", "--dev", "--workers", "--redis"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "70000"], "server.port: must be less than or equal to 65535, got 70000"),
        (["--workers", "2"], "server.workers = 2 needs Redis between them: set redis.url"),
        (
            ["--config", "/missing.toml"],
            "/missing.toml: cannot be read: No such file or directory; give the path of a TOML file by"
            " --config or HUB_CONFIG",
        ),
    ],
)
def test_serve_refuses_faulty_settings(run: Run, arguments: list[str], line: str) -> None:
    assert run("serve", *arguments) == (2, "", f"hub: {line}\n")


def test_serve_refuses_a_faulty_file_and_environment(
    run: Run, file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("serve", "--config", file("[server]\nprot = 1\nhots = 'x'")) == (
        2,
        "",
        "hub: server.prot: is not a setting; did you mean port?\n"
        "hub: server.hots: is not a setting; did you mean host?\n",
    )
    monkeypatch.setenv("HUB_QQQQ", "1")
    code, _, line = run("serve")
    assert code == 2
    assert line.startswith("hub: HUB_QQQQ: is not a setting; allowed are HUB_API__…, ")


async def test_serve_says_so_when_its_port_is_taken() -> None:
    async with running(settings()) as hub:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hub",
            "serve",
            env=environment(HUB_PORT=str(hub.port)),
            stderr=subprocess.PIPE,
        )
        _, stderr = await process.communicate()
    assert process.returncode == 1
    (line,) = stderr.decode().splitlines()
    assert line == (
        f"hub: 127.0.0.1:{hub.port} is taken by another program: choose another port with --port or HUB_PORT"
    )


async def test_serve_in_development_says_where_the_page_is_and_ends_with_0() -> None:
    async with Process("--dev") as hub:
        hub.signal(signal.SIGTERM)
        assert await hub.wait() == 0
    assert f"The chat page is at http://127.0.0.1:{hub.port}/\n" in hub.log


async def test_flags_prevail_over_the_environment_and_the_file(file: Callable[[str], str]) -> None:
    path = file("[server]\nport = 1\n[channels.default]\npresence = true")
    async with Process("--config", path, env={"HUB_PORT": "2"}) as hub:
        pass
    assert f'"port": {hub.port}' in hub.log


def environment(**variables: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("HUB_")} | variables


def test_a_connection_token(run: Run, file: Callable[[str], str]) -> None:
    path = file(f'[client.token]\nhmac_secret = "{SECRET}"\naudience = "chat"\nissuer = "login"')
    now = time.time()
    code, out, _ = run("token", "--user", "7", "--ttl", "60", "--info", '{"name": "é"}', "--config", path)
    assert code == 0
    claims = jwt.decode(out.strip(), SECRET, ["HS256"], audience="chat", issuer="login")
    assert abs(claims.pop("iat") - now) <= 2
    assert abs(claims.pop("exp") - now - 60) <= 2
    assert claims == {"sub": "7", "aud": "chat", "iss": "login", "info": {"name": "é"}}


def test_a_subscription_token_has_the_keys_of_its_own_table(run: Run, file: Callable[[str], str]) -> None:
    path = file(
        f'[client.token]\nhmac_secret = "{SECRET}"\naudience = "chat"\n'
        f'[client.subscription_token]\nhmac_secret = "{OTHER_SECRET}"'
    )
    _, out, _ = run("token", "--user", "7", "--channel", "room", "--ttl", "0", "--config", path)
    claims = jwt.decode(out.strip(), OTHER_SECRET, ["HS256"])
    assert claims.keys() == {"sub", "iat", "channel"}
    assert claims["channel"] == "room"


def test_a_subscription_token_has_the_connections_keys_otherwise(run: Run) -> None:
    _, out, _ = run("token", "--user", "7", "--channel", "room", "--dev")
    assert jwt.decode(out.strip(), DEVELOPMENT_SECRET, ["HS256"])["channel"] == "room"


def test_a_token_that_cannot_be_made(run: Run, file: Callable[[str], str]) -> None:
    assert run("token", "--user", "7") == (
        2,
        "",
        "hub: client.token.hmac_secret: is empty; set it, so that tokens can be signed\n",
    )
    path = file("[client.subscription_token]\nissuer = 'x'")
    _, _, line = run("token", "--user", "7", "--channel", "room", "--config", path)
    assert line.startswith("hub: client.subscription_token.hmac_secret: is empty")
    code, out, error = run("token", "--user", "7", "--dev", "--info", "{")
    assert (code, out) == (2, "")
    assert "must be JSON" in error


async def test_a_clients_token_is_accepted(run: Run) -> None:
    configured = settings(client={"token": {"hmac_secret": DEVELOPMENT_SECRET}})
    _, out, _ = run("token", "--user", "7", "--dev")
    async with running(configured) as hub:
        reply = await connect(hub.websocket_url, out.strip())
    assert "client" in reply["connect"]


async def connect(url: str, token: str) -> Any:
    async with asyncio.timeout(WAIT_S), websockets.connect(url) as socket:
        await socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
        return json.loads(await socket.recv())


def test_config_prints_what_is_in_effect(run: Run, file: Callable[[str], str]) -> None:
    text = f"""
        [client]
        allowed_origins = ["https://a.example"]
        user_personal_channel = 'chat:#{{user}}'
        ping_interval_s = 1e9
        token.audience = 'a"\\b'
        token.hmac_secret = "{SECRET}"
        subscription_token.issuer = "login"
        [api]
        key = "canary"
        [redis]
        url = "rediss://me:canary@redis.example:6379/1"
        [channels.chat]
        history_size = 10
        history_ttl_s = 0.5
        allowed_delta_types = ["fossil"]
    """
    code, out, _ = run("config", "--config", file(text))
    assert code == 0
    assert "canary" not in out
    assert SECRET not in out
    shown = tomllib.loads(out)
    assert shown["client"]["token"]["hmac_secret"] == "********"
    assert shown["api"] == {"key": "********"}
    assert shown["redis"]["url"] == "rediss://[hidden]@redis.example:6379/1"
    shown["client"]["token"]["hmac_secret"] = SECRET
    shown["api"]["key"] = "canary"
    shown["redis"]["url"] = "rediss://me:canary@redis.example:6379/1"
    assert load(overrides=shown, env={}) == load(Path(file(text)), env={})


@pytest.mark.parametrize(
    "password", ["p@canary", "p:canary", "p%2Fcanary", "%25canary", "canary@", "@canary@"]
)
def test_config_shows_no_part_of_a_password(run: Run, file: Callable[[str], str], password: str) -> None:
    text = f"""
        [redis]
        url = "redis+sentinel://me:{password}@s1,s2/main?sentinel_password=canary"
        [client.token]
        jwks_url = "https://me:{password}@login.example/keys?apikey=canary"
    """
    code, out, error = run("config", "--config", file(text))
    assert (code, error) == (0, "")
    assert "canary" not in out
    shown = tomllib.loads(out)
    assert shown["redis"]["url"] == "redis+sentinel://[hidden]@s1,s2/main?[hidden]"
    assert shown["client"]["token"]["jwks_url"] == "https://[hidden]@login.example/keys?[hidden]"


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("redis://:canary@h?nonsense=1", "redis.url: the option nonsense is unknown; allowed are db"),
        (
            "redis://:canary@a,b",
            "redis.url: names 2 hosts, and redis:// is one server: for several use redis+sentinel:// or"
            " redis+cluster://",
        ),
        (
            "redis://:canary/canary@h",
            "redis.url: in a user, password or option, write / as %2F, ? as %3F, # as %23 and @ as %40",
        ),
    ],
)
def test_config_and_serve_refuse_a_faulty_url(run: Run, url: str, line: str) -> None:
    assert run("serve", "--redis", url) == (2, "", f"hub: {line}\n")


def test_config_warns_of_what_is_doubtful(run: Run, file: Callable[[str], str]) -> None:
    path = file(f'[client.token]\nhmac_secret = "{SECRET}"\n[channels.news]\npresence = true')
    code, out, error = run("config", "--config", path)
    assert (code, tomllib.loads(out)["channels"]["news"]["presence"]) == (0, True)
    assert error == (
        "hub: warning: channels.news: no rule lets a client subscribe: set allow_subscribe_for_client = true,"
        " or give clients subscription tokens\n"
    )


async def test_a_hub_at_its_start_warns_of_what_is_doubtful() -> None:
    env = {"HUB_CLIENT__TOKEN__HMAC_SECRET": "short"}
    async with Process("--dev", env=env) as hub:
        assert "hmac_secret must be at least 32 bytes long, not 5" in await hub.line("settings.doubtful")
        token = jwt_of("short")
        assert "client" in (await connect(hub.websocket_url, token))["connect"]


def jwt_of(secret: str) -> str:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        return jwt.encode({"sub": "7"}, secret, "HS256")


def test_a_token_of_a_short_secret(run: Run, file: Callable[[str], str]) -> None:
    path = file('[client.token]\nhmac_secret = "short"')
    code, out, error = run("token", "--user", "7", "--dev", "--config", path)
    assert (code, error) == (0, "")
    assert out.count(".") == 2
    assert run("token", "--user", "7", "--config", path)[0] == 2


def test_config_of_nothing(run: Run) -> None:
    code, out, _ = run("config")
    assert code == 0
    assert load(overrides=tomllib.loads(out), env={}) == load(env={})


def test_config_checks(run: Run, file: Callable[[str], str]) -> None:
    assert run("config", "--config", file("[api]\nkye = 'x'")) == (
        2,
        "",
        "hub: api.kye: is not a setting; did you mean key?\n",
    )
    code, _, line = run("config", "--config", file(f"[client.token]\npublic_key = '''{PEM}'''"))
    assert code == 2
    assert line.startswith("hub: client.token.public_key")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "published"), [('{"a": [1, 2.5]}', b'{"a":[1,2.5]}'), ("hello", b'"hello"'), ("NaN", b'"NaN"')]
)
async def test_publish(run: Run, data: str, published: bytes) -> None:
    async with running(settings(dev=True)) as hub:
        code, out, error = await asyncio.to_thread(run, "publish", "chat:x", data, "--dev", "--url", hub.url)
        assert (code, out, error) == (0, "published to chat:x at offset 1\n", "")
        history = await hub.app.state.hub.request("history", HistoryRequest(channel="chat:x", limit=1))
        assert [bytes(publication.data) for publication in history.publications] == [published]


async def test_publish_goes_where_the_settings_say(run: Run, file: Callable[[str], str]) -> None:
    async with running(settings(api={"key": "k"})) as hub:
        path = file(f"[server]\nhost = '0.0.0.0'\nport = {hub.port}\n[api]\nkey = 'k'")
        assert await asyncio.to_thread(run, "publish", "x", "1", "--config", path) == (
            0,
            "published to x\n",
            "",
        )


async def test_publish_that_is_refused(run: Run) -> None:
    async with running(settings(api={"key": "k"})) as hub:

        async def publish(channel: str, *options: str) -> tuple[int, str, str]:
            return await asyncio.to_thread(run, "publish", channel, "1", *options, "--url", hub.url)

        code, out, line = await publish("x", "--key", "wrong")
        assert (code, out) == (1, "")
        assert line.startswith(f"hub: the hub at {hub.url} did not accept the API key")
        code, out, line = await publish("unknown:x", "--key", "k")
        assert (code, out) == (1, "")
        assert line.startswith(
            "hub: unknown channel: no [channels.unknown] is configured for the channel unknown:x"
        )
        assert await publish("x") == (
            2,
            "",
            "hub: api.key: is empty; set it, or give --key (or --dev for a hub in development mode)\n",
        )


def test_publish_to_nobody(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, out, line = run("publish", "x", "1", "--dev", "--url", url)
    assert (code, out) == (1, "")
    assert line.startswith(f"hub: no hub answered at {url}: ")
    assert line.count("\n") == 1


async def listener(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub",
        "subscribe",
        *arguments,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_subscribe_prints_lines_of_json_until_it_is_ended() -> None:
    async with running(settings().for_development()) as server:
        hub = server.app.state.hub
        for number in range(3):
            await hub.publish("news", {"number": number}, tags={"a": "b"})
        process = await listener("news", "--url", server.url, "--since", "1")
        assert process.stdout
        lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
        await hub.publish("news", "héllo")
        lines.append(json.loads(await process.stdout.readline()))
        assert [line["data"] for line in lines] == [{"number": 1}, {"number": 2}, "héllo"]
        assert lines[0]["offset"] == 2
        assert lines[0]["tags"] == {"a": "b"}
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 0


async def test_subscribe_says_why_it_cannot() -> None:
    async with running(settings()) as server:
        for arguments, line in [
            (
                ["news", "--token", "forged"],
                f"the hub at {server.url} refused the connection: invalid token (code 3500)",
            ),
            (["news"], f"the hub at {server.url} refused the connection: unauthorized (code 101)"),
        ]:
            process = await listener(*arguments, "--url", server.url)
            _, stderr = await process.communicate()
            assert (process.returncode, stderr.decode()) == (1, f"hub: {line}\n")
    process = await listener("news", "--url", f"http://127.0.0.1:{free_port()}")
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert "is it running?" in stderr.decode()


async def test_subscribe_shows_rows_on_a_terminal() -> None:
    shown, terminal = os.openpty()
    async with running(settings().for_development()) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub", "subscribe", "news", "--url", server.url,
            env=environment(TERM="dumb"), stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        text = ""
        published = False
        while "hello" not in text:
            text += (await asyncio.to_thread(os.read, shown, 4096)).decode()
            if "listening to news" in text and not published:
                published = True
                await server.app.state.hub.publish("news", {"text": "hello"})
        assert '{"text": "hello"}' in text
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    os.close(shown)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("path", "reason"),
    [("ann:wrong@127.0.0.1:{port}", "WRONGPASS"), ("127.0.0.1:{port}/99", "DB index is out of range")],
)
async def test_serve_says_why_it_does_not_start(path: str, reason: str, workers: int) -> None:
    with RedisServer() as redis:
        env = environment(
            HUB_REDIS__URL=f"redis://{path.format(port=redis.port)}",
            HUB_SERVER__WORKERS=str(workers),
            HUB_PORT=str(free_port()),
        )
        hub = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub", "serve"),
            env=env,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert hub.stderr
        lines: list[str] = []
        try:
            async with asyncio.timeout(WAIT_S):
                while not (lines and (lines[-1].startswith("hub: ") or '"worker.failed"' in lines[-1])):
                    line = await hub.stderr.readline()
                    assert line, lines
                    lines.append(line.decode())
        finally:
            if hub.returncode is None:
                hub.terminate()  # several workers try again for ever
            await hub.communicate()
    told = json.loads(lines[-1])["reason"] if workers > 1 else lines[-1].removeprefix("hub: ")
    assert told.startswith("the app did not start: redis.url: ")
    assert reason in told
    [failed] = [json.loads(line) for line in lines if '"start.failed"' in line]
    assert reason in failed["reason"]
    assert "\n" not in failed["reason"]
    assert failed["exception"].startswith("Traceback")
    assert reason in failed["exception"]
    assert not any(line.startswith("Traceback") for line in lines), "one line, and the traceback in it"


async def test_an_app_that_does_not_start_shows_no_secret() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise ValueError("postgresql://ann:secret@db/shop is away")
        yield

    with pytest.raises(StartupError) as refused:
        async with running(Starlette(lifespan=lifespan)):
            pass
    assert str(refused.value) == "the app did not start: its lifespan raised ValueError: the log says why"
