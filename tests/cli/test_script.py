"""The lines of an input file, and what is said of those that are none."""

from __future__ import annotations

import io
import shlex
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli import script
from node.cli.script import MAX_LINE, Line, Malformed, read_lines, split_words


def parsed(content: bytes) -> list[Line | Malformed]:
    return list(read_lines(io.BytesIO(content)))


def shell_text() -> st.SearchStrategy[str]:
    return st.text(st.sampled_from("ab \t'\"\\é~$"), max_size=20)


def test_the_three_verbs() -> None:
    assert parsed(b"put a 1\nget a\ndelete a\n") == [
        Line(1, "put", "a", "1"),
        Line(2, "get", "a"),
        Line(3, "delete", "a"),
    ]


def test_comments_and_blank_lines_say_nothing_and_are_counted() -> None:
    assert parsed(b"# first\n\n  \t\n  # indented\nget a # behind\n") == [Line(5, "get", "a")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("put 'a b' \"c d\"", ["put", "a b", "c d"]),
        ("put a'b c'\"d e\"\\ f g", ["put", "ab cd e f", "g"]),
        ("put '' \"\"", ["put", "", ""]),
        (r'put "say \"hi\" \\ \n" x', ["put", r'say "hi" \ \n', "x"]),
        ("put 'it'\\''s' x", ["put", "it's", "x"]),
        ("put a#b #c d", ["put", "a#b"]),
        ("put '#a' \\#b", ["put", "#a", "#b"]),
        ("put \u00a0 x", ["put", "\u00a0", "x"]),
        ("put 東京 grün", ["put", "東京", "grün"]),
    ],
)
def test_words_are_quoted_as_in_a_shell(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(shell_text())
def test_words_are_those_of_shlex(text: str) -> None:
    try:
        expected = shlex.split(text)
    except ValueError:
        with pytest.raises(ValueError):
            split_words(text)
    else:
        assert split_words(text) == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")), max_size=4))
def test_what_shlex_quotes_comes_back(words: list[str]) -> None:
    assert split_words(shlex.join(words)) == words


@pytest.mark.parametrize(
    ("line", "mentioned"),
    [
        (b"frob a", "'frob' is none of put, get, delete"),
        (b"PUT a 1", "'PUT'"),
        (b"put a", "put with 1 words instead of 2: write put KEY VALUE"),
        (b"put a b c", "put with 3 words"),
        (b"get", "get with 0 words instead of 1: write get KEY"),
        (b"delete a b", "delete with 2 words"),
        (b"get 'a", "no closing '"),
        (b'put a "b', 'no closing "'),
        (b'put a "b\\', 'no closing "'),
        (b"get a\\", "nothing after the backslash"),
        (b"get \xff", "not UTF-8: invalid start byte at byte 4"),
        (b"get \xed\xa0\x80", "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named_and_the_next_one_is_read(line: bytes, mentioned: str) -> None:
    bad, good = parsed(line + b"\nget a")
    assert isinstance(bad, Malformed) and bad.number == 1 and mentioned in bad.reason
    assert good == Line(2, "get", "a")


def test_line_ends_and_marks_of_other_systems() -> None:
    assert parsed(b"\xef\xbb\xbfput a 1\r\nget a\r\nget b") == [
        Line(1, "put", "a", "1"),
        Line(2, "get", "a"),
        Line(3, "get", "b"),
    ]


def test_a_line_without_end_is_one_malformed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "MAX_LINE", 16)
    assert parsed(b"put a " + b"x" * 100 + b"\nget a\n") == [
        Malformed(1, "longer than 16 bytes"),
        Line(2, "get", "a"),
    ]
    assert parsed(b"put a 7890123456") == [Line(1, "put", "a", "7890123456")]
    assert parsed(b"put a 789012345\nget a") == [Line(1, "put", "a", "789012345"), Line(2, "get", "a")]


def test_a_long_line_takes_time_of_its_length() -> None:
    began = time.process_time()
    (line,) = parsed(b'put a "' + b'\\"' * (4 * 1024 * 1024) + b'"')
    assert isinstance(line, Line) and len(line.value) == 4 * 1024 * 1024 < MAX_LINE
    assert time.process_time() - began < 10


def test_a_file_that_cannot_be_read_on_is_malformed_there() -> None:
    class Torn(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().readline(size)

    assert list(read_lines(Torn(b"get a\nget b\n"))) == [
        Line(1, "get", "a"),
        Malformed(2, "cannot be read: Input/output error"),
    ]
