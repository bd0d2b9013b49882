"""The examples of the library's page, run in order as one program against a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import HOUSE, blocks
from tests.support import running_registry

PAGE = HOUSE / "docs" / "library.md"
_HOST = "localhost:5000"


@pytest.mark.long
def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names: dict[str, object] = {}
    shown: dict[str, str] = {}
    examples = [block for block in blocks(PAGE) if block.language == "python"]
    with running_registry() as server:
        for block in examples:
            # As many line ends before it as on the page, so that a traceback names the page's lines.
            text = "\n" * block.line + block.text.replace(_HOST, f"localhost:{server.port}")
            exec(compile(text, str(PAGE), "exec"), names)  # noqa: S102 - the page's own program
            shown[block.where] = capsys.readouterr().out
    assert len(examples) == len(shown) >= 8
    audit = next(out for out in shown.values() if "n1 " in out)
    assert audit.splitlines()[0].startswith("n1 moved not_assessed")
    assert audit.splitlines()[1].startswith("n2 current not_assessed")
    assert len(audit.splitlines()) == 2
