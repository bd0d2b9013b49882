"""The follower of Docker's events, over a socket."""

from __future__ import annotations

import time

import pytest

from digestry.errors import Unreachable
from digestry.inventory.engines.client import Engine as EngineClient
from digestry.inventory.followers.docker import DockerAPI
from digestry.inventory.followers.engine import EngineFollower
from digestry.inventory.runs import (
    AllRuns,
    RunStarted,
    RunStopped,
    Unobserved,
    moment,
    nanoseconds_of,
    of_nanoseconds,
)
from digestry.inventory.sources.docker import DockerSource
from digestry.model.fleet import written_time_of_start
from tests.agent.engine import Engine, engine, text_of
from tests.agent.following import following
from tests.agent.scripts import wait_for


def follower(engine: Engine, *, checked_every: float = 300) -> EngineFollower:
    client = EngineClient(engine.url, timeout=5)
    api = DockerAPI(DockerSource("docker", client), client)
    return EngineFollower("docker", api, checked_every=checked_every)


def test_what_runs_then_what_starts_and_stops() -> None:
    with engine() as docker:
        docker.run("web", **{"com.docker.compose.project": "shop", "com.docker.compose.service": "web"})
        with following(follower(docker)) as told:
            assert told.short() == ["=web"]
            docker.run("job")
            told.wait("+job")
            docker.die("job")
            docker.die("web")
            told.wait("-job", "-web")
    all_runs = told.changes[0]
    assert isinstance(all_runs, AllRuns)
    (web,) = all_runs.runs
    assert (web.name, web.namespace, web.node, web.workload) == (
        "name-web",
        "shop",
        "host",
        "compose/shop/web",
    )
    assert web.instance == "first"
    assert str(web.image.image_id) == "sha256:" + "a" * 64
    stops = [change for change in told.changes if isinstance(change, RunStopped)]
    assert {stop.instance for stop in stops} == {"first"}
    assert all(stop.after is None for stop in stops)


def test_a_start_has_the_time_of_its_event() -> None:
    """An engine writes a start down when it begins it, and tells of it when it is done."""
    with engine() as docker, following(follower(docker)) as told:
        with docker.lock:
            docker.run("web")
            state = docker.containers["web"]["State"]
            state["StartedAt"] = text_of(docker.events[-1]["timeNano"] - 400_000_000)
        told.wait("+web")
        told.wakeup.request_all_runs()
        told.wait("=web")
        (run,) = told.runs()
        assert run.started_at == of_nanoseconds(docker.events[-1]["timeNano"])
        later = [change for change in told.changes if isinstance(change, AllRuns)][-1]
        assert later.runs == (run,)


def test_a_container_that_is_gone_at_once_is_a_run_with_its_image() -> None:
    with engine() as docker, following(follower(docker)) as told:
        for number in range(50):
            docker.flash(f"c{number}")
        told.wait("-c49")
    assert [one for one in told.short() if one != "="] == [
        text for number in range(50) for text in (f"+c{number}", f"-c{number}")
    ]
    assert {run.instance for run in told.runs()} == {"first"}
    assert {str(run.image.image_id) for run in told.runs()} == {"sha256:" + "a" * 64}


def test_an_image_whose_name_was_moved_meanwhile_is_not_guessed() -> None:
    with engine() as docker, following(follower(docker)) as told:
        with docker.lock:
            docker.flash("old")
            docker.tag("localhost:5000/app:1", "b")
            docker.flash("new")
        told.wait("-new")
    old, new = told.runs()
    assert old.image.reference == "localhost:5000/app:1"
    assert (old.image.image_id, old.image.claims) == (None, ())
    assert str(new.image.image_id) == "sha256:" + "b" * 64


def test_a_further_start_is_another_run() -> None:
    with engine() as docker, following(follower(docker)) as told:
        docker.run("web")
        told.wait("+web")
        docker.die("web")
        docker.start("web")
        wait_for(lambda: told.short().count("+web") == 2)
        docker.die("web")
        wait_for(lambda: told.short().count("-web") == 2)
    first, second = told.runs()
    assert first.instance == "first"
    assert second.instance not in {"", "first"}
    stops = [change.instance for change in told.changes if isinstance(change, RunStopped)]
    assert stops == [first.instance, second.instance]


def test_what_happened_since_a_position_is_told_and_nothing_twice() -> None:
    with engine() as docker:
        with following(follower(docker)) as told:
            docker.run("a")
            told.wait("+a")
        docker.die("a")
        docker.flash("b")
        docker.run("c")
        with following(follower(docker), told.position) as again:
            again.wait("=c")
    assert again.short() == ["-a", "+b", "-b", "+c", "=c"]


def test_a_start_that_was_told_before_is_known_to_be_the_first() -> None:
    with engine() as docker:
        with following(follower(docker)) as told:
            docker.run("a")
            docker.create("b")
            docker.die("a")
            told.wait("-a")
        docker.start("b")
        docker.die("b")
        docker.destroy("b")
        docker.start("a")
        docker.die("a")
        docker.destroy("a")
        with following(follower(docker), told.position) as again:
            again.wait("-a", "-b")
    instances = {run.container: run.instance for run in again.runs()}
    assert instances["b"] == "first"
    assert instances["a"] != "first"


@pytest.mark.long
def test_events_that_the_engine_forgot_are_a_gap_and_ends_are_exact_where_they_are_known() -> None:
    with engine(memory=4) as docker:
        docker.run("stays")
        docker.run("ends")
        with following(follower(docker)) as told:
            docker.run("seen")
            told.wait("+seen")
        time.sleep(1.1)  # what started in the second before the last look is told again
        with following(follower(docker), told.position) as told:
            pass
        docker.die("ends")
        docker.run("quick")
        docker.die("quick")
        for number in range(10):
            docker.flash(f"lost{number}")
        with following(follower(docker), told.position) as again:
            again.wait("=seen,stays")
    gap = again.changes[0]
    assert isinstance(gap, Unobserved)
    assert gap.since < gap.until
    stops = {change.container: change for change in again.changes if isinstance(change, RunStopped)}
    finished = docker.containers["ends"]["State"]["FinishedAt"]
    assert stops["ends"].at.isoformat()[:26] == finished[:26]
    assert stops["ends"].instance == ""
    assert "+quick" in again.short()
    # Whether it had run before, which the engine forgot, nobody can say.
    (quick,) = (run for run in again.runs() if run.container == "quick")
    written = docker.containers["quick"]["State"]["StartedAt"]
    assert written_time_of_start(quick.instance) == nanoseconds_of(quick.started_at) // 1000
    assert quick.started_at.isoformat()[:26] == written[:26]
    assert stops["quick"].instance == quick.instance


def test_an_engine_that_starts_again_ends_the_stream_and_is_asked_anew() -> None:
    with engine() as docker:
        docker.run("web")
        one = follower(docker)
        with following(one) as told:
            docker.restart()
            wait_for(lambda: told.error is not None)
        assert isinstance(told.error, Unreachable)
        docker.containers["web"]["State"] |= {
            "Running": False,
            "Status": "exited",
            "FinishedAt": "2026-11-28T01:00:00Z",
        }
        with following(one, told.position) as again:
            pass
    # What started a moment before the last look may not have been told.
    assert (again.short()[0], again.short()[-2:]) == ("gap", ["-web", "="])


@pytest.mark.parametrize("known", [True, False], ids=["known before", "unknown"])
def test_an_end_whose_event_is_read_after_a_list_that_has_the_next_start(known: bool) -> None:
    """The end is that of the start before, and not of the one that the list told."""
    with engine() as docker:
        docker.run("web")
        began = docker.containers["web"]["State"]["StartedAt"]
        one = follower(docker)
        if not known:
            docker.hidden.add("web")
        with following(one) as told:
            docker.hidden.clear()
            with docker.lock:
                state = docker.containers["web"]["State"]
                # It ended, and starts again in a moment; the engine is late with its events.
                again = docker.now() + 2 * 10**9
                state |= {"FinishedAt": text_of(docker.now()), "StartedAt": text_of(again)}
                asked = len([change for change in told.changes if isinstance(change, AllRuns)])
            told.wakeup.request_all_runs()
            wait_for(lambda: len([one for one in told.changes if isinstance(one, AllRuns)]) > asked)
            docker._tell("container", "die", "web")
            told.wait("-web")
            told.wakeup.request_all_runs()
            wait_for(lambda: len([one for one in told.changes if isinstance(one, AllRuns)]) > asked + 1)
    listed = [change for change in told.changes if isinstance(change, AllRuns)]
    (stop,) = (change for change in told.changes if isinstance(change, RunStopped))
    assert stop.instance == ("first" if known else "")  # its making is not among the events
    assert [run.instance for run in listed[-1].runs] == [text_of(again)]
    assert began != text_of(again)


@pytest.mark.long
@pytest.mark.parametrize("is_there", [True, False], ids=["is there", "is gone"])
def test_what_ends_while_all_that_runs_is_asked_about(is_there: bool) -> None:
    """It started in the gap; its end is told, and its start, or that there is a gap until then."""
    with engine(memory=2) as docker:
        docker.run("old")
        with following(follower(docker)) as told:
            pass
        time.sleep(1.1)
        with following(follower(docker), told.position) as told:
            pass
        docker.die("old")
        docker.run("new")
        for number in range(3):
            docker.flash(f"lost{number}")
        answer = docker.answer

        def answered(path: str, query: dict[str, list[str]]) -> object:
            if path == "/containers/old/json" and docker.containers["new"]["State"]["Running"]:
                docker.die("new")
                if not is_there:
                    docker.destroy("new")
            return answer(path, query) if path != "/containers/new/json" or is_there else None

        docker.answer = answered  # type: ignore[method-assign]
        with following(follower(docker), told.position) as again:
            again.wait("-new")
        ended = [change for change in again.changes if isinstance(change, RunStopped)]
        end = next(change.at for change in ended if change.container == "new")
        gaps = [change for change in again.changes if isinstance(change, Unobserved)]
        if is_there:
            assert "+new" in again.short()
            assert max(gap.until for gap in gaps) < end
        else:
            assert max(gap.until for gap in gaps) >= end


@pytest.mark.long
@pytest.mark.parametrize("is_there", [True, False], ids=["is there", "is gone"])
def test_an_end_of_which_start_the_engine_forgot(is_there: bool) -> None:
    """It may be the end of a later start than the one that was told."""
    with engine(memory=3) as docker:
        docker.run("web")
        with following(follower(docker)) as told:
            pass
        time.sleep(1.1)
        with following(follower(docker), told.position) as told:
            pass
        docker.die("web")
        docker.start("web")
        docker.flash("other")
        docker.die("web")
        written = docker.containers["web"]["State"]["StartedAt"]
        if not is_there:
            docker.destroy("web")
        with following(follower(docker), told.position) as again:
            pass
    (stop,) = (one for one in again.changes if isinstance(one, RunStopped) and one.container == "web")
    if is_there:
        (run,) = (run for run in again.runs() if run.container == "web")
        assert run.started_at.isoformat()[:26] == written[:26]
        assert stop.instance == run.instance
        assert stop.after is None
    else:
        assert "+web" not in again.short()
        assert stop.instance == ""
        assert stop.after is not None
        assert stop.after < stop.at


def test_a_first_start_is_not_the_next_one_that_came_before_anybody_asked() -> None:
    """As of a container that ends at once, and that its policy starts again, on a busy host."""
    with engine() as docker, following(follower(docker)) as told:
        with docker.lock:
            docker.run("a")
            docker.die("a")
            docker.start("a")
        docker.flash("b")
        told.wait("-b")
    one, two = [run for run in told.runs() if run.container == "a"]
    assert one.instance == "first"
    assert two.instance not in {"first", ""}
    assert one.started_at < two.started_at
    stop = next(change for change in told.changes if isinstance(change, RunStopped))
    assert (stop.container, stop.instance) == ("a", "first")


@pytest.mark.long
def test_two_followers_tell_the_same_runs() -> None:
    with engine() as docker, following(follower(docker)) as one, following(follower(docker)) as two:
        docker.run("a")
        docker.flash("b")
        docker.die("a")
        docker.start("a")
        docker.flash("c")
        one.wait("-c")
        two.wait("-c")
        with following(follower(docker)) as third:
            pass
    assert [(run.container, run.instance) for run in one.runs()] == [
        (run.container, run.instance) for run in two.runs()
    ]
    all_runs = third.changes[-1]
    assert isinstance(all_runs, AllRuns)
    assert all_runs.runs[0].instance == one.runs()[-2].instance


def test_all_that_runs_is_told_again_when_it_is_requested() -> None:
    with engine() as docker:
        docker.run("web")
        with following(follower(docker)) as told:
            told.wakeup.request_all_runs()
            wait_for(lambda: told.short() == ["=web", "=web"])


def test_a_list_that_differs_from_the_events_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine() as docker, following(follower(docker, checked_every=0.1)) as told:
        with docker.lock:
            streams, docker.streams = docker.streams, []
            docker.run("unheard")
            docker.streams = streams
        told.wait("=unheard")


def test_an_image_is_asked_about_once() -> None:
    with engine() as docker, following(follower(docker)) as told:
        for number in range(20):
            docker.run(f"c{number}")
        told.wait("+c19")
    assert sum(path.startswith("/images/") for path in docker.asked) == 1
    assert all(isinstance(change, RunStarted | AllRuns) for change in told.changes)


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_times_are_by_the_own_clock_if_the_engines_is_off(ahead: int) -> None:
    with engine(ahead=ahead) as docker:
        docker.run("old")
        began = moment()
        with following(follower(docker)) as told:
            docker.run("a")
            docker.die("a")
            docker.flash("b")
            told.wait("+a", "-a", "+b", "-b")
        docker.die("old")
        docker.flash("c")
        with following(follower(docker), told.position) as later:
            later.wait("-old", "+c", "-c")
        changes = [*told.changes, *later.changes]
    assert "gap" not in later.short()
    assert [change for change in later.short() if change in {"+a", "-a", "+b", "-b"}] == []
    times = [change.run.started_at for change in changes if isinstance(change, RunStarted)]
    times += [change.at for change in changes if isinstance(change, RunStopped)]
    assert len(times) == 7
    assert all(-1.2 < (at - began).total_seconds() < 60 for at in times), (times, began)
    # What names a start is the engine's own, which every observer has.
    assert {run.instance for run in (*told.runs(), *later.runs())} == {"first"}
