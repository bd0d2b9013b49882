"""The agent as a whole, with followers that a test scripts, and a registry's intake in process."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import msgspec
import pytest

from digestry.client.fleet_reports import FleetIntake
from digestry.client.options import ClientOptions
from digestry.client.transport import Transport
from digestry.errors import InvalidConfiguration, Unreachable
from digestry.model.fleet import Gap
from tests.agent.intake import TOKEN, Intake, intake
from tests.agent.scripts import Broken, Scripted, agent, running, started, stopped, wait_for
from tests.support import free_port


@pytest.mark.long
def test_all_that_runs_is_reported_then_what_starts_and_stops(tmp_path: Path) -> None:
    follower = Scripted("web")
    with intake() as registry, running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: registry.seen() == ["=web"])
        follower.put(started("job", 1), stopped("job", 2), stopped("web", 3))
        wait_for(lambda: registry.seen()[1:] == ["+job", "-job", "-web"])
    assert registry.tokens == {f"Bearer {TOKEN}"}
    last = registry.reports[-1]
    assert last.stopping
    assert last.place == "rack/one"
    assert not registry.reports[0].stopping


@pytest.mark.long
def test_a_quiet_source_is_confirmed_by_heartbeats(tmp_path: Path) -> None:
    with intake() as registry, running(agent(registry, [Scripted("web")], tmp_path)):
        wait_for(lambda: len(registry.reports) >= 3)
    beats = [report for report in registry.reports if not report.entries]
    assert len(beats) >= 2
    confirmed = [report.sources[0].confirmed_at for report in registry.reports]
    assert None not in confirmed
    assert confirmed == sorted(confirmed)  # type: ignore[type-var]


@pytest.mark.long
def test_a_source_that_cannot_be_seen_is_a_problem_and_confirms_nothing(tmp_path: Path) -> None:
    with intake() as registry, running(agent(registry, [Broken(), Scripted("web")], tmp_path)):
        wait_for(lambda: len(registry.reports) >= 2)
    broken, scripted = registry.reports[-1].sources
    assert "no such socket" in broken.problem
    assert broken.confirmed_at is None
    assert not scripted.problem


@pytest.mark.long
def test_a_source_that_breaks_off_is_followed_again_from_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.agent.followed_source._FIRST_PAUSE", 0.05)
    follower = Scripted()
    with intake() as registry, running(agent(registry, [follower], tmp_path)):
        follower.put(started("a"), Unreachable("it ended the stream"), started("b"))
        wait_for(lambda: "+b" in registry.seen())
    assert follower.positions == ["", "1"]
    assert registry.seen() == ["=", "+a", "=", "+b"]


def test_what_happens_while_the_registry_is_away_arrives_later_once(tmp_path: Path) -> None:
    follower = Scripted()
    port = free_port()
    with intake(port) as registry, running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: registry.seen() == ["="])
    with running(agent(registry, [follower], tmp_path)):  # nobody is there
        follower.put(*(started(f"c{number}") for number in range(200)))
        wait_for(lambda: not follower._changes.qsize())
    with intake(port, registry), running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: "+c199" in registry.seen())
    told = [text for text in registry.seen() if text.startswith("+")]
    assert told == [f"+c{number}" for number in range(200)]
    assert len(registry.received) == 1


def test_the_registry_is_asked_for_its_time_before_what_has_waited_is_sent(tmp_path: Path) -> None:
    follower = Scripted()
    port = free_port()
    with intake(port) as registry, running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: registry.seen() == ["="])
    assert registry.reports[0].ahead is None
    assert registry.reports[0].entries
    with running(agent(registry, [follower], tmp_path)):  # nobody is there
        follower.put(started("c1"))
        wait_for(lambda: not follower._changes.qsize())
    before = len(registry.reports)
    registry.ahead = datetime.timedelta(hours=-1)
    with intake(port, registry), running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: "+c1" in registry.seen())
    question, answer = registry.reports[before : before + 2]
    assert (question.entries, question.sources, question.ahead) == ((), (), None)
    assert question.behind > 0
    assert answer.entries
    assert answer.ahead == pytest.approx(3600, abs=2)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_registry_that_refuses_gets_everything_once_it_takes_it(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.agent.reporter._SHORTEST_PAUSE", 0.02)
    monkeypatch.setattr("digestry.agent.reporter._LONGEST_PAUSE", 0.05)
    follower = Scripted("web")
    with intake() as registry:
        registry.answers = [(status, {})] * 3
        with running(agent(registry, [follower], tmp_path)):
            wait_for(lambda: registry.seen() == ["=web"])
        assert registry.refused == 3


def test_a_pause_that_the_registry_asks_for_is_kept(tmp_path: Path) -> None:
    with intake() as registry:
        registry.answers = [(503, {"Retry-After": "2"})]
        one = agent(registry, [Scripted("web")], tmp_path)
        with running(one):
            wait_for(lambda: registry.refused == 1)
            outcome = one._reporter.send()
            assert outcome.pause is None
        registry.answers = [(429, {"Retry-After": "120"})]
        assert (one._reporter.send().pause or 0) > 100


@pytest.mark.long
def test_a_report_that_is_too_large_is_sent_in_smaller_ones(tmp_path: Path) -> None:
    follower = Scripted()
    with intake() as registry:
        registry.largest = 4000
        with running(agent(registry, [follower], tmp_path)):
            follower.put(*(started(f"c{number}") for number in range(100)))
            wait_for(lambda: "+c99" in registry.seen())
    assert registry.refused > 0
    assert [text for text in registry.seen() if text[0] == "+"] == [f"+c{number}" for number in range(100)]


@pytest.mark.long
def test_an_entry_that_the_registry_refuses_is_a_gap_and_stops_no_other(tmp_path: Path) -> None:
    follower = Scripted()
    with intake() as registry:
        registry.poison = "name-c7"
        with running(agent(registry, [follower], tmp_path)):
            follower.put(*(started(f"c{number}") for number in range(20)))
            wait_for(lambda: "+c19" in registry.seen() and "gap" in registry.seen())
    told = [text for text in registry.seen() if text[0] == "+"]
    assert told == [f"+c{number}" for number in range(20) if number != 7]


@pytest.mark.long
@pytest.mark.long
def test_all_that_runs_is_told_once_more_after_a_source_was_away(tmp_path: Path) -> None:
    """The list right after it ends no run that had just begun."""
    follower = Scripted("a")
    with intake() as registry, running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: registry.seen() == ["=a"])
        follower.put(Unreachable("the engine is away"))
        wait_for(lambda: registry.seen() == ["=a", "=a", "=a"])


def test_a_registry_that_lost_entries_gets_all_that_runs_again(tmp_path: Path) -> None:
    with intake() as registry, running(agent(registry, [Scripted("web")], tmp_path)):
        wait_for(lambda: registry.seen() == ["=web"])
        registry.again = True
        wait_for(lambda: registry.seen() == ["=web", "=web"])


def test_an_agent_whose_numbers_were_given_before_is_another_one(tmp_path: Path) -> None:
    with intake() as registry:
        one = agent(registry, [Scripted("web")], tmp_path)
        registry.received[one._buffer.agent] = 1000
        with running(one):
            wait_for(lambda: "=web" in registry.seen())
    assert len(registry.received) == 2


def test_once_reports_what_runs_and_ends(tmp_path: Path) -> None:
    with intake() as registry:
        assert agent(registry, [Scripted("web", "db")], tmp_path).run_once()
        assert not agent(registry, [Broken()], tmp_path / "other").run_once()
    assert registry.seen()[0] == "=web,db"
    assert not any(report.stopping for report in registry.reports)


@pytest.mark.long
def test_nothing_that_was_reported_is_cut_or_breaks_the_form(tmp_path: Path) -> None:
    follower = Scripted()
    odd = started("odd\n\x1b[31m")
    with intake() as registry, running(agent(registry, [follower], tmp_path)):
        follower.put(odd, started("x" * 5000))
        wait_for(lambda: len(registry.entries) == 3)
    assert registry.seen()[1:] == ["+odd??[31m", f"+{'x' * 256}"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://registry.example.com", "plain HTTP"),
        ("ftp://registry.example.com", "only http and https"),
        ("https://registry.example.com/path", "not a registry"),
        ("https://user:secret@registry.example.com", "not a registry"),
        ("https://:0", "not a registry"),
        ("", "not a registry"),
    ],
)
def test_an_address_that_is_no_registry_is_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        FleetIntake(Transport(ClientOptions()), url)
    assert words in refused.value.message


def test_the_token_is_read_again_for_each_report_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with intake() as registry:
        one = agent(registry, [Scripted()], tmp_path)
        (tmp_path / "token").write_text("two words\n")
        assert one._reporter.send().pause is not None
        (tmp_path / "token").write_text("dgr_new\n")
        assert one._reporter.send().pause is None
    assert registry.tokens == {"Bearer dgr_new"}
    assert "two words" not in caplog.text
    one._buffer.close()


def test_a_gap_is_reported_where_the_buffer_was_full(tmp_path: Path) -> None:
    follower = Scripted()
    away = Intake(url=f"http://127.0.0.1:{free_port()}")
    with running(agent(away, [follower], tmp_path, buffer_limit=256 << 10)):
        follower.put(*(started(f"c{number}", number) for number in range(3000)))
        wait_for(lambda: not follower._changes.qsize())
    kept = sum(path.stat().st_size for path in (tmp_path / "state").glob("entries-*"))
    assert kept <= (256 << 10) + (64 << 10)
    with intake() as registry, running(agent(registry, [follower], tmp_path)):
        wait_for(lambda: "+c2999" in registry.seen() and registry.reports[-1].behind == 0)
    gaps = [entry for entry in registry.entries if isinstance(entry, Gap)]
    told = {text for text in registry.seen() if text.startswith("+")}
    lost = [number for number in range(3000) if f"+c{number}" not in told]
    assert gaps
    assert lost
    for number in lost:
        when = started("x", number).run.started_at
        assert any(gap.from_ <= when <= gap.until for gap in gaps)
    assert msgspec.json.encode(registry.reports[0].sent_at)


def test_a_damaged_buffer_without_entries_after_it_is_quiet(tmp_path: Path) -> None:
    away = Intake(url=f"http://127.0.0.1:{free_port()}")
    follower = Scripted("web")
    with running(agent(away, [follower], tmp_path)):
        follower.put(started("a"), started("b"))
        wait_for(lambda: not follower._changes.qsize())
    path = max((tmp_path / "state").glob("entries-*"))
    os.truncate(path, path.stat().st_size - 3)
    with intake() as registry:
        one = agent(registry, [Scripted()], tmp_path)
        outcomes = [one._reporter.send() for _ in range(3)]
        one._buffer.close()
    assert not outcomes[-1].more
    assert outcomes[-1].pause is None
