from __future__ import annotations

import errno
import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.cli import output
from digestry.cli.table_layout import lines_of
from digestry.errors import StorageError
from digestry.model.digest import Digest
from digestry.model.reference import Reference

HOSTILE = "\x1b[31m\x07\x9b2J\u202e\u200b\x7f\r\n\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def __init__(self, code: int) -> None:
        super().__init__()
        self._code = code

    def write(self, _: str) -> int:
        raise OSError(self._code, "it is broken")


def harmless(text: str) -> bool:
    return all(
        character == "\n" or (character.isprintable() and unicodedata.category(character) != "Cf")
        for character in text
    )


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Co"])))
def test_nothing_hostile_is_printable(text: str) -> None:
    shown = output.printable(text)
    assert harmless(shown)
    assert "\n" not in shown
    assert output.printable(shown) == shown


def test_harmless_text_stays() -> None:
    for text in ("", "golftrack:1.5", "käse 東京 🐳"):
        assert output.printable(text) == text
    assert output.printable("\x1b[31mred") == r"\x1b[31mred"


def test_a_table_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["NAME", "TAG", "SIZE"], [("golftrack", "1.5", "5MB"), ("a", "", "")])
    assert capsys.readouterr().out == (
        "NAME        TAG   SIZE\n"
        "golftrack   1.5   5MB\n"
        "a\n"
    )  # fmt: skip
    output.table(["NAME"], [])
    assert capsys.readouterr().out == "NAME\n"


def test_a_table_counts_the_columns_of_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["NAME", "NOTE", "TAG"], [("東京", "ka\u0308se", "1"), ("app", "🐳", "2")])
    assert capsys.readouterr().out == (
        "NAME   NOTE   TAG\n"
        "東京   ka\u0308se   1\n"
        "app    🐳     2\n"
    )  # fmt: skip
    lines = list(lines_of(["NAME", "TAG"], [("東" * 12, "1"), ("a", "2")], 20))
    assert lines == ["NAME  TAG", "東" * 12, "      1", "a     2"]


def test_a_table_shows_nothing_hostile(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["NAME", "TAG"], [(HOSTILE, "1"), ("a", HOSTILE)])
    out = capsys.readouterr().out
    assert harmless(out)
    assert len(out.splitlines()) == 3


def test_errors_go_to_standard_error_with_their_hint(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("it is wrong", "do it right")
    output.complain("also wrong")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "digestry: it is wrong\n  hint: do it right\ndigestry: also wrong\n"
    output.complain(HOSTILE, HOSTILE)
    assert harmless(capsys.readouterr().err)


def test_json_has_digests_and_references_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    digest, reference = Digest.of(b""), Reference.parse("a:t")
    output.json_document({"digest": digest, "names": [reference]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"digest": str(digest), "names": [str(reference)]}
    assert '\n  "names"' in out


@given(
    st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
)
def test_json_shows_nothing_hostile_and_loses_nothing(value: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr(sys, "stdout", stream)
        output.json_document(value)
    assert harmless(stream.getvalue())
    assert json.loads(stream.getvalue()) == value


def test_json_escapes_beyond_the_first_plane(capsys: pytest.CaptureFixture[str]) -> None:
    output.json_document("\U000e0041\x9b\x7f🐳")
    out = capsys.readouterr().out
    assert out == '"\\udb40\\udc41\\u009b\\u007f🐳"\n'


def test_a_full_disk_is_storages_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    with pytest.raises(StorageError, match="cannot write the output: it is broken"):
        output.say("a")


def test_a_reader_that_left_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    with pytest.raises(BrokenPipeError):
        output.say("a")


def test_remarks_that_nobody_hears_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in (errno.EPIPE, errno.ENOSPC):
        monkeypatch.setattr(sys, "stderr", Broken(code))
        output.note("a")
        output.complain("a", "b")


def test_without_a_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    output.table(["A"], [("x",)])
    output.json_document([])


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.23kB"),
        (999_499, "999kB"),
        (999_500, "1MB"),
        (999_999, "1MB"),
        (12_345_678, "12.3MB"),
        (999_999_999, "1GB"),
        (5 * 10**12, "5TB"),
        (10**15, "1PB"),
        (2**63 - 1, "9.22EB"),
    ],
)
def test_sizes_in_three_figures(size: int, shown: str) -> None:
    assert output.human_size(size) == shown


@given(st.integers(0, 2**63 - 1))
def test_sizes_are_never_in_powers_of_ten(size: int) -> None:
    assert "e" not in output.human_size(size)


def test_a_table_wider_than_the_terminal_continues_below(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = f"sha256:{'a' * 64}"
    monkeypatch.setattr(sys, "stdout", printed := Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    output.table(["TAG", "DIGEST", "SIZE"], [["1.5", digest, "1kB"], ["latest", digest, "2kB"]])
    assert printed.getvalue().splitlines() == [
        "TAG     DIGEST",
        "   SIZE",
        f"1.5     {digest}",
        "   1kB",
        f"latest  {digest}",
        "   2kB",
    ]


def test_a_long_text_in_the_last_column_is_cut_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", printed := Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    output.table(
        ["KEY", "VALUE", "MEANING"], [["registry", "localhost:5000", "the registry of names without a host"]]
    )
    assert printed.getvalue().splitlines()[2:] == [
        "registry  localhost:5000",
        "   the registry of names",
        "   without a host",
    ]


def test_a_table_in_a_pipe_has_a_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = f"sha256:{'a' * 64}"
    monkeypatch.setattr(sys, "stdout", printed := io.StringIO())
    monkeypatch.setenv("COLUMNS", "80")
    output.table(["TAG", "DIGEST", "SIZE"], [["1.5", digest, "1kB"]])
    assert printed.getvalue().splitlines()[1] == f"1.5   {digest}   1kB"


def test_one_long_name_does_not_spread_the_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", printed := Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    long = "localhost:5000/organisation/department/app"
    output.table(
        ["REPOSITORY", "TAG", "ID", "SIZE"],
        [
            ["localhost:5000/app", "1.5", "a" * 12, "1kB"],
            [long, "1.5", "b" * 12, "1kB"],
            ["localhost:5000/app", "a-long-name-of-a-tag", "c" * 12, "20kB"],
            ["localhost:5000/app", "2", "d" * 12, "1kB"],
        ],
    )
    assert printed.getvalue().splitlines() == [
        "REPOSITORY          TAG",
        "   ID            SIZE",
        "localhost:5000/app  1.5",
        "   aaaaaaaaaaaa  1kB",
        long,
        "                    1.5",
        "   bbbbbbbbbbbb  1kB",
        "localhost:5000/app  a-long-name-of-a-tag",
        "   cccccccccccc  20kB",
        "localhost:5000/app  2",
        "   dddddddddddd  1kB",
    ]


@given(
    st.lists(st.lists(st.text("ab c", max_size=50), min_size=3, max_size=3), max_size=8), st.integers(10, 90)
)
def test_a_table_keeps_every_cell_in_any_terminal(rows: list[list[str]], room: int) -> None:
    shown = list(lines_of(["A", "B", "C"], rows, room))
    longest = max((len(word) for row in rows for cell in row for word in cell.split()), default=1)
    assert all(len(line) <= max(room, longest + 3) for line in shown if " " in line.strip())
    words = [word for row in rows for cell in row for word in cell.split()]
    assert " ".join(shown).split() == ["A", "B", "C", *words]
