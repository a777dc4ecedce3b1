"""Goal: tests and demo get a real PostgreSQL with logical decoding, with nothing installed by hand.

Method: start it, ask it.
"""

from __future__ import annotations

import psycopg


def test_embedded_server_decodes_logically(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        assert connection.execute("show wal_level").fetchone() == ("logical",)
        made = connection.execute("select pg_create_logical_replication_slot('probe', 'pgoutput')").fetchone()
        assert made is not None
