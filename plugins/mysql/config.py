"""`[systems.NAME]` with plugin = "mysql". Nothing here connects."""

from __future__ import annotations

import ssl
from typing import Any, Final, Literal

import msgspec

from engine.errors import ConfigError
from engine.plugin import Site
from engine.secret import Secret

Tls = Literal["off", "prefer", "require", "verify-ca", "verify-identity"]

# A server id is 32 bits and 0 asks for the default (https://mariadb.com/kb/en/gtid/#server_id).
SERVER_ID_MAX: Final = 2**32 - 1


SETTINGS: Final = {
    "database": "the database that takes part",
    "user": "Concord's user there",
    "host": "the server",
    "port": "its port",
    "unix_socket": "its socket, instead of host and port",
    "password": "the user's password",
    "server_id": "by which number the feed registers as a replica; else one made from the system's name",
    "tls": "how the connection is encrypted, and what of the server's certificate is looked at",
    "tls_ca": "file of who may have signed the server's certificate",
    "tls_certificate": "file of our own certificate",
    "tls_key": "file of its key",
    "connect_seconds_max": "how long one attempt to connect may take",
    "statement_seconds_max": "how long one statement may take",
    "lock_seconds_max": "how long it waits for a lock",
}
"""What each setting means, for `concord plugins show`."""


class MysqlConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A database of a MariaDB or MySQL server.

    `unix_socket` is used instead of `host` and `port` where it is given. `server_id`: by which number the feed
    registers as a replica; None: one made from the system's name. `tls`: "prefer" encrypts where the server can,
    "require" always, without looking at the server's certificate; "verify-ca" looks at who signed it, "verify-identity"
    at its name too. Files are relative to the configuration's folder. `connect_seconds_max` bounds one attempt to
    connect, `statement_seconds_max` one statement, `lock_seconds_max` its wait for a lock.
    """

    database: str
    user: str
    host: str = "localhost"
    port: int = 3306
    unix_socket: str | None = None
    password: Secret | None = None
    server_id: int | None = None
    tls: Tls = "prefer"
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    connect_seconds_max: int = 15
    statement_seconds_max: int = 300
    lock_seconds_max: int = 30

    def __post_init__(self) -> None:
        if not self.database:
            raise ValueError("database is empty; name the database that takes part")
        if not 0 < self.port < 65536:
            raise ValueError(f"port is {self.port}; it must be 1 to 65535")
        if self.server_id is not None and not 0 < self.server_id <= SERVER_ID_MAX:
            raise ValueError(f"server_id is {self.server_id}; it must be 1 to {SERVER_ID_MAX}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls in ("off", "prefer") and (self.tls_ca or self.tls_certificate):
            raise ValueError(f'tls is "{self.tls}" and TLS files are named; write "require", "verify-ca" or more')
        for name in ("connect_seconds_max", "statement_seconds_max", "lock_seconds_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


def address(site: Site, config: MysqlConfig) -> str:
    """Server and database, as the configuration spells them."""
    return f"{config.unix_socket or f'{config.host.lower()}:{config.port}'}/{config.database}"


def connection_parameters(site: Site, config: MysqlConfig) -> dict[str, Any]:
    """Who we are and how the connection is encrypted, as keyword arguments of `pymysql.Connection`.

    Raises `ConfigError` when the password or a TLS file cannot be read.
    """
    password = "" if config.password is None else config.password.reveal(site.directory)
    # The driver would spell a password in Latin-1; what the server hashed is what a client in UTF-8 sent.
    return {"user": config.user, "password": password.encode(), **_tls(site, config)}


def _tls(site: Site, config: MysqlConfig) -> dict[str, Any]:
    if config.tls == "off":
        return {"ssl_disabled": True}
    if config.tls == "prefer":
        return {}
    try:
        ca = None if config.tls_ca is None else str(site.directory / config.tls_ca)
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = config.tls == "verify-identity"
        context.verify_mode = ssl.CERT_NONE if config.tls == "require" else ssl.CERT_REQUIRED
        if config.tls_certificate is not None and config.tls_key is not None:
            context.load_cert_chain(site.directory / config.tls_certificate, site.directory / config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"system {site.name}: a TLS file cannot be read: {type(error).__name__}",
            hint=f"Check tls_ca, tls_certificate and tls_key in [systems.{site.name}].",
        ) from error
    return {"ssl": context}
