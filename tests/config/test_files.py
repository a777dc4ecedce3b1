"""Goal: whatever a concord.toml holds, reading it gives a configuration or says what is wrong with it: every problem at
once, each with its line and path, and never a secret.

Method: a valid file spoilt at random, in its lines, bytes and values; and directed cases.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.load import load_config
from engine.config.model import Config
from engine.errors import ConfigError

VALID = """\
dictionary = "service"

[hub]
path = "hub.sqlite"
retention_days = 30

[systems.crm]
plugin = "postgres"
mapping = "crm.toml"
mode = "live"
role = "crm"
dsn = "host=localhost dbname=crm"
password = { env = "CRM_PASSWORD" }

[systems.erp]
plugin = "sqlite"
mapping = "erp.toml"
mode = "receive"
path = "erp.db"
"""
LINES = VALID.splitlines()
values = st.sampled_from(
    [
        "1",
        "-1",
        "1e400",
        "true",
        '""',
        '"live"',
        "[]",
        "{}",
        '{ env = "" }',
        "{ file = 1 }",
        "1979-05-27",
        '"\\u0000"',
        "nan",
    ]
)


def load(text: str | bytes) -> Config:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "concord.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
        for mapping in ("crm.toml", "erp.toml"):
            file.with_name(mapping).touch()
        return load_config(file)


def told(text: str | bytes) -> ConfigError | None:
    """The error with which the text is refused; None when it is taken."""
    error: ConfigError | None = None
    try:
        assert load(text).systems
    except ConfigError as refused:
        error = refused
    assert error is None or (error.message and all(error.problems))
    return error


def test_the_file_that_is_spoilt_here_is_valid() -> None:
    config = load(VALID)
    assert [system.name for system in config.systems] == ["crm", "erp"]
    assert (config.hub.name, config.retention_days) == ("hub.sqlite", 30)


@given(
    st.lists(
        st.tuples(st.integers(0, len(LINES) - 1), st.sampled_from(["drop", "double", "value"]), values), max_size=4
    )
)
def test_spoilt_lines(changes: list[tuple[int, str, str]]) -> None:
    lines: list[str] = list(LINES)
    for n, how, value in changes:
        if how == "drop":
            lines[n] = ""
        elif how == "double":
            lines[n] += "\n" + lines[n]
        elif " = " in lines[n]:
            lines[n] = f"{lines[n].split(' = ')[0]} = {value}"
    told("\n".join(lines))


@given(st.integers(0, len(VALID) - 1), st.binary(max_size=3), st.integers(0, 5))
def test_spoilt_bytes(at: int, new: bytes, gone: int) -> None:
    text = VALID.encode()
    told(text[:at] + new + text[at + gone :])


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    told(text)


def test_all_problems_come_at_once_with_line_and_path() -> None:
    error = told(
        VALID.replace('mode = "live"', 'mode = "lively"')
        .replace("retention_days = 30", "retention_days = 'long'")
        .replace('path = "erp.db"', 'pth = "erp.db"')
    )
    assert error is not None
    problems = "\n".join(str(problem) for problem in error.problems)
    for line, path in ((5, "hub.retention_days"), (10, "systems.crm.mode"), (19, "systems.erp.pth")):
        assert f":{line}: {path}" in problems
    assert "path" in problems


def test_files_that_are_not_there_are_told_with_the_rest() -> None:
    error = told(
        VALID.replace('"service"', '"words.toml"')
        .replace('mapping = "crm.toml"', 'mapping = "cmr.toml"')
        .replace('mode = "receive"', 'mode = "recieve"')
    )
    assert error is not None
    problems = "\n".join(error.problems)
    for line, path, file in ((1, "dictionary", "words.toml"), (9, "systems.crm.mapping", "cmr.toml")):
        assert f":{line}: {path}: there is no file " in problems
        assert f"/{file}\n" in problems
    assert ":18: systems.erp.mode: " in problems
    assert len(error.problems) == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('plugin = "sqlite"\npath = "erp.db"', 'plugin = "sqlite"\npath = "../%s/erp.db"'),
        (
            'plugin = "postgres"\ndsn = "host=DB.example dbname=one user=a"',
            'plugin = "postgres"\ndsn = "postgresql://b@db.example:5432/one"',
        ),
        (
            'plugin = "mysql"\nhost = "db"\ndatabase = "one"\nuser = "a"',
            'plugin = "mysql"\nhost = "DB"\ndatabase = "one"\nuser = "b"',
        ),
    ],
)
def test_two_systems_in_one_database_are_refused(tmp_path: Path, first: str, second: str) -> None:
    second = second.replace("%s", tmp_path.name)
    (tmp_path / "map.toml").touch()
    file = tmp_path / "concord.toml"
    text = f'[systems.a]\nmapping = "map.toml"\n{first}\n[systems.b]\nmapping = "map.toml"\n'
    file.write_text(text + second)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "systems.b: it is the database of system a" in caught.value.problems[0]
    other = second.replace("erp.db", "crm.db").replace("one", "two")
    file.write_text(text + other)
    assert len(load_config(file).systems) == 2


def test_a_dictionary_that_is_not_shipped_is_told_with_the_nearest_at_its_line() -> None:
    error = told(VALID.replace('"service"', '"servce"'))
    assert error is not None
    assert ":1: dictionary: no dictionary 'servce' is shipped; did you mean 'service'?" in error.problems[0]


@pytest.mark.parametrize(
    "secret", ['"geheim-4711"', "4711", '{ env = "A", file = "b" }', "{ }", '{ vault = "geheim-4711" }']
)
def test_a_secret_is_named_and_never_written_down(secret: str) -> None:
    error = told(VALID.replace('{ env = "CRM_PASSWORD" }', secret))
    assert error is not None
    said = f"{error.message} {error.hint} {error.problems} {error.context} {error!r}"
    assert "systems.crm.password" in said
    assert '{ env = "NAME" }' in said or "vault" in secret
    assert "4711" not in said


def test_a_password_inside_the_dsn_is_refused_and_not_repeated() -> None:
    error = told(VALID.replace("dbname=crm", "dbname=crm password=geheim-4711"))
    assert error is not None
    assert "geheim-4711" not in f"{error.message} {error.hint} {error.problems} {error.context} {error!r}"


def test_the_rest_of_a_password_with_a_blank_is_not_taken_for_an_option() -> None:
    error = told(VALID.replace("dbname=crm", "dbname=crm password=x geheim=y"))
    assert error is not None
    assert "geheim" not in f"{error.message} {error.hint} {error.problems} {error.context} {error!r}"


@pytest.mark.parametrize(
    ("dsn", "option", "meant"),
    [
        ("host=localhost dbnam=crm", "dbnam", "dbname"),
        ("host=localhost dbname=crm sslmod=geheim-4711", "sslmod", "sslmode"),
        ("postgresql://localhost/crm?sslmod=geheim-4711", "sslmod", "sslmode"),
        ("host=localhost zzzz=geheim-4711", "zzzz", ""),
    ],
)
def test_an_option_of_the_dsn_that_is_none_is_named_with_the_nearest(dsn: str, option: str, meant: str) -> None:
    error = told(VALID.replace("host=localhost dbname=crm", dsn))
    assert error is not None
    said = f"{error.message} {error.hint} {error.problems} {error.context} {error!r}"
    assert f"'{option}'" in said
    assert f"did you mean '{meant}'?" in said or not meant
    assert "4711" not in said


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="there is no") as caught:
        load_config(Path("/nowhere/concord.toml"))
    assert "concord demo" in caught.value.hint


@pytest.mark.parametrize("days", ["-1", "nan", "-0.001"])
def test_history_is_kept_for_no_less_than_no_time(days: str) -> None:
    error = told(VALID.replace("retention_days = 30", f"retention_days = {days}"))
    assert error is not None
    assert ":5: hub.retention_days: " in error.problems[0]
