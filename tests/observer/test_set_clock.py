"""A clock that is set back does not end the observing until it is that late again."""

from __future__ import annotations

from pathlib import Path

from digestry.backend import open_backend
from digestry.catalog.clock import SECOND
from digestry.catalog.journal import Origin
from digestry.coordination.protocol import Job
from digestry.observer.observer import Observer
from digestry.registry.config import load
from digestry.upstream.http_upstream import ClientUpstream, UpstreamOptions
from tests.catalog.support import Clock, image

NAME = "up.test/app"
MINUTE = 60 * SECOND


def test_what_was_due_by_the_earlier_clock_is_due(tmp_path: Path) -> None:
    file, root, clock = tmp_path / "registry.toml", tmp_path / "root", Clock()
    root.mkdir()
    file.write_text(f'[observe."{NAME}"]\nevery = "1min"\ntags = "1"\n')
    config = load(file, {"root": root})
    backend = open_backend(root, now=clock)
    catalog = backend.open_catalog()
    catalog.migrate()
    plan, moves = catalog.observation_plan, catalog.observed_moves

    def observer_of(lock: object) -> Observer:
        return Observer(config, backend, catalog, lambda _: ClientUpstream(UP), lock)  # type: ignore[arg-type]

    with backend.coordination.only_one(Job.OBSERVATION) as lock:
        observer = observer_of(lock)
        observer.plan()
        (due,) = plan.due(NAME, clock.now, limit=10)
        plan.reschedule(type(due)(NAME, "1", MINUTE, clock.now + MINUTE))
        catalog.pull_through.put(NAME, image(catalog, NAME), tag="1", origin=Origin("mirror:up.test"))
        (move,) = moves.unfinished(clock.now, limit=10)
        moves.postpone(move, due_at=clock.now + MINUTE)
        observer.plan()
        assert plan.due(NAME, clock.now, limit=10) == []
        clock.now -= 24 * 60 * MINUTE
        observer.plan()
        assert len(plan.due(NAME, clock.now, limit=10)) == 1
        assert len(moves.unfinished(clock.now, limit=10)) == 1
        # One that begins after the clock was set has not seen the earlier time.
        plan.reschedule(type(due)(NAME, "1", MINUTE, clock.now + 24 * 60 * MINUTE))
        observer.stop()
        following = observer_of(lock)
        following.plan()
        assert len(plan.due(NAME, clock.now, limit=10)) == 1
        following.stop()
    catalog.close()


UP = UpstreamOptions("up.test", "http://127.0.0.1:1")
