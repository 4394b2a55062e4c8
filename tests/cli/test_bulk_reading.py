"""Files as rows, and values as JSON that loses nothing: without a ring."""

from __future__ import annotations

import codecs
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli.bulk import lines, rows
from node.cli.bulk.batches import MOST, VOLUME, batches
from node.cli.bulk.formats import format_of
from node.cli.bulk.lines import Source, Stream
from node.cli.bulk.rows import Reject, Row, rows_of
from node.cli.bulk.tagged import read_json, tagged, to_line, untagged
from node.errors import BadUsage
from node.settings import Settings
from tests.cli.exact import exactly

SETTINGS = Settings()
ENDS = ["\r", "\n", "\r\n"]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """A file with this in it, as a source."""

    def write(content: str | bytes, name: str = "file", encoding: str | None = None) -> Source:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Source(Stream(str(path)), encoding)

    return write


def read(source: Source, kind: str = "csv", key: str | None = "id") -> list[Row | Reject]:
    return list(rows_of(source, kind, key, SETTINGS).read())


def pairs(found: list[Row | Reject]) -> list[tuple[str, Any]]:
    """The rows, of which none may be rejected."""
    assert not [each for each in found if isinstance(each, Reject)]
    return [(each.key.decode(), each.value) for each in found if isinstance(each, Row)]


def rejected(found: list[Row | Reject]) -> list[tuple[int, str]]:
    return [(each.line, each.text) for each in found if isinstance(each, Reject)]


def keys(found: list[Row | Reject]) -> list[str]:
    return [each.key.decode() for each in found if isinstance(each, Row)]


# -- lines -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text("ab \x85\u2028é", max_size=6), st.sampled_from(ENDS))), st.integers(1, 9))
def test_lines_end_with_cr_lf_or_both_wherever_reading_breaks_off(parts: list[tuple[str, str]], chunk: int) -> None:
    text = "".join(content + end for content, end in parts)
    expected = io.StringIO(text, newline="").readlines()
    stream = Stream("/dev/null")
    stream._head = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", chunk)
        found = list(Source(stream, "utf-8").lines())
    assert [line.raw.decode() for line in found] == expected
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    assert [line.offset for line in found] == [len("".join(expected[:n]).encode()) for n in range(len(found))]
    assert all(line.end == line.offset + len(line.raw) for line in found)


def test_of_a_line_that_is_too_long_only_the_beginning_is_kept(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 5_000)
    monkeypatch.setattr(lines, "CHUNK", 1_000)
    long = "x" * 1_000_000
    found = list(written(f"one\r\n{long}\r\nthree\r{long}").lines())
    assert [(line.number, line.cut, len(line.raw)) for line in found] == [
        (1, False, 5),
        (2, True, lines.KEPT),
        (3, False, 6),
        (4, True, lines.KEPT),
    ]
    assert [line.end for line in found] == [5, 1_000_007, 1_000_013, 2_000_013]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_says_the_encoding_and_is_no_part_of_the_text(written: Any, encoding: str) -> None:
    source = written("\ufeffid,x\r1,é\n".encode(encoding))
    assert source.encoding == encoding
    assert pairs(read(source)) == [("1", {"id": "1", "x": "é"})]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "shift-jis", "cp500"])
def test_any_encoding_can_be_named(written: Any, encoding: str) -> None:
    text = "id,x\n1,ア\n" if encoding == "shift-jis" else "id,x\n1,é\n"
    assert pairs(read(written(text.encode(encoding), encoding=encoding)))[0][1]["x"] in ("é", "ア")


@pytest.mark.parametrize("encoding", ["nonsense", "rot13", "base64"])
def test_an_encoding_there_is_not_is_named(written: Any, encoding: str) -> None:
    with pytest.raises(BadUsage, match=f"no encoding '{encoding}'.*latin-1"):
        written("id\n", encoding=encoding)


def test_a_bad_byte_is_named_with_its_line(written: Any) -> None:
    with pytest.raises(BadUsage, match=r"line 3: byte 6 of it, 0xe9, is not utf-8 .*--encoding latin-1"):
        read(written(b"id,x\r1,ok\r2,caf\xe9\r3,ok\r"))
    cut_short = codecs.BOM_UTF16_LE + "id\n1\n".encode("utf-16-le") + b"\x00\xd8\x00\x00"
    with pytest.raises(BadUsage, match="line 3: .*is not utf-16-le"):
        read(written(cut_short))


# -- tables ------------------------------------------------------------------------------------------------------------


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(each in cell for each in ',"\r\n') else cell


CELL = st.text(st.sampled_from('ab,"\r\n\t é\x85'), max_size=5)


@given(
    st.lists(st.tuples(st.text("xyz", min_size=1, max_size=3), CELL, CELL)),
    st.sampled_from(ENDS),
    st.integers(1, 30),
)
def test_what_was_written_as_csv_is_read_and_read_again_from_any_row(
    table: list[tuple[str, str, str]], end: str, chunk: int
) -> None:
    content = "".join(",".join(map(quoted, row)) + end for row in [("id", "a", "b"), *table]).encode()
    stream = Stream("/dev/null")
    stream._head = content

    def go_to(offset: int) -> None:
        stream._head = content[offset:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", chunk)
        patch.setattr(stream, "go_to", go_to)
        reader = rows_of(Source(stream, "utf-8"), "csv", "id", SETTINGS)
        found = list(reader.read())
        assert pairs(found) == [(id_, {"id": id_, "a": a, "b": b}) for id_, a, b in table]
        for at in range(0, len(found), 3):
            assert list(reader.read(found[at].after)) == found[at + 1 :]


def test_line_numbers_count_every_kind_of_end_and_quoted_ones(written: Any) -> None:
    found = read(written('id,x\r\n1,"a\rb\nc\r\nd"\r2\n\n\r\n3,c\n4\r'))
    assert rejected(found) == [(6, "2"), (10, "4")]
    assert keys(found) == ["1", "3"] and found[0].value["x"] == "a\rb\nc\r\nd"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2", "1 column instead of 2"),
        ("2,b,c", "3 columns instead of 2"),
        (",b", "the key, 'id', is empty"),
        ('2,"b"c', "quotes are not closed as they should be"),
        ("k" * 4097 + ",b", "the key is 4097 bytes long"),
        ("2," + "b" * 4_194_304, "the value is 41943.. bytes long"),
    ],
)
def test_a_row_that_is_wrong_is_rejected_and_the_others_are_not(written: Any, row: str, reason: str) -> None:
    found = read(written(f"id,x\n1,a\n{row}\n3,c\n"))
    assert keys(found) == ["1", "3"] and rejected(found) == [(3, row)]
    assert re.match(reason, found[1].reason)  # type: ignore[union-attr]


def test_an_unclosed_quote_costs_its_own_line_only(written: Any) -> None:
    found = read(written('id,x\n1,"a\n2,b\n3,"c"\n4,"d\n5,e\n'))
    assert rejected(found) == [(2, '1,"a'), (5, '4,"d')]
    assert keys(found) == ["2", "3", "5"]


def test_an_unclosed_quote_is_given_up_after_a_while(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW", 10_000)
    found = read(written('id,x\n0,"a\n' + "".join(f"{n},b\n" for n in range(1, 5_000))))
    assert rejected(found) == [(2, '0,"a')]
    assert found[0].reason == "a quote is not closed within 10,000 bytes"  # type: ignore[union-attr]
    assert len(keys(found)) == 4_999


def test_tabs_separate_in_tsv_and_commas_do_not(written: Any) -> None:
    assert pairs(read(written("id\tx,y\n1\ta,b\n"), "tsv")) == [("1", {"id": "1", "x,y": "a,b"})]


@pytest.mark.parametrize(("key", "at"), [("id", 0), ("1", 2), ("2", 1), ("3", 2)])
def test_the_key_is_a_column_by_name_or_else_by_number(written: Any, key: str, at: int) -> None:
    assert keys(read(written("id,x,1\na,b,c\n"), key=key)) == ["abc"[at]]


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        ("id,x\n", None, "say with --key which column of .* is the key: id, x"),
        ("id,x\n", "y", "has no column 'y': --key takes one of id, x, or a number"),
        ("id,x\n", "3", "has no column '3'"),
        ("id,x\n", "0", "has no column '0'"),
        ("id,x,id\n", "id", "several columns are called 'id'"),
        ("", "id", "does not begin with the names of its columns: it is empty"),
        ('id,"x\n', "id", "does not begin with the names of its columns: quotes"),
    ],
)
def test_a_table_without_a_usable_key_or_names_is_refused(written: Any, content: str, key: str, said: str) -> None:
    with pytest.raises(BadUsage, match=said):
        read(written(content), key=key)


# -- JSON lines --------------------------------------------------------------------------------------------------------


def test_fields_of_objects_as_keys(written: Any) -> None:
    content = '{"id": "a", "n": [1, null]}\r\n\r\n{"id": 7, "value": {"base64": "AP8="}}\r'
    assert pairs(read(written(content), "jsonl")) == [
        ("a", {"id": "a", "n": [1, None]}),
        ("7", {"id": 7, "value": {"base64": "AP8="}}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": 1', "invalid JSON: .* at column 9"),
        ("[1]", "not an object"),
        ('{"x": 1}', "the key, 'id', is missing"),
        ('{"id": ""}', "the key, 'id', is empty"),
        ('{"id": null}', "the key, 'id', is empty"),
        ('{"id": 1.5}', "a key is bytes, str or int, not float"),
        ('{"id": true}', "a key is bytes, str or int, not bool"),
        ('{"id": 1, "x": NaN}', "NaN is not JSON"),
        ('{"id": 1, "x": 1e999}', "1e999 is too large a number"),
        ('{"id": 1, "x": "\\ud800"}', "the value cannot be stored"),
        ('{"id": 1, "x": ' + "[" * 70 + "]" * 70 + "}", "the value is nested more than 64 deep"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_line_that_is_wrong_is_rejected_and_the_others_are_not(written: Any, line: str, reason: str) -> None:
    found = read(written(f'{{"id": "a"}}\n{line}\n{{"id": "b"}}\n'), "jsonl")
    assert keys(found) == ["a", "b"] and rejected(found) == [(2, line)]
    assert re.match(reason, found[1].reason)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        '{"key": "a"}',
        '{"key": "a", "value": 1, "more": 2}',
        '{"key": "a", "value": {"base64": "?"}}',
        '{"key": "a", "value": {"base64": 1}}',
        '{"key": "a", "value": {"int": 1.5}}',
        '{"key": "a", "value": {"float": "1.5"}}',
        '{"key": "a", "value": {"tuple": "ab"}}',
        '{"key": "a", "value": {"dict": [[[1], 2]]}}',
        '{"key": {"tuple": [1]}, "value": 1}',
    ],
)
def test_what_no_dump_would_say_is_rejected(written: Any, line: str) -> None:
    assert rejected(read(written(line), "jsonl", None)) == [(1, line)]


def test_objects_without_a_key_are_refused_before_anything_is_loaded(written: Any) -> None:
    with pytest.raises(BadUsage, match="say with --key which field of .* is the key: id, name"):
        read(written('\n{"id": 1, "name": 2}\r{"id": 2}'), "jsonl", None)


ATOM = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**60), 2**70)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(max_size=9)
    | st.sampled_from(["base64", "int", "float", "tuple", "dict", 2**53, 2**53 + 1, -(2**53) - 1])
)
HASHABLE = st.recursive(ATOM, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
VALUE = st.recursive(
    ATOM,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["base64", "int", "float", "tuple", "dict", "x"]), inner, max_size=2)
    ),
    max_leaves=20,
)


@given(VALUE)
def test_a_value_survives_being_dumped_and_loaded(value: Any) -> None:
    line = to_line("k", value)
    assert "\n" not in line
    json.loads(line.encode(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert exactly(untagged(read_json(line)["value"])) == exactly(value)


@pytest.mark.parametrize("value", [1 << 20_000, -(1 << 20_000), [-math.inf, -0.0], {(b"", None): 0.1}], ids=range(4))
def test_what_is_hard_to_write_survives_too(value: Any) -> None:
    assert exactly(untagged(read_json(to_line("k", value))["value"])) == exactly(value)


def test_what_the_tags_look_like() -> None:
    value = [1, 2.0, "é", b"\0\xff", (1,), {"a": 2**53 + 1}, {1: math.inf}, {"int": "7"}]
    assert tagged(value) == [
        1,
        2.0,
        "é",
        {"base64": "AP8="},
        {"tuple": [1]},
        {"a": {"int": "9007199254740993"}},
        {"dict": [[1, {"float": "inf"}]]},
        {"dict": [["int", "7"]]},
    ]


# -- formats and batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.CSV", "x\ty\n", "csv"),
        ("a.tsv", "x,y\n", "tsv"),
        ("a.jsonl", "", "jsonl"),
        ("a.ndjson", "", "jsonl"),
        ("input.txt", "# a comment, with commas\n\nput a b\n", "script"),
        ("input.txt", "", "script"),
        ("input.txt", "pt a b\nput c d\n", "script"),
        ("a", "\n  get a\r", "script"),
        ("a", ' {"id": 1}', "jsonl"),
        ("a", "\n", "jsonl"),
        ("a", "id,name\n", "csv"),
        ("a", "id\tname, given\n", "tsv"),
    ],
)
def test_a_format_is_told_by_the_name_or_by_the_first_line(written: Any, name: str, content: str, kind: str) -> None:
    assert format_of(written(content, name)) == kind


@pytest.mark.parametrize(("content", "said"), [(b"hello\n", "say --format"), (b"\x1f\x8b\x08", "compressed: zcat")])
def test_what_is_none_of_these_is_said(written: Any, content: bytes, said: str) -> None:
    with pytest.raises(BadUsage, match=said):
        format_of(written(content))


def test_batches_are_bounded_and_count_keys_that_came_before(written: Any) -> None:
    many = "".join(f"{n % 2_000},x\n" for n in range(2_500))
    large = "".join(f"L{n},{'y' * 400_000}\n" for n in range(4))
    found = list(batches(read(written("id,x\n" + many + large))))
    assert [batch.rows for batch in found] == [MOST, MOST, 503, 1]
    assert [batch.repeated for batch in found] == [0, 0, 500, 0]
    assert all(batch.size < VOLUME + 400_100 for batch in found)
    assert found[-1].after.line == 2_506


def test_of_rows_with_one_key_the_last_one_is_in_the_batch(written: Any) -> None:
    (batch,) = batches(read(written("id,x\n1,a\n2,b\n1,c\n")))
    assert (batch.rows, batch.repeated) == (3, 1)
    assert batch.pairs[b"1"] == {"id": "1", "x": "c"}
