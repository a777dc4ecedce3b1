"""Goal: what a system sets by itself on the rows we make there (a number that is its key, a column that it computes)
comes back as its change, and everybody agrees on it.

Method: the command line over two SQLite systems; the ERP numbers new customers by the mapping's template and computes a
column from what it is given.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

CONFIG = """
dictionary = "dictionary.toml"
[hub]
path = "hub.sqlite"
[systems.crm]
plugin = "sqlite"
mapping = "crm.toml"
path = "crm.db"
[systems.erp]
plugin = "sqlite"
mapping = "erp.toml"
path = "erp.db"
"""
DICTIONARY = """
[entities.customer]
description = "A customer."
[entities.customer.fields]
name = { type = "text", description = "Its name." }
number = { type = "text", owner = "erp", description = "Its number in the books." }
sort_name = { type = "text", owner = "erp", description = "How the books sort it." }
"""
CRM = """
[[table]]
name = "customers"
entity = "customer"
key = ["id"]
[table.fields]
name = "name"
number = "number"
sort_name = "sort_name"
"""
ERP = """
[[table]]
name = "debtors"
entity = "customer"
key = ["no"]
allocate = { template = "D{rid:04d}" }
[table.fields]
number = "no"
name = "name1"
sort_name = { column = "matchcode", read_only = true }
"""


def test_the_number_and_the_computed_name_of_a_new_row_reach_the_others(tmp_path: Path) -> None:
    for name, text in (("concord", CONFIG), ("dictionary", DICTIONARY), ("crm", CRM), ("erp", ERP)):
        (tmp_path / f"{name}.toml").write_text(text)
    with sqlite3.connect(tmp_path / "crm.db") as crm, sqlite3.connect(tmp_path / "erp.db") as erp:
        crm.execute("create table customers (id integer primary key, name text, number text, sort_name text)")
        erp.execute(
            "create table debtors (no text primary key not null, name1 text,"
            " matchcode text generated always as (upper(name1)) stored)"
        )
    concord(tmp_path, "setup")
    with sqlite3.connect(tmp_path / "crm.db") as crm:
        crm.execute("insert into customers (name) values ('acme')")
    concord(tmp_path, "run", "--once", "--log-level", "error")
    row = crm.execute("select name, number, sort_name from customers").fetchall()
    assert row == [("acme", erp.execute("select no from debtors").fetchone()[0], "ACME")]
    crm.execute("update customers set name = 'bravo'")
    crm.commit()
    concord(tmp_path, "run", "--once", "--log-level", "error")
    assert erp.execute("select name1, matchcode from debtors").fetchall() == [("bravo", "BRAVO")]
    assert crm.execute("select sort_name from customers").fetchall() == [("BRAVO",)]
    concord(tmp_path, "compare")
    crm.close()
    erp.close()


def concord(directory: Path, *words: str) -> None:
    command = [sys.executable, "-m", "engine.cli", *words, "-c", str(directory / "concord.toml")]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
