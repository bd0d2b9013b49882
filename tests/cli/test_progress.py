"""What a transfer shows: bars in a terminal, a line for each blob elsewhere."""

from __future__ import annotations

import io
import re
import sys

import pytest

from digestry.cli.progress import measuring, watching
from digestry.images.transfer import Stage
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Return the lines that have text, without what moves the cursor."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return [line for line in re.split(r"[\r\n]", plain) if line]


def blob(text: str, size: int) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(text.encode()), size)


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal, and return what is written there."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    for name, value in {"COLUMNS": "80", "LINES": "8", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return shown


def test_a_terminal_has_a_bar_for_each_blob_and_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    one, two, three = blob("one", 2_000_000), blob("two", 1_000_000), blob("three", 500)
    with watching(quiet=False) as observer:
        for descriptor in (one, two, three):
            observer.stage(descriptor, "waiting")
        observer.moved(one, 1_500_000)
        observer.moved(one, -500_000)  # begun again
        observer.moved(one, 1_000_000)
        observer.stage(one, "done")
        observer.stage(two, "mounted")
        observer.stage(three, "present")
    last = shown.lines()[-4:]
    assert all(len(line) <= 80 for line in shown.lines())
    for line, words in zip(
        last,
        [
            (one.digest.short, "2MB/2MB", "pulled"),
            (two.digest.short, "1MB/1MB", "mounted from another repository"),
            (three.digest.short, "500B/500B", "already there"),
            ("total", "2MB/2MB"),
        ],
        strict=True,
    ):
        assert all(word in line for word in words), line


def test_a_terminal_has_room_for_the_blobs_that_move(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    blobs = [blob(str(number), 1_000_000) for number in range(40)]
    with watching(quiet=False) as observer:
        for descriptor in blobs:
            observer.stage(descriptor, "waiting")
        for descriptor in blobs[:-1]:
            observer.stage(descriptor, "done")
        observer.moved(blobs[-1], 500_000)
        observer.stage(blobs[-1], "waiting")
        before = len(shown.getvalue())
    assert "total" in shown.getvalue()[before:]
    assert blobs[-1].digest.short in shown.getvalue()[before:]


def test_a_count_without_an_end_ends_with_its_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    with measuring("reading", quiet=False) as amount:
        amount.moved(3_000_000)
    assert not any("?" in line for line in shown.lines())
    assert "3MB/3MB" in shown.lines()[-1]


@pytest.mark.parametrize(
    ("stage", "said"),
    [("done", "pulled (1kB)"), ("present", "already there (1kB)"), ("skipped", "skipped")],
)
def test_there_is_a_line_for_each_blob_without_a_terminal(
    capsys: pytest.CaptureFixture[str], stage: Stage, said: str
) -> None:
    descriptor = blob("one", 1000)
    with watching(quiet=False) as observer:
        observer.stage(descriptor, "waiting")
        observer.moved(descriptor, 1000)
        observer.stage(descriptor, stage)
    with measuring("reading", quiet=False) as amount:
        amount.total(10)
        amount.moved(10)
    assert capsys.readouterr().err.splitlines()[0].startswith(f"{descriptor.digest.short}: {said}")
