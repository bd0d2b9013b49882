"""What a registry tells the users of its clients."""

from __future__ import annotations

import pytest

from digestry.client.options import ClientOptions
from digestry.client.registry_warnings import MOST, read_warnings
from digestry.client.session import Session
from digestry.model import media_types
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request

MANIFEST = b'{"schemaVersion": 2, "manifests": []}'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['299 - "moves on 1 May"'], ["moves on 1 May"]),
        (['299 - "a \\"b\\", c", 299 - "d"', '299 - "e"'], ['a "b", c', "d", "e"]),
        (['110 cache "Response is Stale"', '299 proxy.example "x"', '299 - "x" "Sat, 01 Jan 2028"'], []),
        (["", "299", "299 -", '299 - "open', "nonsense"], []),
        (['299 - "\x1b[31mred\u202e"'], ["\\x1b[31mred\\u202e"]),
        ([f'299 - "{"x" * 500}"'], ["x" * 400 + "…"]),
        (['299 - "first"', f'299 - "{"x" * 4096}"', '299 - "after the limit"'], ["first"]),
    ],
)  # fmt: skip
def test_which_warnings_are_read(values: list[str], expected: list[str]) -> None:
    assert list(read_warnings(values)) == expected


def test_each_is_reported_once_and_not_without_an_end(liar: Liar) -> None:
    asked = 0

    def answer(request: Request) -> Reply:
        nonlocal asked
        asked += 1
        warnings = f'299 - "the same", 299 - "number {asked}"'
        return Reply(200, MANIFEST, {"Content-Type": media_types.OCI_INDEX, "Warning": warnings})

    liar.answer = answer
    said: list[str] = []
    with Session(ClientOptions(tell=said.append)) as session:
        repository = session.repository(Reference(liar.host, "app"))
        for number in range(20):
            repository.pull_manifest(f"t{number}")
    assert asked >= 20
    assert said == list(dict.fromkeys(said))
    assert [text for text in said if "the same" in text] == [f"{liar.host} warns: the same"]
    assert len([text for text in said if "warns" in text]) == MOST
