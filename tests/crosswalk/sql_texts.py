"""Random SQL expressions by the kind of their value, in parentheses throughout, so that no two parsers can differ."""

from __future__ import annotations

from hypothesis import strategies as st

Texts = st.SearchStrategy[str]

WORDS = ["", " ", "a", "B", "ab", "a b", "Ab%", "_", "12", "-3", "1.50", "x,y", "true", "é", "日本", "0", "  pad "]
INTEGERS = [0, 1, -1, 2, 3, 7, -8, 10, 100, 12345]
DECIMALS = ["0", "1", "-1", "0.5", "-2.50", "3.14159", "100.00", "0.001", "12345.6789", "-7.5", "2.675"]


FRACTIONS = [text for text in DECIMALS if "." in text]
LITERALS = [*(str(n) for n in INTEGERS if n >= 0), "0.5", "2.25", "1e3", "null", "true", "9223372036854775807"]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def either(*parts: Texts) -> Texts:
    return st.one_of(*parts)


def made(form: str, **parts: Texts) -> Texts:
    return st.fixed_dictionaries(parts).map(lambda values: "(" + form.format(**values) + ")")


def postgres_expressions(depth: int) -> dict[str, Texts]:
    """Kind → expressions over columns a b (text), n m (bigint), d e (numeric), t u (boolean), day (date), ts, at."""
    text = either(st.sampled_from(["a", "b"]), st.sampled_from(WORDS).map(quoted))
    integer = either(st.sampled_from(["n", "m"]), st.sampled_from(INTEGERS).map(lambda n: f"({n})"))
    decimal = either(
        st.sampled_from(["d", "e"]), st.sampled_from([v for v in DECIMALS if "." in v]).map(lambda v: f"({v})")
    )
    boolean = st.sampled_from(["t", "u", "true", "false"])
    moment = st.sampled_from(["ts", "at", "day"])
    for _ in range(depth):
        small = st.sampled_from([-2, -1, 0, 1, 2, 3, 5]).map(lambda n: f"({n})")
        column = st.sampled_from(["a", "b"])
        inner_text, inner_integer, inner_decimal, inner_boolean = text, integer, decimal, boolean
        text = either(
            text,
            made("{x} || {y}", x=inner_text, y=either(inner_text, column)),
            made("{x} || {y}", x=column, y=either(inner_integer, inner_decimal, inner_boolean, moment)),
            made("concat({x}, {y}, null, {z})", x=inner_text, y=either(inner_integer, inner_boolean), z=inner_text),
            made("concat_ws({x}, {y}, {z})", x=inner_text, y=inner_text, z=inner_text),
            made("{f}({x})", f=st.sampled_from(["lower", "upper", "trim", "ltrim", "rtrim", "btrim"]), x=inner_text),
            made("{f}({x}, {y})", f=st.sampled_from(["ltrim", "rtrim", "btrim"]), x=inner_text, y=inner_text),
            made("substring({x}, {p})", x=inner_text, p=small),
            made("substring({x} from {p} for {q})", x=inner_text, p=small, q=small),
            made("{f}({x}, {p})", f=st.sampled_from(["left", "right"]), x=inner_text, p=small),
            made("replace({x}, {y}, {z})", x=inner_text, y=inner_text, z=inner_text),
            made("split_part({x}, {y}, {p})", x=inner_text, y=inner_text, p=small),
            made("{f}({x}, {p}, {y})", f=st.sampled_from(["lpad", "rpad"]), x=inner_text, p=small, y=inner_text),
            made("coalesce({x}, {y})", x=column, y=inner_text),
            made("nullif({x}, {y})", x=inner_text, y=inner_text),
            made("case when {c} then {x} else {y} end", c=inner_boolean, x=inner_text, y=inner_text),
            made("case {v} when {w} then {x} end", v=inner_integer, w=inner_integer, x=inner_text),
            made("cast({x} as text)", x=either(inner_integer, inner_decimal, inner_boolean, moment)),
            made("({x})::varchar(3)", x=inner_text),
        )
        integer = either(
            integer,
            made("{x} {o} {y}", x=inner_integer, o=st.sampled_from("+-*/%"), y=inner_integer),
            made("-{x}", x=inner_integer),
            made("abs({x})", x=inner_integer),
            made("length({x})", x=inner_text),
            made("position({y} in {x})", x=inner_text, y=inner_text),
            made("cast({x} as integer)", x=either(inner_decimal, inner_text, inner_boolean)),
            made("coalesce({x}, {y})", x=inner_integer, y=inner_integer),
            made("greatest({x}, {y})", x=inner_integer, y=inner_integer),
            made("case when {c} then {x} end", c=inner_boolean, x=inner_integer),
        )
        decimal = either(
            decimal,
            made("{x} {o} {y}", x=inner_decimal, o=st.sampled_from("+-*/%"), y=either(inner_decimal, inner_integer)),
            made("-{x}", x=inner_decimal),
            made("abs({x})", x=inner_decimal),
            made("round({x}, {p})", x=either(inner_decimal, inner_integer), p=small),
            made("{f}({x})", f=st.sampled_from(["round", "trunc", "floor", "ceil"]), x=inner_decimal),
            made("trunc({x}, {p})", x=inner_decimal, p=small),
            made("cast({x} as numeric(8, 2))", x=either(inner_decimal, inner_integer, inner_text)),
            made("cast({x} as numeric)", x=inner_text),
            made(
                "extract({p} from {x})",
                p=st.sampled_from(
                    ["year", "month", "day", "dow", "isodow", "doy", "week", "isoyear", "quarter", "epoch"]
                ),
                x=moment,
            ),
            made(
                "extract({p} from {x})",
                p=st.sampled_from(["hour", "minute", "second"]),
                x=st.sampled_from(["ts", "at"]),
            ),
            made("least({x}, {y})", x=inner_decimal, y=inner_integer),
            made("nullif({x}, {y})", x=inner_decimal, y=inner_integer),
        )
        comparison = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"])
        boolean = either(
            boolean,
            made("{x} {o} {y}", x=inner_integer, o=comparison, y=either(inner_integer, inner_decimal)),
            made("{x} {o} {y}", x=inner_text, o=st.sampled_from(["=", "<>", "is distinct from"]), y=inner_text),
            made("{x} {o} {y}", x=moment, o=comparison, y=moment),
            made("day {o} '2024-02-29'", o=comparison),
            made("{x} {o} {y}", x=inner_boolean, o=st.sampled_from(["and", "or", "="]), y=inner_boolean),
            made("not {x}", x=inner_boolean),
            made("{x} {o}", x=inner_boolean, o=st.sampled_from(["is true", "is not true", "is false", "is not false"])),
            made("{x} {o}", x=either(inner_text, inner_integer), o=st.sampled_from(["is null", "is not null"])),
            made(
                "{x} {o} ({y}, {z})",
                x=inner_integer,
                o=st.sampled_from(["in", "not in"]),
                y=inner_integer,
                z=st.sampled_from(["null", "m", "3"]),
            ),
            made("{x} in ({y}, {z})", x=inner_text, y=inner_text, z=inner_text),
            made(
                "{x} {o} {y} and {z}",
                x=inner_decimal,
                o=st.sampled_from(["between", "not between"]),
                y=inner_integer,
                z=inner_decimal,
            ),
            made(
                "{x} {o} {y}", x=inner_text, o=st.sampled_from(["like", "not like", "ilike", "not ilike"]), y=inner_text
            ),
            made("{x} like {y} escape '!'", x=inner_text, y=inner_text),
            made("cast({x} as boolean)", x=either(inner_integer, inner_text)),
        )
        moment = either(
            moment,
            made(
                "date_trunc('{u}', {x})",
                u=st.sampled_from(["day", "hour", "minute", "week", "month", "quarter", "year"]),
                x=moment,
            ),
            made("cast({x} as date)", x=st.sampled_from(["ts", "at"])),
            made("day {o} {y}", o=st.sampled_from("+-"), y=small),
            made("at at time zone '{z}'", z=st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"])),
            made("ts at time zone '{z}'", z=st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"])),
        )
    return {"text": text, "integer": integer, "decimal": decimal, "boolean": boolean, "moment": moment}


def sqlite_expressions(depth: int) -> Texts:
    """Expressions over columns t (text), i (integer), r (real), v (numeric), z (no type)."""
    value = either(
        st.sampled_from(["t", "i", "r", "v", "z"]),
        st.sampled_from(WORDS).map(quoted),
        st.sampled_from(
            [str(n) for n in INTEGERS if n >= 0] + ["0.5", "2.25", "1e3", "null", "true", "9223372036854775807"]
        ),
    )
    for _ in range(depth):
        inner = value
        value = either(
            value,
            made("{x} {o} {y}", x=inner, o=st.sampled_from(["+", "-", "*", "/", "%"]), y=inner),
            made("{x} || {y}", x=inner, y=inner),
            made("-{x}", x=inner),
            made(
                "{f}({x})",
                f=st.sampled_from(["lower", "upper", "trim", "ltrim", "rtrim", "length", "abs", "round"]),
                x=inner,
            ),
            made(
                "{f}({x}, {y})",
                f=st.sampled_from(
                    ["trim", "ltrim", "rtrim", "substr", "instr", "ifnull", "nullif", "coalesce", "max", "min", "round"]
                ),
                x=inner,
                y=inner,
            ),
            made("substr({x}, {y}, {z})", x=inner, y=inner, z=inner),
            made("replace({x}, {y}, {z})", x=inner, y=inner, z=inner),
            made("iif({x}, {y}, {z})", x=inner, y=inner, z=inner),
            made("cast({x} as {k})", x=inner, k=st.sampled_from(["integer", "real", "numeric", "text"])),
            made("{x} {o} {y}", x=inner, o=st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "is", "is not"]), y=inner),
            made("{x} {o} {y}", x=inner, o=st.sampled_from(["and", "or"]), y=inner),
            made("not {x}", x=inner),
            made("{x} {o}", x=inner, o=st.sampled_from(["is null", "is not null", "is true", "is not false"])),
            made("{x} {o} ({y}, {z})", x=inner, o=st.sampled_from(["in", "not in"]), y=inner, z=inner),
            made("{x} {o} {y} and {z}", x=inner, o=st.sampled_from(["between", "not between"]), y=inner, z=inner),
            made("{x} {o} {y}", x=inner, o=st.sampled_from(["like", "not like"]), y=inner),
            made("{x} like {y} escape '!'", x=inner, y=inner),
            made("case when {x} then {y} else {z} end", x=inner, y=inner, z=inner),
            made("case {x} when {y} then {z} end", x=inner, y=inner, z=inner),
        )
    return value
