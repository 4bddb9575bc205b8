"""The chunker against json.loads: any legal layout gives the same records, any cut is a UserError."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.sources.reading import grouping as grouping
from ahp_toolkit.sources.reading.chunks import batches

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('{}[]",:\\ \n}é😀\u0000', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a}]"', max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
RECORDS = st.lists(st.dictionaries(st.sampled_from(["id", "name", "}]"]), VALUES, max_size=3) | VALUES, max_size=9)


def layout(value: Any, space: Callable[[], str], ascii_: bool) -> str:
    """JSON with white space from ``space`` between all tokens."""
    if isinstance(value, dict):
        inner = ",".join(
            f"{space()}{json.dumps(k, ensure_ascii=ascii_)}{space()}:{layout(v, space, ascii_)}"
            for k, v in value.items()
        )
        return f"{space()}{{{inner}{space()}}}{space()}"
    if isinstance(value, list):
        return f"{space()}[{','.join(layout(v, space, ascii_) for v in value)}{space()}]{space()}"
    return space() + json.dumps(value, ensure_ascii=ascii_) + space()


def collected(data: bytes, types: dict[str, type], block: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        Path(f.name).write_bytes(data)
        for batch in batches(Path(f.name), types, block):
            found.setdefault(batch.key, []).extend(batch.typed if batch.typed is not None else batch.loose)
    return found


@settings(max_examples=150, deadline=None)
@given(RECORDS, RECORDS, VALUES, st.permutations(["a", "b", "x"]), st.booleans(), st.integers(1, 90), st.randoms())
def test_any_layout_gives_the_same_records(a, b, x, keys, ascii_, block, random) -> None:
    document = {k: {"a": a, "b": b, "x": x}[k] for k in keys}
    text = layout(document, lambda: random.choice(["", "", " ", "\n\t", "\r\n  "]), ascii_)
    assert collected(text.encode(), {"a": Any, "b": dict}, block) == {"a": a, "b": b}


class Row(msgspec.Struct):
    id: int
    name: str


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text('}]{["\\,x', max_size=9), max_size=12), st.integers(1, 60), st.sampled_from([None, 1]))
def test_strings_full_of_brackets_come_out_typed(names, block, indent) -> None:
    text = json.dumps({"a": [{"id": n, "name": s} for n, s in enumerate(names)], "z": [{"a": []}]}, indent=indent)
    assert collected(text.encode(), {"a": Row}, block) == {"a": [Row(n, s) for n, s in enumerate(names)]}


def test_a_file_cut_at_any_byte_is_a_user_error_naming_it(tmp_path: Path) -> None:
    whole = b'{"x": {"y": ["}]", -1.5e3]}, "a": [{"id": 1, "name": "\\u00e9}"}, {"id": 2, "name": "\\""}], "t": true}'
    path = tmp_path / "cut.json"
    for block in (1, 16, 4096):
        for stop in range(len(whole)):
            path.write_bytes(whole[:stop])
            with pytest.raises(UserError, match=r"cut\.json: .*byte \d+") as error:
                list(batches(path, {"a": Row}, block))
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('{"a": [{"id": 1, "name": "x"},]}', 30), ('{"a": [,1]}', 7), ('{"a": [1 2]}', 9),
        ('{"a": [{"id": nope}]}', 14),
        ('{"a": []} {}', 10), ('[1]', 0), ('{"x": {"y": ]}}', 12), ('{"a": 5}', 6), ('{a: []}', 1),
        ('{"x": tru, "a": []}', 6),
    ],
)  # fmt: skip
def test_broken_json_is_named_with_its_byte(tmp_path: Path, text: str, at: int) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"broken\.json: not legal JSON at byte {at}:"):
        list(batches(path, {"a": Row}))


def test_records_that_misfit_come_out_as_plain_values() -> None:
    text = b'{"a": [{"id": 1, "name": "x"}, {"id": "1"}, 7, {"id": NaN, "name": null}]}'
    found = collected(text, {"a": Row}, 4096)["a"]
    assert found[:3] == [{"id": 1, "name": "x"}, {"id": "1"}, 7] and found[3]["id"] != found[3]["id"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=8), st.integers(1, 40), st.integers(1, 30), st.data()
)
def test_grouping_is_a_stable_sort(parts, run_rows, range_rows, data) -> None:
    step = data.draw(st.integers(1, 5))
    dtype = np.dtype([("key", "i8"), ("n", "i8"), ("end", "i8")])
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as temp:
        patch.setattr(grouping, "RUN_ROWS", run_rows)
        patch.setattr(grouping, "_STEP", step)
        grouper = grouping.Grouper(Path(temp), "g", dtype, texts=True)
        number = 0
        for keys in parts:
            rows = np.zeros(len(keys), dtype)
            rows["key"], rows["n"] = keys, range(number, number + len(keys))
            number += len(keys)
            grouper.add(rows, [b"t" * (n % 3) + b"%d" % n for n in rows["n"].tolist()])
        ranges = list(grouper.read(grouping.bounds([grouper], range_rows)))
    flat = [k for keys in parts for k in keys]
    got = [(k, n, t) for r in ranges for (k, n, _), t in zip(r.rows.tolist(), r.texts, strict=True)]
    assert got == [(flat[n], n, b"t" * (n % 3) + b"%d" % n) for n in sorted(range(len(flat)), key=lambda n: flat[n])]
    seen = [set(r.rows["key"].tolist()) for r in ranges]
    assert sum(map(len, seen)) == len(set(flat))
