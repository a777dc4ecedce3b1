"""`[systems.NAME]` with plugin = "kafka". Nothing here connects."""

from __future__ import annotations

import re
import ssl
from typing import Any, Final, Literal

import msgspec

from engine.errors import ConfigError, PluginError
from engine.model.table import Kind, Shape
from engine.plugin import Plugin, Site, load_plugin
from engine.ports import Role
from engine.promises import Promise, Promises, Word, not_kept
from engine.secret import Secret

Order = Literal["transaction", "partition", "row"]
Form = Literal["envelope", "flat"]
TimeMode = Literal[
    "adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"
]  # fmt: skip
DecimalMode = Literal["precise", "string", "double"]
BinaryMode = Literal["bytes", "base64", "base64-url-safe", "hex"]
Tls = Literal["off", "verify-ca", "verify-identity"]
Sasl = Literal["plain", "scram-sha-256", "scram-sha-512"]

COLUMN_KINDS: Final = {
    "text": Kind.TEXT,
    "integer": Kind.INTEGER,
    "decimal": Kind.DECIMAL,
    "float": Kind.FLOAT,
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "instant": Kind.INSTANT,
    "uuid": Kind.UUID,
    "json": Kind.JSON,
}
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]")
UNAVAILABLE: Final = "__debezium_unavailable_value"
"""What Debezium puts where PostgreSQL's log has no value (`unavailable.value.placeholder`)."""


SETTINGS: Final = {
    "servers": "brokers to begin with, host:port",
    "prefix": "Debezium's topic.prefix: its topics are read",
    "feed": "the beginning of the names of topics that are written; prefix or feed",
    "database": "the captured database itself, as a system of another plugin",
    "order": "what the topics promise: transaction, partition or row",
    "transactions": "the topic of transactions; by default PREFIX.transaction",
    "topics": "table = topic, where a transformation of the connector renames it",
    "marker": "our table of deliveries, as Debezium names it; by default by the database's kind",
    "heartbeat": "the table that heartbeat.action.query writes, of a system that is only read",
    "form": "flat for messages of ExtractNewRecordState",
    "time": "the connector's time.precision.mode, where messages bring no schema",
    "decimal": "the connector's decimal.handling.mode, where messages bring no schema",
    "binary": "the connector's binary.handling.mode",
    "unavailable": "the connector's unavailable.value.placeholder",
    "group": "the consumer group that shows others how far we are",
    "tables": "of a feed: table, its columns and their types",
    "partitions": "of topics that set-up makes",
    "replicas": "of topics that set-up makes",
    "tls": "off, verify-ca or verify-identity",
    "tls_ca": "file of the authority that signs the brokers' certificates",
    "tls_certificate": "file of our own certificate",
    "tls_key": "file of its key",
    "sasl": "scram-sha-256, scram-sha-512 or plain",
    "user": "who we are",
    "password": "by { env = ... } or { file = ... }",
    "connect_seconds_max": "how long making a connection may take",
    "request_seconds_max": "how long an answer may take",
}
"""What each setting means, for `concord plugins show`."""


class KafkaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Topics that Debezium fills, or topics that Concord fills.

    `prefix`: Debezium's `topic.prefix`: these topics are read. `feed`: the beginning of the names of topics that are
    written. One of the two. `database`: the captured database itself, as a table of another plugin, for what topics
    cannot do: what tables look like, whole tables for a first copy, and writing to it.

    `order` says what the topics promise, and so what Concord can (README.md, "What each set-up promises").
    `transactions`: the topic of transactions. `topics`: table → topic, where a transformation of the connector has
    renamed it. `marker`, `heartbeat`: the tables, as Debezium names them, of our deliveries and of the connector's
    heartbeat. `form`, `time`, `decimal`, `binary`, `unavailable`: how the connector spells messages; `time` and
    `decimal` are asked only where messages bring no schema. `group`: under which consumer group what has been taken
    over is shown.

    `tables`: of a feed, table → column → one of `COLUMN_KINDS`. `partitions`, `replicas`: of topics that set-up makes.
    `tls`: "verify-ca" looks at who signed a broker's certificate, "verify-identity" at its name too. Files are relative
    to the configuration's folder.
    """

    servers: tuple[str, ...]
    prefix: str | None = None
    feed: str | None = None
    database: dict[str, Any] | None = None
    order: Order = "transaction"
    transactions: str | None = None
    topics: dict[str, str] = {}
    marker: str | None = None
    heartbeat: str | None = None
    form: Form = "envelope"
    time: TimeMode = "adaptive"
    decimal: DecimalMode = "precise"
    binary: BinaryMode = "bytes"
    unavailable: str = UNAVAILABLE
    group: str | None = None
    tables: dict[str, dict[str, str]] = {}
    partitions: int = 1
    replicas: int = 1
    tls: Tls = "off"
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    sasl: Sasl | None = None
    user: str | None = None
    password: Secret | None = None
    connect_seconds_max: int = 15
    request_seconds_max: int = 30

    def __post_init__(self) -> None:
        if not self.servers or not all(self.servers):
            raise ValueError('servers is empty; name brokers, as in servers = ["kafka1:9092"]')
        if (self.prefix is None) == (self.feed is None):
            raise ValueError("one of prefix (topics of Debezium, to read) and feed (topics to write) is wanted")
        if self.feed is not None and self.database is not None:
            raise ValueError("database belongs to topics that are read; a feed is written without one")
        self._check_tables()
        if self.form == "flat" and self.order != "row":
            raise ValueError('flat messages have no place in the source\'s log; say order = "row"')
        if not self.unavailable:
            raise ValueError("unavailable is empty; it is the connector's unavailable.value.placeholder")
        self._check_security()
        for name in ("partitions", "replicas", "connect_seconds_max", "request_seconds_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.database is not None:
            inner_database(self)

    def partitions_for(self, topic: str) -> int:
        """Of a topic that set-up makes. That of transactions is the order of everything, which one partition has."""
        is_alone = topic == (self.transactions or f"{self.prefix}.transaction") or self.order == "partition"
        return 1 if is_alone else self.partitions

    def _check_tables(self) -> None:
        if self.feed is not None and not self.tables:
            raise ValueError("tables is empty; name the tables of the feed with their columns")
        if self.feed is None and self.tables:
            raise ValueError("tables belongs to a feed; what Debezium's tables look like is told by them")
        for table, columns in self.tables.items():
            if _UNFIT.search(table):
                raise ValueError(f"tables.{table}: a topic's name has letters, digits, . _ and - only")
            if not columns:
                raise ValueError(f"tables.{table} has no columns")
            for column, word in columns.items():
                if word not in COLUMN_KINDS:
                    raise ValueError(f"tables.{table}.{column} is {word!r}; one of {', '.join(COLUMN_KINDS)} is wanted")

    def _check_security(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls == "off" and (self.tls_ca or self.tls_certificate):
            raise ValueError('tls is "off" and TLS files are named; write "verify-identity"')
        if (self.sasl is None) != (self.user is None) or (self.sasl is None) != (self.password is None):
            raise ValueError("sasl, user and password go together")
        if self.sasl == "plain" and self.tls == "off":
            raise ValueError('sasl "plain" would send the password in the clear; set tls, or use "scram-sha-512"')


def inner_database(config: KafkaConfig) -> tuple[Plugin[Any], Any] | None:
    """The plugin of the captured database and its configuration; None without one. Raises ValueError."""
    if config.database is None:
        return None
    options = dict(config.database)
    kind = options.pop("plugin", None)
    if not isinstance(kind, str):
        raise ValueError('database.plugin is wanted: the kind of the captured database, as plugin = "postgres"')
    if kind == "kafka":
        raise ValueError("database.plugin is the captured database's own kind, not kafka")
    try:
        plugin = load_plugin(kind)
    except PluginError as error:
        raise ValueError(f"database.plugin: {error}") from error
    try:
        return plugin, msgspec.convert(options, plugin.config)
    except msgspec.ValidationError as error:
        raise ValueError(f"database: {error}") from error


def roles(config: KafkaConfig) -> Role:
    """What this configuration can do. Writing to a database whose log comes by topics needs topics that say, to the
    transaction, where our own deliveries stand in that log."""
    if config.feed is not None:
        return Role.TARGET
    if config.database is not None and config.order != "row":
        return Role.SOURCE | Role.TARGET
    return Role.SOURCE


def dialect(config: KafkaConfig) -> str:
    """The SQL of expressions in the mapping is the captured database's."""
    inner = inner_database(config)
    return "postgres" if inner is None else inner[0].dialect


def address(site: Site, config: KafkaConfig) -> str:
    """Cluster and topics; with a database it is that which counts, for it has the one marker."""
    inner = inner_database(config)
    if inner is not None and inner[0].address is not None:
        plugin, options = inner
        return f"{plugin.kind}: {inner[0].address(site, options)}"
    servers = ",".join(sorted(server.lower() for server in config.servers))
    return f"{servers}/{config.prefix if config.prefix is not None else config.feed}"


def client_parameters(site: Site, config: KafkaConfig) -> dict[str, Any]:
    """Where the brokers are and who we are, as keyword arguments that all of kafka-python's clients share.

    Raises `ConfigError` when the password or a TLS file cannot be read.
    """
    milliseconds = config.request_seconds_max * 1000
    found: dict[str, Any] = {
        "bootstrap_servers": list(config.servers),
        "client_id": f"concord-{site.name}",
        "request_timeout_ms": milliseconds,
        "bootstrap_timeout_ms": config.connect_seconds_max * 1000,
        "connections_max_idle_ms": max(540_000, 2 * milliseconds),
        "security_protocol": {
            (False, False): "PLAINTEXT",
            (False, True): "SASL_PLAINTEXT",
            (True, False): "SSL",
            (True, True): "SASL_SSL",
        }[config.tls != "off", config.sasl is not None],
    }
    if config.tls != "off":
        found["ssl_context"] = _tls(site, config)
    if config.sasl is not None and config.password is not None:
        found["sasl_mechanism"] = config.sasl.upper()
        found["sasl_plain_username"] = config.user
        found["sasl_plain_password"] = config.password.reveal(site.directory)
    return found


def _tls(site: Site, config: KafkaConfig) -> ssl.SSLContext:
    try:
        ca = None if config.tls_ca is None else str(site.directory / config.tls_ca)
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = config.tls == "verify-identity"
        if config.tls_certificate is not None and config.tls_key is not None:
            context.load_cert_chain(site.directory / config.tls_certificate, site.directory / config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"system {site.name}: a TLS file cannot be read: {type(error).__name__}",
            hint=f"Check tls_ca, tls_certificate and tls_key in [systems.{site.name}].",
        ) from error
    return context


def terms(config: KafkaConfig, table: str, shape: Shape | None) -> Promises:
    """What the settings make of the plugin's promises (README.md, "What each set-up promises")."""
    found: dict[Promise, Word] = {}
    inner = inner_database(config)
    if inner is not None:
        plugin, options = inner
        theirs = plugin.promises_for(options, table, shape)
        found |= {promise: theirs[promise] for promise in (Promise.WHOLE_ROWS, Promise.EVERY_WRITER)}
    if config.order != "transaction":
        found[Promise.WHOLE_TRANSACTIONS] = not_kept("without the topic of transactions nothing tells where they end")
    if config.order == "row":
        found[Promise.ORDER] = not_kept("each row's own changes come in order, and nothing else does")
        found[Promise.OWN_WRITES] = not_kept("nothing says where our deliveries stand among the changes")
        found[Promise.SEEN] = not_kept("as own writes")
        found[Promise.KEY_CHANGES] = not_kept("the halves of such a change may stand in two partitions")
    if config.form == "flat":
        found[Promise.TRUNCATION] = not_kept("the transformation drops it")
    return found
