"""Goal: a problem is reported at the line where its key stands.

Method: documents generated in TOML's many spellings; the scanner must find exactly the paths that tomllib finds.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from crosswalk.lines import Path, line_of, path_text, scan

KEYS = st.sampled_from(["a", "b-1", "c", '"x y"', "'q.r'", '"\\u00e9"', '"#"', "_"])
SCALARS = st.one_of(
    st.integers(-5, 5).map(str),
    st.text(max_size=5).map(lambda text: json.dumps(text).replace("\x7f", "")),
    st.sampled_from(
        [
            "true",
            "1.5",
            "1979-05-27",
            "1979-05-27T07:32:00Z",
            "'lit # [x]'",
            '"""a\n[b]\nc = 1"""',
            "'''\n'x' = 2'''",
            '"""q"\\""""',
            "inf",
            '"a = { b = 1 } #"',
            '""""quoted""""',
        ]
    ),
)


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    gap = st.sampled_from(["", " ", "\n", " # comment ] }\n"])
    array = st.tuples(st.lists(inner, max_size=3), gap).map(
        lambda parts: f"[{parts[1]}" + f",{parts[1]}".join(parts[0]) + f"{parts[1]}]"
    )
    table = st.dictionaries(KEYS, inner, max_size=3).map(
        lambda d: "{ " + ", ".join(f"{k} = {v}" for k, v in d.items()) + " }"
    )
    return array | table


VALUES = st.recursive(SCALARS, _arrays, max_leaves=6)
PAIRS = st.dictionaries(KEYS, VALUES, max_size=3).map(lambda d: "".join(f"{k} = {v}  # note\n" for k, v in d.items()))
HEADERS = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
SECTIONS = st.tuples(st.sampled_from(["[{}]\n", "[[{}]]\n", "\n  [[ {} ]] # x\n"]), HEADERS, PAIRS).map(
    lambda parts: parts[0].format(parts[1]) + parts[2]
)
DOCUMENTS = st.tuples(PAIRS, st.lists(SECTIONS, max_size=5)).map(lambda parts: parts[0] + "".join(parts[1]))


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    found: set[Path] = {path} if path else set()
    pairs: list[tuple[Any, Any]] = []
    if type(value) is dict:
        pairs = list(cast(dict[str, Any], value).items())
    elif type(value) is list:
        pairs = list(enumerate(cast(list[Any], value)))
    for key, part in pairs:
        found |= paths_of(part, (*path, key))
    return found


@settings(max_examples=600, deadline=None)
@given(text=DOCUMENTS)
def test_the_scanner_finds_the_paths_that_tomllib_finds(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = scan(text)
    # A header [a.b] makes `a` too, which has no line of its own; `line_of` then answers with what holds it.
    missing = paths_of(document) - set(lines)
    assert set(lines) <= paths_of(document)
    assert all(any(path == found[: len(path)] for found in lines) for path in missing)


def test_lines_are_counted_from_one_and_fall_back_to_what_holds_the_key() -> None:
    lines = scan('x = 1\n\n[[t]]\ny = [\n  1,\n  { z = 2 },\n]\n[t.f]\n"a b" = """\n\n"""\nlast = 0\n')
    assert lines["x",] == 1
    assert lines["t", 0] == 3
    assert lines["t", 0, "y", 1, "z"] == 6
    assert lines["t", 0, "f", "a b"] == 9
    assert lines["t", 0, "f", "last"] == 12
    assert line_of(lines, ("t", 0, "f", "nowhere", 3)) == 8
    assert path_text(("t", 0, "f", "a b")) == 't[0].f."a b"'
