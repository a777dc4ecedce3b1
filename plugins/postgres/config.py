"""The `[systems.NAME]` table of a PostgreSQL system, and how the two drivers connect by it.

Nothing here connects. Capture, catalogue and snapshots use psycopg, delivery uses asyncpg; both get the same session
settings, so a value has one spelling whichever way it came.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from engine.errors import ConfigError
from engine.plugin import Site
from engine.secret import Secret

SESSION_SETTINGS: Final = {
    "datestyle": "ISO,MDY",
    "timezone": "UTC",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    # Since PostgreSQL 12 any value above 0 gives the shortest text that reads back as the same float.
    "extra_float_digits": "1",
    # How money is spelt follows this setting, and a system's default is its operating system's.
    "lc_monetary": "C",
    # A policy that hides rows from our user would look like deleted rows; with row_security off it is an error.
    "row_security": "off",
}
"""What makes the server spell every value as `engine.model.table.Form.TEXT` says."""

# libpq's own parameters which asyncpg would send to the server as settings, where they are errors.
_LIBPQ_ONLY: Final = frozenset(
    (
        *("hostaddr", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        *("connect_timeout", "requirepeer", "gssencmode", "gssdelegation", "channel_binding", "require_auth"),
        *("load_balance_hosts", "replication", "fallback_application_name", "requiressl", "sslcompression", "sslsni"),
        *("sslcertmode", "sslcrldir", "sslkeylogfile", "scram_client_key", "scram_server_key", "client_encoding"),
        *("min_protocol_version", "max_protocol_version"),
    )
)
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "servicefile")
_NAME_LENGTH_MAX: Final = 63
# libpq: invalid connection option "…", invalid URI query parameter: "…". Anything that is no name may be a value.
_UNKNOWN_OPTION: Final = re.compile(r'invalid (?:connection option|URI query parameter:) "([a-z_]{1,40})"')


SETTINGS: Final = {
    "dsn": "libpq connection string or URL, without a password",
    "password": "the user's password",
    "slot": "replication slot; else concord_NAME of the system",
    "publication": "publication; else concord_NAME of the system",
    "connect_seconds_max": "how long one attempt to connect may take",
    "statement_seconds_max": "how long one statement of a catalogue or snapshot read may take",
    "lock_seconds_max": "how long such a statement waits for a lock",
}
"""What each setting means, for `concord plugins show`."""


class PostgresConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A PostgreSQL system.

    `dsn` is a libpq connection string or URL without a password. `slot` and `publication` default to
    `concord_<system name>`. Seconds: `connect_seconds_max` bounds one attempt to connect, `statement_seconds_max` one
    statement of a catalogue or snapshot read, `lock_seconds_max` its wait for a lock.
    """

    dsn: str
    password: Secret | None = None
    slot: str | None = None
    publication: str | None = None
    connect_seconds_max: int = 15
    # A page of a snapshot is one index range. Minutes mean that something is wrong, and it holds up vacuum meanwhile.
    statement_seconds_max: int = 300
    lock_seconds_max: int = 30

    def __post_init__(self) -> None:
        parameters = _parse(self.dsn)
        if "password" in parameters or "sslpassword" in parameters:
            raise ValueError(
                'dsn holds a password; take it out and write password = { env = "NAME" } or { file = "path" }'
            )
        if self.slot is not None and not re.fullmatch(r"[a-z0-9_]{1,63}", self.slot):
            raise ValueError(f"slot {self.slot!r} is no slot name: lower-case letters, digits and _, at most 63")
        if self.publication is not None and not 0 < len(self.publication.encode()) <= _NAME_LENGTH_MAX:
            raise ValueError(f"publication {self.publication!r} is no name of 1 to 63 bytes")
        for name in ("connect_seconds_max", "statement_seconds_max", "lock_seconds_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


def slot_name(site: Site, config: PostgresConfig) -> str:
    """The logical replication slot of this system."""
    return config.slot or _default_name(site)


def publication_name(site: Site, config: PostgresConfig) -> str:
    """The publication of this system."""
    return config.publication or _default_name(site)


def address(site: Site, config: PostgresConfig) -> str:
    """Server and database, as the dsn spells them: a name and an address of one server are not known to be the same."""
    parameters = _resolved(site, config)
    host = parameters.get("host") or parameters.get("hostaddr") or parameters.get("service") or "the local socket"
    database = parameters.get("dbname") or parameters.get("user", "")
    return f"{host.lower()}:{parameters.get('port', '5432')}/{database}"


def psycopg_parameters(site: Site, config: PostgresConfig, *, use: str) -> dict[str, Any]:
    """Keyword arguments of `psycopg.AsyncConnection.connect`; `use` goes into application_name ("feed", "page").

    Raises `ConfigError` when the password cannot be read.
    """
    parameters = _resolved(site, config)
    settings = {
        **SESSION_SETTINGS,
        "statement_timeout": f"{config.statement_seconds_max}s",
        "lock_timeout": f"{config.lock_seconds_max}s",
    }
    options = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
    parameters["options"] = f"{parameters['options']} {options}" if "options" in parameters else options
    parameters.setdefault("connect_timeout", str(config.connect_seconds_max))
    parameters.setdefault("application_name", f"concord {site.name} {use}")
    parameters["client_encoding"] = "UTF8"
    if config.password is not None:
        parameters["password"] = config.password.reveal(site.directory)
    return parameters


def asyncpg_parameters(site: Site, config: PostgresConfig, *, use: str) -> dict[str, Any]:
    """Keyword arguments of `asyncpg.connect` for the same server, user and session settings.

    No statement or lock time limit is among the settings: delivery chooses its own. Raises `ConfigError` when the
    password cannot be read.
    """
    parameters = _resolved(site, config)
    if "hostaddr" in parameters:
        parameters.setdefault("host", parameters["hostaddr"])
    kept = {name: value for name, value in parameters.items() if name not in _LIBPQ_ONLY}
    kept.setdefault("application_name", f"concord {site.name} {use}")
    return {
        # In the query part, not the authority, of the URL: asyncpg undoes %-escapes there for every parameter.
        "dsn": f"postgresql://?{urlencode(kept, quote_via=quote)}",
        "password": None if config.password is None else config.password.reveal(site.directory),
        "timeout": float(parameters.get("connect_timeout", config.connect_seconds_max)),
        "server_settings": dict(SESSION_SETTINGS),
    }


def _default_name(site: Site) -> str:
    name = re.sub(r"[^a-z0-9_]", "_", f"concord_{site.name.lower()}")
    return name[:_NAME_LENGTH_MAX]


def _parse(dsn: str) -> dict[str, str]:
    """Raises ValueError without repeating the text, which may hold a password."""
    # Here and not on top: `concord --help` and a config check of other systems need no driver.
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo

    try:
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except ProgrammingError as error:
        # Behind a password with a blank in it, what looks like an option may be the rest of it.
        unknown = None if "pass" in dsn.lower() else _UNKNOWN_OPTION.search(str(error))
        if unknown is not None:
            known = {option.keyword.decode() for option in Conninfo.get_defaults()}
            near = difflib.get_close_matches(unknown[1], known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"dsn has an option {unknown[1]!r}, which PostgreSQL does not know{meant}") from None
        raise ValueError(
            "dsn is no PostgreSQL connection string; write it like host=db.example port=5432 user=concord dbname=crm"
        ) from None


def _resolved(site: Site, config: PostgresConfig) -> dict[str, Any]:
    """The parameters of the dsn; relative file names start from the folder of concord.toml."""
    try:
        parameters: dict[str, Any] = dict(_parse(config.dsn))
    except ValueError as error:
        raise ConfigError(f"system {site.name}: {error}") from None
    for name in _FILES:
        value = parameters.get(name)
        # "system" means the operating system's certificates, and is no file.
        if value and value != "system":
            parameters[name] = str(site.directory / value)
    return parameters


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
