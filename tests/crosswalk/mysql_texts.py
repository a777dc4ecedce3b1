"""Random MySQL expressions by the kind of their value, in parentheses throughout."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.crosswalk.sql_texts import Texts, either, made, quoted

WORDS = ["", " ", "a", "A", "ab", "aB ", "a b", "Ab%", "_", "12", "-3", "1.50", "x,y,,z", "a,B,a", "é", "E", "straße",
         "日本", "0", "  pad ", "Customer", "customer", "ss", "Müller@x.de"]  # fmt: skip
INTEGERS = [0, 1, -1, 2, 3, 7, -8, 10, 100, 12345]
DECIMALS = ["0.5", "-2.50", "3.14159", "100.00", "0.001", "12345.6789", "-7.5", "2.675", "0.0", "1.10"]
DAYS = ["'2024-02-29'", "'1999-12-31'", "'2024-03-01 01:30:00'", "'2024-02-29 00:00:00.5'", "'0000-00-00'"]


def mysql_expressions(depth: int) -> dict[str, Texts]:
    """Kind → expressions over a b (general_ci), u (unicode_ci), z (bin), g (latin1), k (enum), n (int), m (tinyint), w
    (bigint unsigned), d e (decimals), f (bit), day, ts, ts6, at."""
    column = st.sampled_from(["a", "b", "a", "b", "u", "z", "g", "k"])
    text = either(column, st.sampled_from(WORDS).map(quoted))
    integer = either(st.sampled_from(["n", "m", "w", "n"]), st.sampled_from(INTEGERS).map(lambda n: f"({n})"))
    decimal = either(st.sampled_from(["d", "e"]), st.sampled_from(DECIMALS).map(lambda v: f"({v})"))
    boolean = st.sampled_from(["true", "false", "m", "n", "d", "f"])
    moment = st.sampled_from(["day", "ts", "ts6", "at"])
    for _ in range(depth):
        small = st.sampled_from([-3, -2, -1, 0, 1, 2, 3, 5]).map(lambda n: f"({n})")
        t, i, d, c, m = text, integer, decimal, boolean, moment
        number = either(i, d)
        text = either(
            t,
            made("concat({x}, {y})", x=t, y=either(t, i, d, c.filter(lambda x: x != "f"), m)),
            made("concat_ws({x}, {y}, null, {z})", x=t, y=either(t, number), z=t),
            made("{f}({x})", f=st.sampled_from(["lower", "upper", "trim", "ltrim", "rtrim", "lcase", "ucase"]), x=t),
            made("trim({p} {y} from {x})", p=st.sampled_from(["leading", "trailing", "both"]), x=t, y=t),
            made("substring({x}, {p})", x=t, p=small),
            made("substring({x}, {p}, {q})", x=t, p=small, q=small),
            made("{f}({x}, {p})", f=st.sampled_from(["left", "right"]), x=t, p=small),
            made("replace({x}, {y}, {z})", x=t, y=t, z=t),
            made("substring_index({x}, {y}, {p})", x=t, y=either(t, st.just("','")), p=small),
            made("{f}({x}, {p}, {y})", f=st.sampled_from(["lpad", "rpad"]), x=t, p=small, y=t),
            made("{f}({x}, {y})", f=st.sampled_from(["coalesce", "ifnull", "nullif"]), x=t, y=t),
            made("coalesce({x}, {y})", x=either(number, m), y=t),
            made("if({c}, {x}, {y})", c=c, x=t, y=either(t, number)),
            made("case when {c} then {x} when {e} then {y} end", c=c, e=c, x=t, y=t),
            made("case {v} when {w} then {x} else {y} end", v=t, w=t, x=t, y=t),
            made("cast({x} as char)", x=either(number, m, c.filter(lambda x: x != "f"))),
            made("cast({x} as char(3))", x=either(t, i)),
            made("date_format({x}, '%d.%m.%Y %H:%i:%s')", x=m),
        )
        integer = either(
            i,
            made("{x} {o} {y}", x=i, o=st.sampled_from(["+", "-", "*", "%", "div", "mod"]), y=i),
            made("{x} div {y}", x=number, y=number),
            made("-{x}", x=i),
            made("{f}({x})", f=st.sampled_from(["abs", "floor", "ceil", "round"]), x=number),
            made("{f}({x}, {p})", f=st.sampled_from(["round", "truncate"]), x=i, p=small),
            made("{f}({x})", f=st.sampled_from(["char_length", "length"]), x=t),
            made("{f}({x}, {y})", f=st.sampled_from(["instr", "locate"]), x=t, y=t),
            made("locate({x}, {y}, {p})", x=t, y=t, p=small),
            made("cast({x} as {k})", x=either(number, t), k=st.sampled_from(["signed", "unsigned"])),
            made(
                "{f}({x})",
                f=st.sampled_from(
                    ["year", "quarter", "month", "day", "hour", "minute", "second", "dayofweek", "dayofyear"]
                ),
                x=m,
            ),
            made("extract({u} from {x})", u=st.sampled_from(["year", "month", "day", "hour"]), x=m),
            made("datediff({x}, {y})", x=m, y=m),
            made("{f}({x}, {y})", f=st.sampled_from(["coalesce", "nullif", "greatest", "least"]), x=i, y=either(i, c)),
            made("if({c}, {x}, {y})", c=c, x=i, y=i),
        )
        decimal = either(
            d,
            made("{x} {o} {y}", x=number, o=st.sampled_from(["+", "-", "*", "/", "%", "/"]), y=d),
            made("{x} / {y}", x=i, y=i),
            made("-{x}", x=d),
            made("abs({x})", x=d),
            made("{f}({x}, {p})", f=st.sampled_from(["round", "truncate"]), x=d, p=small),
            made("cast({x} as decimal({p}))", x=either(number, t), p=st.sampled_from(["10,2", "26,6", "5", "20,9"])),
            made(
                "{f}({x}, {y})", f=st.sampled_from(["coalesce", "ifnull", "nullif", "greatest", "least"]), x=d, y=number
            ),
            made("if({c}, {x}, {y})", c=c, x=d, y=number),
            made("case {v} when {w} then {x} end", v=number, w=number, x=d),
        )
        compared = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "<=>"])
        boolean = either(
            c,
            made("{x} {o} {y}", x=number, o=compared, y=number),
            made("{x} {o} {y}", x=t, o=st.sampled_from(["=", "<>", "<=>", "="]), y=either(t, column)),
            made("{x} {o} {y}", x=column, o=st.sampled_from(["=", "<>"]), y=st.sampled_from(WORDS).map(quoted)),
            made("{x} {o} {y}", x=m, o=compared, y=either(m, st.sampled_from(DAYS))),
            made("{x} = {y}", x=i, y=st.sampled_from(["'0'", "'1'", "'-8'"])),
            made("{x} {o} {y}", x=c, o=st.sampled_from(["and", "or", "xor", "="]), y=either(c, number)),
            made("not {x}", x=either(c, number)),
            made(
                "{x} is {o}", x=either(c, number), o=st.sampled_from(["true", "not true", "false", "not false", "null"])
            ),
            made("{x} is {o}", x=either(t, i, m), o=st.sampled_from(["null", "not null"])),
            made(
                "{x} {o} ({y}, {z})",
                x=number,
                o=st.sampled_from(["in", "not in"]),
                y=number,
                z=either(i, st.just("null")),
            ),
            made("{x} {o} ({y}, {z})", x=t, o=st.sampled_from(["in", "not in"]), y=t, z=either(t, st.just("null"))),
            made("{x} {o} {y} and {z}", x=number, o=st.sampled_from(["between", "not between"]), y=number, z=number),
            made("{x} between {y} and {z}", x=m, y=m, z=st.sampled_from(DAYS)),
            made(
                "{x} {o} {y}",
                x=t,
                o=st.sampled_from(["like", "not like"]),
                y=either(t, st.sampled_from(["'a%'", "'_b%'"])),
            ),
            made("{x} like {y} escape '!'", x=column, y=t),
            made(
                "{x} collate {o} = {y}",
                x=st.sampled_from("abuz"),
                o=st.sampled_from(["utf8mb4_bin", "utf8mb4_unicode_ci"]),
                y=t,
            ),
        )
        moment = either(
            m,
            made("date({x})", x=m),
            made("cast({x} as date)", x=m),
            made("cast({x} as datetime(6))", x=m),
            made("{f}({x}, {y})", f=st.sampled_from(["coalesce", "greatest", "least", "nullif"]), x=m, y=m),
            made("if({c}, {x}, {y})", c=c, x=m, y=m),
        )
    return {"text": text, "integer": integer, "decimal": decimal, "boolean": boolean, "moment": moment}
