"""hub.settings and hub.config: where a setting comes from, what is refused, and in what words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hub.config import fields, load
from hub.errors import SettingsError
from hub.settings import ChannelOptions, Settings

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"

Write = Callable[[str], Path]


@pytest.fixture
def toml(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "hub.toml"
        path.write_text(text)
        return path

    return write


def refusal(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(config, overrides, env or {})
    return str(caught.value).split("\n")


def test_without_anything_the_hub_is_closed() -> None:
    settings = load(env={})
    assert not settings.dev
    assert not settings.client.insecure
    assert not settings.client.anonymous
    assert settings.client.allowed_origins == ()
    assert not settings.client.token.configured
    assert settings.client.subscription_token is None
    assert settings.api.key.get_secret_value() == ""
    assert settings.channels == {"default": ChannelOptions()}
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)


def test_environment_prevails_over_file_and_overrides_over_both(toml: Write) -> None:
    path = toml("[server]\nport = 1\nhost = 'a'\nconnections_max = 2\n[client]\nanonymous = true")
    env = {"HUB_SERVER__PORT": "2", "HUB_SERVER__HOST": "b"}
    settings = load(path, {"server": {"port": 3}}, env)
    assert (settings.server.port, settings.server.host, settings.server.connections_max) == (3, "b", 2)
    assert settings.client.anonymous


def test_environment_reaches_every_kind_of_setting() -> None:
    settings = load(
        env={
            "HUB_CLIENT__ALLOWED_ORIGINS": "https://A.example, https://b.example:8443",
            "HUB_CLIENT__TOKEN__HMAC_SECRET": SECRET,
            "HUB_CLIENT__SUBSCRIPTION_TOKEN__HMAC_SECRET": SECRET[::-1],
            "HUB_CHANNELS__CHAT__PRESENCE": "true",
            "HUB_CHANNELS__CHAT__ALLOWED_DELTA_TYPES": "fossil",
            "hub_redis__url": "redis://localhost",
            "OTHER_HUB_THING": "is not ours",
        }
    )
    assert settings.client.allowed_origins == ("https://a.example", "https://b.example:8443")
    assert settings.client.token.hmac_secret.get_secret_value() == SECRET
    assert settings.client.subscription_token is not None
    assert settings.client.subscription_token.hmac_secret.get_secret_value() == SECRET[::-1]
    assert settings.channels["chat"] == ChannelOptions(presence=True, allowed_delta_types=("fossil",))
    assert settings.redis.url == "redis://localhost"


def test_the_processs_own_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_PORT", "4321")
    assert load().server.port == 4321
    assert Settings().server.port == 8000, "only load looks at the environment"


def test_short_names(toml: Write) -> None:
    path = toml("[server]\nhost = 'from-the-file'")
    settings = load(env={"HUB_PORT": "9", "HUB_SERVER__PORT": "8", "HUB_CONFIG": str(path)})
    assert (settings.server.port, settings.server.host) == (9, "from-the-file")
    assert load(toml("[server]\nhost = 'b'"), env={"HUB_CONFIG": "/does/not/exist"}).server.host == "b"


def test_settings_are_frozen() -> None:
    settings = load(env={})
    with pytest.raises(ValidationError, match="frozen"):
        settings.server.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.dev = True


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "[client]\nping_intreval_s = 1",
            ["client.ping_intreval_s: is not a setting; did you mean ping_interval_s?"],
        ),
        ("[clinet]\nx = 1", ["clinet: is not a setting; did you mean client?"]),
        ("[api]\nzz = 1", ["api.zz: is not a setting; allowed are key"]),
        (
            "[channels.chat]\nhistory = 3",
            ["channels.chat.history: is not a setting; did you mean history_size?"],
        ),
        ("[server]\nport = 'x'", ["server.port: must be a valid integer, got 'x'"]),
        ("[server]\nport = true", ["server.port: must not be true or false"]),
        ("[server]\nport = 65536", ["server.port: must be less than or equal to 65535, got 65536"]),
        ("[server]\nport = -1", ["server.port: must be greater than or equal to 0, got -1"]),
        ("[server]\ndrain_window_s = inf", ["server.drain_window_s: must be a finite number, got inf"]),
        ("[client]\nchannels_max = 0", ["client.channels_max: must be greater than 0, got 0"]),
        (
            "[client]\ninsecure = 3",
            ["client.insecure: must be a valid boolean, got 3"],
        ),
        ("server = 3", ["server: must be a table"]),
        ("channels = 3", ["channels: must be a table"]),
        ("[channels]\nchat = 3", ["channels.chat: must be a table"]),
        (
            "[channels.chat]\nslow_reader = 'x'",
            ["channels.chat.slow_reader: must be 'disconnect', 'drop_oldest' or 'latest', got 'x'"],
        ),
        (
            "[channels.'a b']",
            ["channels: a namespace is made of letters, digits, _ and -; got 'a b'"],
        ),
        (
            "[server]\ndrain_window_s = 40",
            ["server.drain_window_s (40) must not be over drain_timeout_s (30)"],
        ),
        (
            "[client]\npong_timeout_s = 25",
            ["client.pong_timeout_s (25) must be below ping_interval_s (25)"],
        ),
        (
            "[client]\nchannels_max = 129",
            [
                "client.message_bytes_max (65536) must be at least 512 times channels_max (129):"
                " a client subscribes to all in one message"
            ],
        ),
        (
            "[client]\nuser_personal_channel = '#user'",
            ["client.user_personal_channel must hold {user}, as in #{user}"],
        ),
        (
            "[client]\nuser_personal_channel = 'my channel #{user}'",
            [
                "client.user_personal_channel may hold letters, digits and _-.:#,/@=+~$&!%|, besides {user}",
            ],
        ),
        (
            "[client]\nuser_personal_channel = 'me:#{user}'",
            [
                "client.user_personal_channel (me:#{user}) has no options: add [channels.me],"
                " or name another namespace"
            ],
        ),
        (
            "[client]\nuser_personal_channel = '{user}:#{user}'",
            ["client.user_personal_channel must not hold {user} in its namespace, before the colon"],
        ),
        (
            "[client]\nuser_personal_channel = 'default:#{user}'",
            ["client.user_personal_channel must not begin with default:"],
        ),
        (
            "[client.token]\nhmac_secret = 'short'",
            [
                "client.token.hmac_secret must be at least 32 bytes long, not 5: openssl rand -hex 32 makes"
                " one",
            ],
        ),
        (
            "[client.token]\npublic_key = 'x'\njwks_url = 'file:///x'",
            [
                "client.token.public_key must be a key in PEM: a text that begins with -----BEGIN",
                "client.token.jwks_url must begin with https:// or http://",
            ],
        ),
        (
            "[redis]\nurl = 'x'",
            [
                "redis.url: must begin with redis://, rediss://, unix://, redis+sentinel://,"
                " rediss+sentinel://, redis+cluster:// or rediss+cluster://"
            ],
        ),
        (
            "[redis]\nretry_budget_s = 0.5",
            ["redis.retry_budget_s (0.5) must not be below timeout_s (1)"],
        ),
        (
            "[channels.chat]\nhistory_size = 1",
            ["channels.chat.history_size and history_ttl_s must both be above zero, or both be zero"],
        ),
        (
            "[channels.chat]\nhistory_ttl_s = 1",
            ["channels.chat.history_size and history_ttl_s must both be above zero, or both be zero"],
        ),
        (
            "[channels.chat]\nforce_recovery = true\nforce_positioning = true",
            [
                "channels.chat.force_recovery needs history: set history_size and history_ttl_s",
                "channels.chat.force_positioning needs history: set history_size and history_ttl_s",
            ],
        ),
        (
            "[channels.chat]\ndelta_publish = true",
            ['channels.chat.delta_publish needs allowed_delta_types = ["fossil"]'],
        ),
        (
            "[channels.chat]\nforce_push_join_leave = true",
            ["channels.chat.force_push_join_leave needs join_leave = true"],
        ),
        (
            "[channels.chat]\nallow_presence_for_client = true\nallow_presence_for_subscriber = true",
            [
                "channels.chat.allow_presence_for_client needs presence = true",
                "channels.chat.allow_presence_for_subscriber needs presence = true",
            ],
        ),
        (
            "[channels.chat]\nallow_subscribe_for_anonymous = true",
            ["channels.chat.allow_subscribe_for_anonymous needs allow_subscribe_for_client = true"],
        ),
    ],
)
def test_faults_in_a_file(toml: Write, text: str, lines: list[str]) -> None:
    assert refusal(toml(text)) == lines


@pytest.mark.parametrize(
    "origin",
    ["null", "a.example", "https://a.example/", "https://*.a.example", "https://u@a.example", "https://a b"],
)
def test_an_origin_is_exact(toml: Write, origin: str) -> None:
    shown = origin.replace("u@", "[hidden]@")
    assert refusal(toml(f"[client]\nallowed_origins = ['*', '{origin}']")) == [
        f"client.allowed_origins: must be scheme://host[:port], without a path, or *; got {shown!r}"
    ]


def test_several_faults_are_a_line_each(toml: Write) -> None:
    path = toml("[client]\nping_interval_s = 'x'\n[server]\nprot = 1")
    assert refusal(path) == [
        "server.prot: is not a setting; did you mean port?",
        "client.ping_interval_s: must be a valid number, got 'x'",
    ]


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"HUB_PROT": "1"}, "HUB_PROT: is not a setting; did you mean HUB_PORT?"),
        (
            {"HUB_CLINT__INSECURE": "1"},
            "HUB_CLINT__INSECURE: is not a setting; did you mean HUB_CLIENT__INSECURE?",
        ),
        ({"HUB_API__KY": "1"}, "HUB_API__KY: is not a setting; did you mean key?"),
        ({"HUB_PORT": "x"}, "HUB_PORT: must be a valid integer, got 'x'"),
        ({"hub_port": "70000"}, "HUB_PORT: must be less than or equal to 65535, got '70000'"),
        (
            {"HUB_CLIENT__PING_INTERVAL_S": "x"},
            "HUB_CLIENT__PING_INTERVAL_S: must be a valid number, got 'x'",
        ),
        (
            {"HUB_CLIENT__INSECURE__X": "1"},
            "HUB_CLIENT__INSECURE__X: must be a valid boolean, got {'x': '1'}",
        ),
        ({"HUB_CLIENT": "{}"}, "HUB_CLIENT: is a table; set its keys, as in HUB_CLIENT__KEY"),
        (
            {"HUB_CLIENT__TOKEN": "x"},
            "HUB_CLIENT__TOKEN: is a table; set its keys, as in HUB_CLIENT__TOKEN__KEY",
        ),
        ({"HUB_CHANNELS": "x"}, "HUB_CHANNELS: is a table; set its keys, as in HUB_CHANNELS__KEY"),
        ({"HUB_CHANNELS__CHAT": "x"}, "HUB_CHANNELS__CHAT: must be a table"),
    ],
)
def test_faults_in_the_environment_name_the_variable(env: dict[str, str], line: str) -> None:
    assert refusal(env=env) == [line]


def test_a_variable_like_no_other_is_answered_with_what_there_is() -> None:
    (line,) = refusal(env={"HUB_QQQQ": "1"})
    assert line.startswith("HUB_QQQQ: is not a setting; allowed are HUB_API__…, ")
    assert line.endswith("HUB_PORT, HUB_REDIS__…, HUB_SERVER__…")


def test_a_fault_of_a_flag_is_not_put_on_the_environment() -> None:
    assert refusal(overrides={"server": {"port": -1}}, env={"HUB_PORT": "1"}) == [
        "server.port: must be greater than or equal to 0, got -1"
    ]


def test_a_long_value_is_not_repeated_whole(toml: Write) -> None:
    (line,) = refusal(toml(f"[server]\nport = '{'9x' * 1000}'"))
    assert len(line) < 120


@pytest.mark.parametrize(
    "text",
    [
        "[client.token]\nhmac_secret = 'canary'",
        "[client.token]\nhmac_secret = ['canary']",
        "[client.token]\nhmac_secret = {canary = 1}",
        "[client]\ntoken = 'canary'",
        "[client.reconnect]\nkeys = ['canary']",
        "[client.reconnect]\nkeys = [['canary']]",
        "[client.token]\njwks_url = 'ftp://canary:canary@login.example/?canary'",
        "[client.token]\njwks_url = ['https://canary:canary@login.example/']",
        "[client.token]\npublic_key = 'canary'",
        "[client.token]\npublic_key = ['canary']",
        "[api]\nkey = ['canary']",
        "[redis]\nurl = 'redis://:can@canary/@host'",
        "[redis]\nurl = ['redis://:canary@host']",
        "[redis]\nurl = {x = 'redis://:canary@host'}",
        "redis = 'redis://:canary@host'",
        "[client]\nallowed_origins = ['https://canary:canary@a.example']",
        "[client]\nallowed_origins = 'redis://:canary@host?canary'",
        "[server]\nport = 'redis://:canary@host'",
        "[client.token]\nhmac_secret = 'canary",
        "[redis]\nurl = redis://:canary@host",
    ],
)
def test_no_fault_shows_a_secret(toml: Write, text: str) -> None:
    lines = refusal(toml(text))
    assert lines
    assert "canary" not in "\n".join(lines)


def test_no_fault_of_a_variable_shows_a_secret() -> None:
    for name in (
        *("HUB_REDIS__URL", "HUB_REDIS", "HUB_REDIS__URL__X", "HUB_CLIENT__TOKEN__HMAC_SECRET", "HUB_API"),
        *(
            "HUB_CLIENT__TOKEN",
            "HUB_CLIENT__RECONNECT__KEYS",
            "HUB_CLIENT__TOKEN__JWKS_URL",
            "HUB_REDIS__ULR",
        ),
        *("HUB_SERVER__PORT", "HUB_DEV", "HUB_SERVER__TRUSTED_PROXIES", "HUB_API__KEY__X", "HUB_REDIS_URL"),
    ):
        lines = refusal(env={name: "redis://:can@canary/@host"})
        assert lines
        assert "canary" not in "\n".join(lines)


def test_the_text_form_of_settings_shows_no_secret(toml: Write) -> None:
    settings = load(
        toml(
            f"""
            [redis]
            url = "redis+sentinel://me:canary@s/main?sentinel_password=canary"
            [api]
            key = "canary"
            [client.token]
            hmac_secret = "canary{SECRET}"
            jwks_url = "https://me:canary@login.example/keys?canary"
            [client.reconnect]
            keys = ["canary{SECRET}"]
            """
        ),
        env={},
    )
    assert "canary" not in f"{settings!r} {settings}"


def test_short_secrets_are_for_development_alone(toml: Write) -> None:
    text = """
        [client.token]
        hmac_secret = "secret"
        [client.subscription_token]
        hmac_secret = "other"
        [client.reconnect]
        keys = ["key"]
    """
    assert refusal(toml(text)) == [
        "client.token.hmac_secret must be at least 32 bytes long, not 6: openssl rand -hex 32 makes one",
        "client.subscription_token.hmac_secret must be at least 32 bytes long, not 5: openssl rand -hex 32"
        " makes one",
        "client.reconnect.keys must be at least 32 bytes long each, not 3: openssl rand -hex 32 makes one",
    ]
    for settings in (load(toml(text), {"dev": True}, {}), load(toml(text), env={"HUB_DEV": "1"})):
        assert settings.client.token.hmac_secret.get_secret_value() == "secret"


def test_settings_can_be_read_again(toml: Write) -> None:
    path = toml("[server]\nport = 1")
    settings = load(path, {"dev": True}, {})
    toml("[server]\nport = 2")
    assert settings.read_again is not None
    assert settings.read_again() == load(overrides={"dev": True, "server": {"port": 2}}, env={})
    toml("[server]\nprot = 2")
    with pytest.raises(SettingsError, match="prot"):
        settings.read_again()
    assert Settings().read_again is None


@pytest.mark.parametrize("content", [b"x ==", b"\xff\xfe", b"[a]\n[a]"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hub.toml"
    path.write_bytes(content)
    (line,) = refusal(path)
    assert line.startswith(f"{path}: is not valid TOML: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    remedy = "give the path of a TOML file by --config or HUB_CONFIG"
    line = f"{missing}: cannot be read: No such file or directory; {remedy}"
    assert refusal(missing) == [line]
    assert refusal(env={"HUB_CONFIG": str(missing)}) == [line]
    assert refusal(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory; {remedy}"]


def test_development_opens_the_hub() -> None:
    settings = load(env={"HUB_DEV": "true"})
    assert settings == load(overrides={"dev": True}, env={})
    assert settings.dev
    assert settings.client.insecure
    assert settings.client.allowed_origins == ()
    assert settings.api.key.get_secret_value() == "dev"
    assert len(settings.client.token.hmac_secret.get_secret_value()) >= 32
    assert settings.channels["default"] == settings.channels["chat"]
    chat = settings.channels["chat"]
    assert chat.presence
    assert chat.join_leave
    assert (chat.history_size, chat.history_ttl_s) == (200, 3600)
    assert settings.channels["typing"] == ChannelOptions()
    assert settings.for_development() == settings


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        ("#{user}", ""),
        ("user-{user}", ""),
        ("me:#{user}", "[channels.me]"),
        ("me:{user}", "[channels.me]"),
        ("chat:#{user}", ""),
    ],
)
def test_a_personal_channel_that_is_configured(toml: Write, channel: str, text: str) -> None:
    dev = "dev = true\n" if channel.startswith("chat") else ""
    settings = load(toml(f"{dev}[client]\nuser_personal_channel = '{channel}'\n{text}"), env={})
    assert settings.client.user_personal_channel == channel


def test_development_leaves_what_was_set(toml: Write) -> None:
    text = f"""
        [api]
        key = "mine"
        [client.token]
        jwks_url = "https://login.example/keys"
        [client.subscription_token]
        hmac_secret = "{SECRET}"
        [channels.default]
        presence = true
        [channels.chat]
        join_leave = true
    """
    before, settings = load(toml(text), env={}), load(toml(text), {"dev": True}, {})
    assert settings.api == before.api
    assert settings.client.token == before.client.token
    assert settings.client.subscription_token == before.client.subscription_token
    assert settings.channels == {**before.channels, "typing": ChannelOptions()}


def test_every_setting_is_described() -> None:
    described = dict(fields())
    assert {
        "dev",
        "server.port",
        "client.token.hmac_secret",
        "channels.NAME.history_size",
    } <= described.keys()
    assert [key for key, field in described.items() if not field.description] == []


def test_the_pages_hold_what_the_code_says() -> None:
    script = (
        "import tables; print(*[path for path, text in tables.pages().items() if path.read_text() != text])"
    )
    stale = subprocess.check_output(
        [sys.executable, "-c", script], env={"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}, text=True
    )
    assert stale == "\n", "run scripts/docs"


def test_the_former_name_of_the_limit_for_a_user_still_works() -> None:
    variable = {"HUB_CLIENT__CONNECTIONS_PER_USER_MAX": "7"}
    assert load(env=variable).client.connections_per_user_and_node_max == 7
    both = {"connections_per_user_max": 7, "connections_per_user_and_node_max": 8}
    assert load(env={}, overrides={"client": both}).client.connections_per_user_and_node_max == 8
    with pytest.raises(SettingsError, match="connections_per_user_and_node_max: must be"):
        load(env={}, overrides={"client": {"connections_per_user_max": -1}})
