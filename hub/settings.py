"""Everything an operator can set, checked and frozen. `hub.config` reads it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

from hub import redis_url

HMAC_SECRET_BYTES_MIN = 32
_MAKE_SECRET = "openssl rand -hex 32 makes one"  # noqa: S105 - a command
SUBSCRIBE_COMMAND_BYTES = 512
"""Room for one subscribe command: a client that comes back subscribes to all its channels in one frame."""

DEVELOPMENT_SECRET = "the-hub-in-development-mode-signs-with-this"  # noqa: S105 - known to all, by design
DEVELOPMENT_API_KEY = "dev"

DEFAULT_NAMESPACE = "default"
"""The namespace whose options hold for channels without one."""

CHANNEL_NAME = re.compile(r"[A-Za-z0-9_\-.:#,/@=+~$&!%|]+")
"""The characters of a channel's name."""

FORMER_USER_LIMIT = "connections_per_user_max"
"""The former name of `client.connections_per_user_and_node_max`, in configurations of earlier releases."""

PREFIX = "HUB_"
RELATION = "relation"
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+")


def namespace_of(channel: str) -> str:
    """The namespace that a channel's name begins with, or `DEFAULT_NAMESPACE`."""
    namespace, colon, _ = channel.partition(":")
    return namespace if colon else DEFAULT_NAMESPACE


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Section(BaseModel):
    """What every table of the settings shares: frozen, no unknown key, no infinite number."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        # The strings of the environment need lax parsing, which would also take `history_size = true` as 1.
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("must not be true or false")
        return value

    def _faults(self) -> Iterator[str]:
        """The relations between fields that do not hold, a line each; it begins with a field's name."""
        yield from ()

    @model_validator(mode="after")
    def _relations_hold(self) -> Self:
        if faults := list(self._faults()):
            raise PydanticCustomError(RELATION, "{lines}", {"lines": "\n".join(faults)})
        return self


class ServerSettings(Section):
    """`[server]`: Where the hub listens, and how it starts and ends."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every IPv4 interface."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port; 0 lets the system choose. `HUB_PORT` is a short name for it."""
    drain_window_s: NonNegativeFloat = 20.0
    """Seconds over which clients are asked to reconnect elsewhere after SIGTERM."""
    drain_timeout_s: NonNegativeFloat = 30.0
    """Seconds after SIGTERM at which the process ends, whoever is still connected."""
    roll_pause_s: NonNegativeFloat = 5.0
    """Seconds that `hub roll` waits after a hub serves again, before it restarts the next one. Balancers send
    clients to a hub again only after their next health checks succeeded: set more than they take."""
    handshake_timeout_s: PositiveFloat = 5.0
    """Seconds that a client has to send a complete HTTP request head."""
    keep_alive_s: PositiveFloat = 75.0
    """Seconds that an idle HTTP connection is kept. A balancer must give up its idle connections sooner
    (nginx and AWS load balancers do so after 60), or it sends a request on a connection that the hub closes
    at that moment, and answers 502."""
    connections_max: NonNegativeInt = 0
    """Connections at once; 0 means 90 % of the limit on file descriptors. One more is answered 503."""
    compression: bool = False
    """Compress what goes to clients that offer permessage-deflate. It takes CPU time and memory, and pays
    where bandwidth is dear."""
    connections_per_address_max: NonNegativeInt = 0
    """Connections at once from one address, or from one IPv6 network of 64 bits, on one node; 0 for no limit.
    One more is answered 503. Mind that all who sit behind one NAT have one address, and name your proxies in
    `trusted_proxies`."""
    accepts_per_s: NonNegativeFloat = 0.0
    """WebSocket handshakes and new streams in a second; 0 for no limit. One more is answered 503."""
    handshakes_max: PositiveInt = 4096
    """WebSocket handshakes and new streams that wait for their turn in a crowd. One more is answered 503, and
    so is, in a crowd that grows for over 3 s, whoever comes while the first has waited for 0.1 s."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ("127.0.0.1", "::1")
    """Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. What
    comes from one of them and names nobody counts for no address."""
    lag_max_s: NonNegativeFloat = 0.25
    """Seconds that the event loop may be late, on average, until the node is overloaded; 0 for any."""
    memory_bytes_max: NonNegativeInt = 0
    """Bytes of memory at which the node is overloaded; 0 means 90 % of the container's limit, divided by
    `workers`, and any where there is none."""
    workers: PositiveInt = 1
    """Processes that `hub serve`, or `run` for an app, starts, a node each, which share the port. Several
    need Redis between them."""

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(f"must be addresses or networks such as 10.0.0.0/8; got {proxy!r}") from None
        return proxies

    def _faults(self) -> Iterator[str]:
        if self.drain_window_s > self.drain_timeout_s:
            yield (
                f"drain_window_s ({self.drain_window_s:g}) must not be over"
                f" drain_timeout_s ({self.drain_timeout_s:g})"
            )


class TokenSettings(Section):
    """`[client.token]` and `[client.subscription_token]`: What a client's JSON Web Token is verified with."""

    hmac_secret: SecretStr = SecretStr("")
    """Secret of the HS256, HS384 and HS512 signatures, at least 32 bytes; a shorter one is a warning in
    development mode. Empty: no such signature is accepted."""
    public_key: Annotated[str, Field(repr=False)] = ""
    """Public key of the RS, ES and EdDSA signatures, in PEM. Empty: none is accepted."""
    jwks_url: Annotated[str, Field(repr=False)] = ""
    """URL of a JSON Web Key Set whose keys are found by the token's `kid`. Empty: none."""
    audience: str = ""
    """What the token's `aud` must hold. Empty: not checked."""
    issuer: str = ""
    """What the token's `iss` must be. Empty: not checked."""

    @property
    def configured(self) -> bool:
        """Whether there is a key of any kind."""
        return bool(self.hmac_secret.get_secret_value() or self.public_key or self.jwks_url)

    def _faults(self) -> Iterator[str]:
        if self.public_key and not self.public_key.lstrip().startswith("-----BEGIN "):
            yield "public_key must be a key in PEM: a text that begins with -----BEGIN"
        if self.jwks_url and not self.jwks_url.startswith(("https://", "http://")):
            yield "jwks_url must begin with https:// or http://"


class ReconnectSettings(Section):
    """`[client.reconnect]`: How clients come back without a login, see [reconnect.md](reconnect.md)."""

    keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Secrets of the reconnect tokens, at least 32 bytes each, the same on all nodes; `hub token keys` makes
    one. The first signs, all verify, so that keys can change while clients hold tokens. Empty: a hub of one
    process makes one at its start; one with Redis hands out no tokens."""
    ttl_s: PositiveFloat = 300.0
    """Seconds that a token is good for. A connected client gets another in half that time."""
    presence_grace_s: NonNegativeFloat = 5.0
    """Seconds that a client whose socket broke stays in its channels' presence, and is not said to have left:
    it may come back with its token."""


class ClientSettings(Section):
    """`[client]`: Who may connect, and what one connection may cost."""

    insecure: bool = False
    """Let everyone in and let them do everything, with no token. Never in production. Against pages of other
    sites, the hub then answers requests only to local hosts, to `server.host`, and to the hosts of
    `allowed_origins`."""
    anonymous: bool = False
    """Let clients without a token in, as the user `""`."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Origins whose pages may connect besides the hub's own, each `scheme://host[:port]`, or `*` for any."""
    ping_interval_s: PositiveFloat = 25.0
    """Seconds between two pings of the server."""
    pong_timeout_s: PositiveFloat = 8.0
    """Seconds that a client has to answer a ping."""
    connect_timeout_s: PositiveFloat = 10.0
    """Seconds that a client has to send its connect command."""
    message_bytes_max: PositiveInt = 65536
    """Bytes of one message from a client."""
    channels_max: PositiveInt = 128
    """Subscriptions of one connection at once."""
    channel_bytes_max: PositiveInt = 255
    """Bytes of a channel's name."""
    connections_per_user_and_node_max: NonNegativeInt = 0
    """Connections of one user at once on one node; 0 for no limit. One more ends with 3504. Each node counts
    its own connections alone: a user may have this many on every node. `connections_per_user_max` is the
    former name, which still works."""
    commands_max: PositiveInt = 1024
    """Commands of one connection in progress at once."""
    fragments_max: PositiveInt = 1024
    """WebSocket frames that one message may be split into."""
    outbox_bytes_max: PositiveInt = 1048576
    """Bytes that wait for a client that reads slowly."""
    outbox_messages_max: PositiveInt = 8192
    """Messages that wait for a client that reads slowly."""
    outboxes_bytes_max: NonNegativeInt = 268435456
    """Bytes that wait for all slow clients of a node; over it those who wait for most are ended with 3008.
    0 for no bound."""
    publishes_per_s: NonNegativeFloat = 0.0
    """Publishes a second of one connection; one more is answered with error 111. 0 for no limit."""
    user_publishes_per_s: NonNegativeFloat = 0.0
    """Publishes a second of one user on this node, over all connections. 0 for no limit."""
    subscribes_per_s: NonNegativeFloat = 0.0
    """Subscribes a second of one connection. 0 for no limit."""
    user_connects_per_s: NonNegativeFloat = 0.0
    """Connections a second that one user makes on this node. 0 for no limit."""
    burst_s: PositiveFloat = 5.0
    """Seconds' worth of these rates that may be saved up, and spent at once."""
    history_limit_max: PositiveInt = 1000
    """Publications that one history call returns at most."""
    user_personal_channel: str = ""
    """Channel that every user is subscribed to at connect, such as `#{user}`. Its namespace must be
    configured, with `force_recovery` if it keeps history. Characters of a user's id that a channel's name
    does not allow are percent-encoded in it. Empty: none."""
    token: TokenSettings = TokenSettings()
    """Keys of connection tokens."""
    subscription_token: TokenSettings | None = None
    """Keys of subscription tokens. Absent: those of `[client.token]` serve for both."""
    reconnect: ReconnectSettings = ReconnectSettings()
    """Reconnect tokens."""

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and FORMER_USER_LIMIT in values:
            values = {"connections_per_user_and_node_max": values[FORMER_USER_LIMIT], **values}
            del values[FORMER_USER_LIMIT]
        return values

    @field_validator("allowed_origins")
    @classmethod
    def _origins_are_exact(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.lower() for origin in origins)
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"must be scheme://host[:port], without a path, or *; got {origin!r}")
        return origins

    @property
    def stall_timeout_s(self) -> float:
        """Seconds after which a peer that takes nothing of what was written to it counts as dead."""
        return self.ping_interval_s + self.pong_timeout_s

    def _faults(self) -> Iterator[str]:
        if self.pong_timeout_s >= self.ping_interval_s:
            yield (
                f"pong_timeout_s ({self.pong_timeout_s:g}) must be below"
                f" ping_interval_s ({self.ping_interval_s:g})"
            )
        if self.channels_max * SUBSCRIBE_COMMAND_BYTES > self.message_bytes_max:
            yield (
                f"message_bytes_max ({self.message_bytes_max}) must be at least {SUBSCRIBE_COMMAND_BYTES}"
                f" times channels_max ({self.channels_max}): a client subscribes to all in one message"
            )
        if 0 < self.outboxes_bytes_max < self.outbox_bytes_max:
            yield (
                f"outboxes_bytes_max ({self.outboxes_bytes_max}) must not be below"
                f" outbox_bytes_max ({self.outbox_bytes_max})"
            )
        if 0 < self.subscribes_per_s * self.burst_s < self.channels_max:
            yield (
                f"subscribes_per_s ({self.subscribes_per_s:g}) times burst_s ({self.burst_s:g}) must be at"
                f" least channels_max ({self.channels_max}): a client comes back to all of them at once"
            )
        if self.user_personal_channel and "{user}" not in self.user_personal_channel:
            yield "user_personal_channel must hold {user}, as in #{user}"
        elif self.user_personal_channel and not CHANNEL_NAME.fullmatch(
            self.user_personal_channel.replace("{user}", "u")
        ):
            yield "user_personal_channel may hold letters, digits and _-.:#,/@=+~$&!%|, besides {user}"


class ApiSettings(Section):
    """`[api]`: The server API."""

    key: SecretStr = SecretStr("")
    """Key that callers of the server API present. Empty: the API is closed."""


class RedisSettings(Section):
    """`[redis]`: The broker between nodes."""

    url: Annotated[str, Field(repr=False)] = ""
    """URL of the Redis that joins several nodes: `redis://[user:password@]host:port/db`, `rediss://` with
    TLS, `unix://path`, `redis+sentinel://host:port,host:port/service` or
    `redis+cluster://host:port,host:port`, with the options that [redis.md](redis.md) lists. Empty: the hub is
    one process."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "hub"
    """What every key and channel in Redis begins with. Hubs that share a Redis need one each, in other
    databases too: publishing knows no databases."""
    timeout_s: PositiveFloat = 1.0
    """Seconds within which Redis must answer; then the link is made anew."""
    retry_budget_s: PositiveFloat = 2.0
    """Seconds in which a call that is safe to repeat is repeated over a new link; then it fails."""
    pending_bytes_max: PositiveInt = 67_108_864
    """Bytes of calls that may wait for Redis; one more fails."""

    def _faults(self) -> Iterator[str]:
        if self.url:
            try:
                redis_url.parse(self.url)
            except ValueError as error:
                yield f"url: {error}"
        if self.retry_budget_s < self.timeout_s:
            yield f"retry_budget_s ({self.retry_budget_s:g}) must not be below timeout_s ({self.timeout_s:g})"


SlowReader: TypeAlias = Literal["disconnect", "drop_oldest", "latest"]


class ChannelOptions(Section):
    """`[channels.NAME]`: Options of channels called `NAME:…`; `default` is for those without a namespace."""

    presence: bool = False
    """Keep who is subscribed, for the presence calls."""
    join_leave: bool = False
    """Tell subscribers that ask for it who comes and goes."""
    force_push_join_leave: bool = False
    """Tell every subscriber who comes and goes. Needs `join_leave`."""
    history_size: NonNegativeInt = 0
    """Publications kept in a channel. Set together with `history_ttl_s`."""
    history_ttl_s: NonNegativeFloat = 0.0
    """Seconds that publications are kept after the last one. Set together with `history_size`."""
    force_recovery: bool = False
    """Let every subscriber recover what it missed, whether it asks or not. Needs history."""
    force_positioning: bool = False
    """Watch every subscriber's position for gaps, whether it asks or not. Needs history."""
    allow_subscribe_for_client: bool = False
    """Let clients with a user subscribe without a token."""
    allow_subscribe_for_anonymous: bool = False
    """Let clients without a user do so too. Needs `allow_subscribe_for_client`."""
    allow_publish_for_client: bool = False
    """Let every client with a user publish."""
    allow_publish_for_subscriber: bool = False
    """Let subscribers publish."""
    allow_history_for_client: bool = False
    """Let every client with a user read the history."""
    allow_history_for_subscriber: bool = False
    """Let subscribers read the history."""
    allow_presence_for_client: bool = False
    """Let every client with a user read the presence. Needs `presence`."""
    allow_presence_for_subscriber: bool = False
    """Let subscribers read the presence. Needs `presence`."""
    allow_user_limited: bool = False
    """Let a channel such as `room#7,8` be subscribed to by the users 7 and 8 alone, without a token."""
    allowed_delta_types: Annotated[tuple[Literal["fossil"], ...], NoDecode, BeforeValidator(_listed)] = ()
    """Delta compressions that subscribers may ask for: `fossil`, or none. Where a publisher asks for it too,
    they get what changed since the publication before."""
    delta_publish: bool = False
    """Send deltas of every publication, whether its publisher asks for that or not. Needs
    `allowed_delta_types`."""
    allow_tags_filter: bool = False
    """Let subscribers say by a filter over tags which publications they get. It saves them traffic, and hides
    nothing from them."""
    slow_reader: SlowReader = "disconnect"
    """What a client gets that reads too slowly. `disconnect` ends its connection with 3008 when its outbox is
    full, so that it comes back and recovers; `drop_oldest` gives up the oldest publications that wait for
    it; `latest` keeps only the newest of the channel. What was given up shows as a jump of the offset."""
    when_degraded: Literal["error", "local"] = "error"
    """What a publish gets while the broker is away: an error that says to try again, or delivery to the
    subscribers of this node alone."""

    def _faults(self) -> Iterator[str]:
        history = self.history_size > 0 and self.history_ttl_s > 0
        if (self.history_size > 0) != (self.history_ttl_s > 0):
            yield "history_size and history_ttl_s must both be above zero, or both be zero"
        for name in ("force_recovery", "force_positioning"):
            if getattr(self, name) and not history:
                yield f"{name} needs history: set history_size and history_ttl_s"
        if self.delta_publish and not self.allowed_delta_types:
            yield 'delta_publish needs allowed_delta_types = ["fossil"]'
        if self.force_push_join_leave and not self.join_leave:
            yield "force_push_join_leave needs join_leave = true"
        if self.allow_subscribe_for_anonymous and not self.allow_subscribe_for_client:
            yield "allow_subscribe_for_anonymous needs allow_subscribe_for_client = true"
        for name in ("allow_presence_for_client", "allow_presence_for_subscriber"):
            if getattr(self, name) and not self.presence:
                yield f"{name} needs presence = true"


_OPEN = ChannelOptions(presence=True, join_leave=True, history_size=200, history_ttl_s=3600.0)
"""What a channel offers in development mode; there everyone may do everything."""

_DEVELOPMENT: Final = {"chat": _OPEN, "typing": ChannelOptions()}
"""The namespaces of the chat page, which development mode adds."""


class Origin:
    """How settings were read. All origins are equal: settings are compared by their values.

    Args:
        read_again: reads them again. It raises `SettingsError` where they are faulty now.
    """

    def __init__(self, read_again: Callable[[], Settings] | None = None) -> None:
        self.read_again = read_again

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    __hash__ = object.__hash__


class Settings(Section, BaseSettings):
    """The effective settings of a hub, checked and frozen.

    `load` reads them from the file and the environment. `Settings(…)` in code takes its arguments alone: it
    reads no file and no variable, `HUB_…` or other.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")

    dev: bool = False
    """Development mode: everyone may do everything. Never in production."""
    server: ServerSettings = ServerSettings()
    client: ClientSettings = ClientSettings()
    api: ApiSettings = ApiSettings()
    redis: RedisSettings = RedisSettings()
    channels: dict[str, ChannelOptions] = {}
    """By namespace; `default`, for channels without one, is always there."""
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def read_again(self) -> Callable[[], Settings] | None:
        """Reads the settings again, where `load` read them; None for settings that were made in code.

        It raises `SettingsError` where they are faulty now.
        """
        return self._origin.read_again

    def _faults(self) -> Iterator[str]:
        if self.server.workers > 1 and not self.redis.url:
            yield f"server.workers = {self.server.workers} needs Redis between them: set redis.url"
        if self.server.workers > 1 and not self.server.port:
            yield f"server.workers = {self.server.workers} share one port: server.port must be set"
        if personal := self.client.user_personal_channel:
            namespace = namespace_of(personal)
            if "{user}" in namespace:
                yield "client.user_personal_channel must not hold {user} in its namespace, before the colon"
            elif personal.startswith(f"{DEFAULT_NAMESPACE}:"):
                yield f"client.user_personal_channel must not begin with {DEFAULT_NAMESPACE}:"
            elif namespace not in (self.channels if not self.dev else {*self.channels, *_DEVELOPMENT}):
                yield (
                    f"client.user_personal_channel ({personal}) has no options: add [channels.{namespace}],"
                    " or name another namespace"
                )
        if not self.dev:
            yield from self.short_secrets()

    def short_secrets(self) -> Iterator[str]:
        """Name each secret that is shorter than `HMAC_SECRET_BYTES_MIN`, a line each."""
        tokens = {
            "client.token": self.client.token,
            "client.subscription_token": self.client.subscription_token,
        }
        for key, token in tokens.items():
            length = len(token.hmac_secret.get_secret_value().encode()) if token is not None else 0
            if 0 < length < HMAC_SECRET_BYTES_MIN:
                yield (
                    f"{key}.hmac_secret must be at least {HMAC_SECRET_BYTES_MIN} bytes long, not {length}:"
                    f" {_MAKE_SECRET}"
                )
        for secret in self.client.reconnect.keys:
            length = len(secret.get_secret_value().encode())
            if length < HMAC_SECRET_BYTES_MIN:
                yield (
                    f"client.reconnect.keys must be at least {HMAC_SECRET_BYTES_MIN} bytes long each,"
                    f" not {length}: {_MAKE_SECRET}"
                )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Build from the arguments alone: only `load` looks at a file and at the environment."""
        return (init_settings,)

    @field_validator("channels")
    @classmethod
    def _namespaces(cls, channels: dict[str, ChannelOptions]) -> dict[str, ChannelOptions]:
        for name in channels:
            if not _NAMESPACE.fullmatch(name):
                raise ValueError(f"a namespace is made of letters, digits, _ and -; got {name!r}")
        return {"default": ChannelOptions(), **channels}

    def for_development(self) -> Settings:
        """What `--dev` makes of these settings. Not for production: whoever reaches the port owns the hub.

        Clients need no token and may do everything. The namespace `chat`, and `default` where nothing is set
        for it, keep history and presence; the namespace `typing` keeps nothing. Where there is no API key or
        no key for tokens, one that everyone knows is put in.
        """
        channels = {**_DEVELOPMENT, **self.channels}
        if not channels["default"].model_fields_set:
            channels["default"] = _OPEN
        token, reconnect, api = self.client.token, self.client.reconnect, self.api
        if not token.configured:
            token = token.model_copy(update={"hmac_secret": SecretStr(DEVELOPMENT_SECRET)})
        if not api.key.get_secret_value():
            api = ApiSettings(key=SecretStr(DEVELOPMENT_API_KEY))
        if not reconnect.keys:
            reconnect = reconnect.model_copy(update={"keys": (SecretStr(DEVELOPMENT_SECRET),)})
        client = self.client.model_copy(update={"insecure": True, "token": token, "reconnect": reconnect})
        return self.model_copy(update={"dev": True, "client": client, "api": api, "channels": channels})
