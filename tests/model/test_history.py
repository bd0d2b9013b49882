from __future__ import annotations

import datetime

import msgspec
import pytest

from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.history import Holder, Holders, JournalPage, TagEvent
from tests.model.documents import OTHER, SOME

AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "value",
    [
        JournalPage(
            "team/a",
            (
                TagEvent(
                    AT, "team/a", "t", "moved", SOME, OTHER, "a/b", 5, "ann", "::1", "curl", 1, 2, "x", "y"
                ),
                TagEvent(AT, "team/a", "t", "created", to_digest=SOME),
                TagEvent(AT, "team/a", "t", "deleted", from_digest=SOME),
            ),
        ),
        Holders(SOME, (Holder(SOME, "a/b", 5, present=False, config=OTHER, manifests=(SOME,)),)),
        Holders(SOME, ()),
    ],
)
def test_the_wire_forms_come_back_as_they_were(value: JournalPage | Holders) -> None:
    text = msgspec.json.encode(value, enc_hook=encode_hook)
    assert msgspec.json.decode(text, type=type(value), dec_hook=decode_hook) == value


def test_an_unknown_event_is_refused() -> None:
    text = b'{"at": "2026-01-02T03:04:05Z", "repository": "a", "tag": "t", "event": "lost"}'
    with pytest.raises(msgspec.ValidationError, match=r"\$\.event"):
        msgspec.json.decode(text, type=TagEvent, dec_hook=decode_hook)
