"""The hints about refusals that no login changes."""

from __future__ import annotations

import pytest

from digestry.client import refusal_hints
from digestry.model import age_answers
from digestry.model.tag_age import ObservedSpan, TagMove, decide, from_moves, from_observations

DAY = 86_400_000_000


def hinted(text: str, *, age: str | None = None, account: str | None = None) -> str:
    return refusal_hints.hint(403, "DENIED", text, registry="r.example", account=account, age=age)


@pytest.mark.parametrize("account", [None, "me"])
def test_a_minimum_age_is_no_matter_of_a_login(account: str | None) -> None:
    own = decide(from_moves([TagMove(1, "a")], DAY), 7 * DAY, DAY)
    seen = decide(from_observations("a", [], [ObservedSpan("a", 0, DAY)], DAY), 7 * DAY, DAY)
    unseen = decide(from_observations("a", [TagMove(1, "a")], [], DAY), 7 * DAY, DAY)
    texts = [
        age_answers.explanation("app", "1", own, basis="journal"),
        age_answers.explanation("app", "1", seen, basis="observations"),
        age_answers.explanation("app", "1", unseen, basis="observations"),
        "sha256:ab is too young: it has not been under a tag for 7 days",
        "sha256:ab has no known age: no tag of app is known that it came with",
    ]
    for text in texts:
        assert "minimum age" in hinted(text, account=account), text
    assert "minimum age" in hinted("", age="refused; least=604800; why=young", account=account)  # to a HEAD
    assert "minimum age" not in hinted("you may not pull app", account=account)
