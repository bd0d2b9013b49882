"""Whose signatures a log must have: what the settings may say, and what is wrong with other texts."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from digestry.cli.registry_blocks import read_blocks, text_of_value, value_of_text
from digestry.errors import InvalidConfiguration
from digestry.translog.notes import SignerKey
from digestry.verifier.trust import trust_from
from tests.verifier.log_server import ORIGIN, witness

KEY = str(SignerKey.new(ORIGIN).verifier)
OTHER = str(SignerKey.new("other.test/log").verifier)
WITNESSES = [str(witness(f"w{number}.test").verifier) for number in range(3)]
FILE = Path("/etc/config.toml")


def test_what_the_settings_say() -> None:
    blocks = read_blocks(
        {
            "registry.test": {"log-key": KEY, "log-witnesses": WITNESSES, "log-quorum": 2},
            "*.test": {"log-witnesses": WITNESSES[0]},
            "plain.example": {"plain-http": True},
        },
        FILE,
    )
    rule = blocks.log_of("registry.test:5000")
    assert rule is not None
    assert (rule.keys, rule.witnesses, rule.quorum) == ((KEY,), tuple(WITNESSES), 2)
    wider = blocks.log_of("other.test")
    assert wider is not None
    assert (wider.keys, wider.witnesses, wider.quorum) == ((), (WITNESSES[0],), None)
    assert blocks.log_of("plain.example") is None
    assert [trust_from((), WITNESSES, quorum).quorum for quorum in (None, 0, 2)] == [3, 0, 2]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"log-key": "nonsense"}, "it is not a log key"),
        ({"log-key": KEY[:-4] + "AAA="}, "it is not a log key"),
        ({"log-key": WITNESSES[0]}, "is not a log key: it has the type 4"),
        ({"log-key": [KEY, OTHER]}, "several names"),
        ({"log-witnesses": [KEY]}, "is not a key of a witness"),
        ({"log-witnesses": WITNESSES, "log-quorum": 4}, "4 of 3 witnesses cannot be required"),
        ({"log-quorum": 1}, "1 of 0 witnesses cannot be required"),
        ({"log-quorum": "2"}, "log-quorum must be a number"),
        ({"log-quorum": True}, "log-quorum must be a number"),
        ({"log-key": []}, None),
    ],
)
def test_what_is_wrong(block: dict[str, object], message: str | None) -> None:
    if message is None:
        assert read_blocks({"registry.test": block}, FILE).logs[0].keys == ()
        return
    with pytest.raises(InvalidConfiguration, match=message) as raised:
        read_blocks({"registry.test": block}, FILE)
    assert '[registries."registry.test"]' in raised.value.message


def test_a_part_of_a_registry_has_no_log() -> None:
    with pytest.raises(InvalidConfiguration, match="log-key is about a whole registry"):
        read_blocks({"registry.test/team": {"log-key": KEY}}, FILE)


def test_the_command_line_writes_them() -> None:
    assert value_of_text("log-witnesses", ",".join(WITNESSES)) == WITNESSES
    assert value_of_text("log-quorum", "2") == 2
    assert text_of_value(2) == "2"
    with pytest.raises(InvalidConfiguration, match="log-quorum is a number"):
        value_of_text("log-quorum", "two")


def test_an_age_needs_a_witness() -> None:
    with pytest.raises(InvalidConfiguration, match="only witnesses state times"):
        trust_from([KEY], longest_ago=datetime.timedelta(hours=1))
