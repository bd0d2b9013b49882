"""``/metrics``: sums over all worker processes, whichever is asked, and nothing that grows without bound."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from digestry.model.digest import Digest
from digestry.registry.observability.counters import REQUESTS, Counter, Family, ProcessMetrics, size_class
from digestry.registry.observability.metrics_files import MetricsSnapshot, Slot, prepare, read_all
from tests.registry.access.support import basic, guarded
from tests.registry.observability.support import Metrics, configured
from tests.registry.support import Upload
from tests.support import RegistryServer, running_registry, spawned, start_registry, wait_until


@pytest.fixture(scope="module")
def pair() -> Iterator[RegistryServer]:
    """A server with two workers."""
    with running_registry("--workers", "2") as server:
        yield server


def requests(server: RegistryServer, **labels: str) -> float:
    return Metrics(server).sum("digestry_requests_total", **labels)


def settled(server: RegistryServer, wanted: float, **labels: str) -> None:
    """Each worker publishes within a second what it counted."""
    wait_until(lambda: requests(server, **labels) == wanted, what=f"{wanted} requests of {labels}")


@pytest.mark.long
def test_the_sum_over_all_workers(pair: RegistryServer) -> None:
    pair.push_image("metrics/sum", "1")
    for _ in range(40):  # each a connection of its own: both workers get some
        assert pair.request("GET", "/v2/metrics/sum/manifests/1").status == 200
    settled(pair, 40, route="manifest", method="GET", status="200")
    settled(pair, 1, route="manifest", method="PUT", status="201")
    before = 0.0
    for _ in range(20):
        found = Metrics(pair)
        now = found.sum("digestry_requests_total", route="metrics")
        assert now >= before, "a counter went down from one worker to the other"
        before = now
        assert found.sum("digestry_requests_total", route="manifest", method="GET") == 40
    assert found.sum("digestry_processes", process="worker") == 2
    assert found.sum("digestry_request_seconds_count", route="manifest", method="GET") == 40
    assert found.sum("digestry_request_seconds_bucket", route="manifest", method="GET", le="+Inf") == 40


def test_bytes_and_times_of_blobs(pair: RegistryServer) -> None:
    content = os.urandom(100_000)
    received = Metrics(pair).sum("digestry_received_bytes_total", route="upload")
    digest = pair.push_blob("metrics/bytes", content)
    upload = Upload.begin(pair, "metrics/bytes")
    assert upload.patch(b"small").status == 202
    assert upload.put(Digest.of(b"small")).status == 201
    assert pair.request("GET", f"/v2/metrics/bytes/blobs/{digest}").body == content
    assert (
        pair.request("GET", f"/v2/metrics/bytes/blobs/{digest}", headers={"Range": "bytes=0-9"}).status == 206
    )
    assert pair.request("HEAD", f"/v2/metrics/bytes/blobs/{digest}").status == 200

    def counted() -> bool:
        found = Metrics(pair)
        return (
            found.sum("digestry_received_bytes_total", route="upload") - received == 100_005
            and found.sum("digestry_sent_bytes_total", route="blob") == 100_010
            and found.sum("digestry_upload_seconds_count", size="1MiB") == 1
            and found.sum("digestry_pull_seconds_count", size="1MiB") == 1
            and found.sum("digestry_pull_seconds_count", size="64KiB") == 1
        )

    wait_until(counted, what="the bytes")


@pytest.mark.long
def test_tags_uploads_and_the_store() -> None:
    with running_registry() as server:
        first = server.push_image("store/a", "1", b"first")
        server.push_image("store/a", "1", b"second")
        server.push_image("store/b", "1", b"first")
        server.push_manifest("store/a", "2", server.image("store/a", b"first"))
        assert server.request("DELETE", "/v2/store/a/manifests/2").status == 202
        Upload.begin(server, "store/a")
        found = Metrics(server)
        moves = {
            event: found.sum("digestry_tag_events_total", event=event)
            for event in ("created", "moved", "deleted")
        }
        assert moves == {"created": 3, "moved": 1, "deleted": 1}
        assert found.sum("digestry_uploads") == 1
        assert found.sum("digestry_quarantined_blobs") == 0
        assert found.sum("digestry_disk_free_bytes") > 0
        assert found.sum("digestry_catalog_bytes") > 4096
        assert found.sum("process_start_time_seconds") > 1.6e9
        # Another process counts the store, when the server starts and then every ten seconds.
        wait_until(lambda: Metrics(server).has("digestry_store_blobs"), what="the store's size")
        port = server.port
        assert server.stop() == 0
        again = start_registry(server.root, port=port)
        try:
            wait_until(
                lambda: Metrics(again).sum("digestry_store_journal_entries") == 5,
                what="the store's size",
            )
            found = Metrics(again)
            assert found.sum("digestry_store_repositories") == 2
            assert found.sum("digestry_store_tags") == 2
            assert found.sum("digestry_store_manifests") == 3
            assert found.sum("digestry_store_blobs") == 4
            assert found.sum("digestry_store_linked_bytes") > found.sum("digestry_store_bytes") > 0
            # Counters begin anew with the server, as Prometheus expects.
            assert found.sum("digestry_tag_events_total") == 0
            assert found.sum("digestry_requests_total", route="manifest") == 0
            again.push_manifest("store/a", "9", again.request("GET", f"/v2/store/a/manifests/{first}").body)
            assert Metrics(again).sum("digestry_tag_events_total", event="created") == 1
        finally:
            again.stop()


def test_routes_are_few_whatever_is_asked(registry: RegistryServer) -> None:
    for number in range(30):
        registry.request("GET", f"/nowhere/{number}")
        registry.request("GET", f"/v2/few/{number}/tags/list")
        registry.request(f"METHOD{number}", f"/v2/few/{number}/manifests/x")
        registry.request("GET", f"/v2/few/{number}/_digestry/x{number}")
    found = Metrics(registry)
    labels = [sample.labels for sample in found.families["digestry_requests"].samples]
    assert {label["method"] for label in labels} <= {
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
    }
    assert len({label["route"] for label in labels}) < 25
    assert found.sum("digestry_requests_total", method="other") >= 30
    assert found.sum("digestry_requests_total", route="other") >= 60
    assert "few" not in found.text


def test_routes(registry: RegistryServer) -> None:
    digest = registry.push_image("routes/x", "1")
    asked = {
        "base": "/v2/",
        "catalog": "/v2/_catalog",
        "manifest": "/v2/routes/x/manifests/1",
        "blob": f"/v2/routes/x/blobs/{digest}",
        "tags": "/v2/routes/x/tags/list",
        "referrers": f"/v2/routes/x/referrers/{digest}",
        "history": "/v2/routes/x/_oci/tag-history/1",
        "journal": "/v2/routes/x/_digestry/journal",
        "whose": f"/v2/_digestry/whose/{digest}",
        "tag": "/v2/routes/x/_digestry/tag/1?at=2100-01-01T00:00:00Z",
        "discover": "/v2/_oci/ext/discover",
        "health": "/livez",
    }
    before = Metrics(registry)
    for path in asked.values():
        assert registry.request("GET", path).status == 200, path
    after = Metrics(registry)
    for route in asked:
        name = "digestry_requests_total"
        assert (
            after.sum(name, route=route, method="GET") - before.sum(name, route=route, method="GET") == 1
        ), route


def test_open_metrics_for_who_wants_them(registry: RegistryServer) -> None:
    wanted = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
    answer = registry.request("GET", "/metrics", headers={"Accept": wanted})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = open_metrics(answer.body.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"digestry_requests", "digestry_build", "digestry_store_blobs"} <= names
    plain = registry.request("GET", "/metrics", headers={"Accept": "x/y;version=no"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert registry.request("POST", "/metrics").status == 405


@pytest.mark.long
def test_who_may_read_them() -> None:
    with guarded("", "--workers", "1") as server:
        assert server.request("GET", "/metrics").status == 401
        assert server.request("GET", "/metrics", headers=basic("alice", "wrong")).status == 401
        assert server.request("GET", "/metrics", headers=basic("alice")).status == 200  # all may do all
    rules = '[[rule]]\nwho = "bob"\nactions = "pull"\n[[rule]]\nwho = "carol"\nactions = "admin"\n'
    with guarded(rules) as server:
        assert server.request("GET", "/metrics", headers=basic("bob")).status == 403
        assert server.request("GET", "/metrics", headers=basic("carol")).status == 200
        assert server.request("GET", "/livez").status == 200
    with guarded(rules + '[metrics]\nwho = ["b*"]\n') as server:
        assert server.request("GET", "/metrics", headers=basic("bob")).status == 200
        assert server.request("GET", "/metrics", headers=basic("carol")).status == 403


@pytest.mark.long
def test_switched_off() -> None:
    with configured("[metrics]\nenabled = false\n") as server:
        assert server.request("GET", "/metrics").status == 404
        assert server.request("GET", "/readyz").status == 200
        assert list((server.root / "metrics").glob("*.slot")) == []


@pytest.mark.long
def test_a_worker_that_is_killed_takes_no_count_along() -> None:
    with running_registry("--workers", "2") as server:
        for _ in range(30):
            server.request("GET", "/v2/_catalog")
        settled(server, 30, route="catalog")
        slots = len(list((server.root / "metrics").glob("worker-*")))
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        workers = [int(pid) for pid in children.read_text().split() if not spawned(int(pid))]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)

        def whole() -> bool:
            try:
                return Metrics(server).sum("digestry_processes", process="worker") == 2
            except OSError:
                return False

        wait_until(lambda: str(workers[0]) not in children.read_text().split(), what="the worker's end")
        wait_until(whole, what="a new worker")
        assert requests(server, route="catalog") == 30
        assert len(list((server.root / "metrics").glob("worker-*"))) == slots


def test_a_file_that_somebody_reads_is_taken_over_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    prepare(tmp_path)
    Slot(tmp_path, "worker").close()
    (left,) = folder.iterdir()
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # a scrape, in the middle of it
    looked = threading.Timer(0.02, os.close, (descriptor,))
    looked.start()
    mine = Slot(tmp_path, "worker")
    looked.join()
    assert list(folder.iterdir()) == [left]
    other = Slot(tmp_path, "worker")  # mine is not taken away
    assert len(list(folder.iterdir())) == 2
    mine.close()
    other.close()


@pytest.mark.long
def test_the_page_tells_of_every_metric() -> None:
    page = (Path(__file__).parents[3] / "docs" / "observability.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`((?:digestry|process)_[a-z_]+)`", page))
    collected = "[collection]\nevery = 1\n[scrub]\nevery = 1\n"
    with configured(collected) as server:
        jobs = ("digestry_collection_runs_total", "digestry_scrub_rate", "digestry_store_tags")
        wait_until(lambda: all(map(Metrics(server).has, jobs)), what="the jobs' first runs")
        found = Metrics(server)
    names = {
        re.sub("_(bucket|sum|count|created)$", "", sample.name)
        for family in found.families.values()
        for sample in family.samples
    }
    assert names - told == set()
    # Those that need a failure, a mirror, a witness, an agent, or a request of their kind are not here.
    elsewhere = ("digestry_mirror_", "digestry_store_", "digestry_fleet_", "digestry_observed_")
    unseen = {name for name in told - names if not name.startswith(elsewhere)}
    assert unseen <= {
        "digestry_collection_failures_total",
        "digestry_collection_refused_total",
        "digestry_job_node",
        "digestry_log_cosigned_size",
        "digestry_log_witness_entries",
        "digestry_log_witness_failures_total",
        "digestry_log_witness_refuses",
        "digestry_refused_requests_total",
        "digestry_webhook_deliveries",
        "digestry_upload_seconds",
        "digestry_pull_seconds",
    }


# -- the parts ----------------------------------------------------------------------------------


def test_a_slot_is_taken_over(tmp_path: Path) -> None:
    prepare(tmp_path)
    first, second = Slot(tmp_path, "worker"), Slot(tmp_path, "worker")
    first.write(MetricsSnapshot({"a": [(("x",), [1.0])]}, {"g": [((), 5.0)]}))
    second.write(MetricsSnapshot({"a": [(("x",), [2.0])]}))
    assert sorted(lives for lives, _ in read_all(tmp_path)) == [True, True]
    first.close()
    assert sorted(lives for lives, _ in read_all(tmp_path)) == [False, True]
    other = Slot(tmp_path, "maintenance")
    assert other.inherited == MetricsSnapshot()
    third = Slot(tmp_path, "worker")
    assert third.inherited.series == {"a": [(("x",), [1.0])]}
    assert len(list(tmp_path.glob("metrics/*"))) == 3
    for slot in (second, third, other):
        slot.close()


@pytest.mark.long
def test_a_slot_that_was_being_written(tmp_path: Path) -> None:
    prepare(tmp_path)
    slot = Slot(tmp_path, "worker")
    for count in (1.0, 2.0):
        slot.write(MetricsSnapshot({"a": [((), [count])]}))
    (file,) = tmp_path.glob("metrics/*")
    content = bytearray(file.read_bytes())
    content[20] ^= 0xFF  # the second writing is in the first half
    file.write_bytes(content)
    ((_, found),) = read_all(tmp_path)
    assert found.series == {"a": [((), [1.0])]}
    with pytest.raises(OSError, match="too many"):
        slot.write(MetricsSnapshot({"a": [((str(n),), [0.0]) for n in range(100_000)]}))
    slot.close()


def test_counting_goes_on_from_what_was_inherited() -> None:
    first = ProcessMetrics()
    first.tally(("manifest", "GET", 200)).buckets[0] += 3
    first.counter(Family("c", "", ("l",))).add("x", by=2)
    second = ProcessMetrics(first.snapshot())
    second.tally(("manifest", "GET", 200)).buckets[1] += 1
    second.tally(("manifest", "BREW", 200)).buckets[1] += 1
    second.counter(Family("c", "", ("l",))).add("x")
    series = {name: dict(rows) for name, rows in second.snapshot().series.items()}
    assert series[REQUESTS.name] == {("manifest", "GET", "200"): [4], ("manifest", "other", "200"): [1]}
    assert series["c"] == {("x",): [3.0]}
    assert second.snapshot().series == second.snapshot().series


def test_a_histogram_and_what_is_counted_elsewhere() -> None:
    histogram = Counter(Family("h", "", (), (1.0, 2.0)))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.cells() == [((), [12.0, 2.0, 1.0, 1.0])]
    counter = Counter(Family("c", ""), [((), [10.0])])
    counter.reached(5)
    counter.reached(7)
    assert counter.cells() == [((), [17.0])]
    assert [size_class(size) for size in (0, 65536, 65537, 1 << 40)] == ["64KiB", "64KiB", "1MiB", "more"]
