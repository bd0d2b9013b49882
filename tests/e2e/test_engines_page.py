"""docs/engines.md says what the table of situations has."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.reality.page import page
from tests.e2e.reality.rows import ROWS
from tests.e2e.reality.runtimes import KINDS

_PAGE = Path(__file__).parents[2] / "docs" / "engines.md"


def test_the_page_is_as_the_table() -> None:
    assert _PAGE.read_text() == page(), "run: python -m tests.e2e.reality.page >docs/engines.md"


def test_no_situation_allows_a_green_answer_that_is_not_the_right_one() -> None:
    for row in ROWS:
        for one in row.less:
            assert 0 not in one.exits or row.exit == 0, row.name
            for name, answers in one.answers.items():
                right = row.right[name]
                for answer in answers:
                    assert answer.advisory in {right.advisory, "unknown"}, (row.name, name)
                    assert one.why


def test_names_are_their_own() -> None:
    for names in ([row.name for row in ROWS], [kind.name for kind in KINDS]):
        assert len(set(names)) == len(names)
