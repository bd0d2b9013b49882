"""The wire forms of the fleet."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from digestry.model.descriptor import decode_hook, encode_hook
from digestry.model.digest import Digest
from digestry.model.fleet import (
    ClaimReport,
    FleetReport,
    Gap,
    ImageReport,
    RunReport,
    Snapshot,
    SourceReport,
    Started,
    Stopped,
    within,
)

NOW = datetime.datetime(2026, 3, 1, 14, 32, 5, 250_000, tzinfo=datetime.UTC)
DIGEST = Digest.parse("sha256:" + "ab" * 32)


def test_a_report_is_the_same_after_json() -> None:
    run = RunReport("c1", "2026-03-01T14:32:05Z", "i", NOW, name="web", workload="shop/web")
    report = FleetReport(
        "0" * 32,
        "host-1",
        "1.0",
        60,
        NOW,
        first=7,
        images={"i": ImageReport("golftrack:1.5", (ClaimReport(DIGEST, "index", obtained=True),), DIGEST)},
        entries=(
            Started("docker", run),
            Stopped("docker", "c0", NOW),
            Snapshot("docker", "1f", NOW, (run,), last=False),
            Gap("docker", NOW, NOW, "the buffer was full"),
        ),
        sources=(SourceReport("docker", NOW),),
    )
    encoded = msgspec.json.encode(report, enc_hook=encode_hook)
    assert msgspec.json.decode(encoded, type=FleetReport, dec_hook=decode_hook) == report


@pytest.mark.parametrize(
    "changed",
    [
        {"agent": "x"},
        {"place": ""},
        {"place": "a\nb"},
        {"interval": 0},
        {"sentAt": "2026-03-01T14:32:05"},  # no time zone
        {"first": -1},
        {"entries": [{"type": "invented"}]},
        {"sources": [{"source": "docker", "problem": "x" * 2000}]},
    ],
)
def test_a_report_that_is_wrong_is_refused(changed: dict[str, object]) -> None:
    right = {
        "agent": "0" * 32,
        "place": "host-1",
        "version": "1",
        "interval": 60,
        "sentAt": "2026-03-01T14:32:05Z",
    }
    msgspec.convert(right, FleetReport, dec_hook=decode_hook)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**right, **changed}, FleetReport, dec_hook=decode_hook)


@pytest.mark.parametrize(
    ("place", "allowed", "expected"),
    [
        ("host-1", "host-1", True),
        ("host-10", "host-1", False),
        ("cluster/node-1", "cluster", True),
        ("cluster", "cluster/node-1", False),
        ("clusters/node-1", "cluster", False),
    ],
)
def test_a_token_is_for_its_place_and_what_is_within(place: str, allowed: str, expected: bool) -> None:
    assert within(place, allowed) is expected
