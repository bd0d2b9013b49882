"""digestry beside docker-registry 2.8.2 (distribution), on this machine, in this run.

Each figure is the median of interleaved rounds: first the one, then the other, then again, so that
what else the machine does hits both. Needs ``docker-registry``, ``wrk`` and ``hyperfine``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import RegistryServer, digestry, free_port, start_registry, wait_until

from digestry.model.digest import Digest

SIZE = 200 << 20
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Row:
    """One comparison. ``goal`` is the least ratio to the peer that is wanted."""

    what: str
    unit: str
    ours: float
    theirs: float
    goal: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@contextlib.contextmanager
def docker_registry(directory: Path) -> Iterator[RegistryServer]:
    """The peer, with its usual file storage."""
    port = free_port()
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {accesslog: {disabled: true}, level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    server = RegistryServer(f"127.0.0.1:{port}", process, directory)

    def answers() -> bool:
        try:
            return server.request("GET", "/v2/").status == 200
        except OSError:
            return False

    wait_until(answers, seconds=20, what="docker-registry's start")
    try:
        yield server
    finally:
        process.terminate()
        process.wait()


def push_small_image(server: RegistryServer) -> None:
    """``bench/small:1``, through the API that every registry has."""
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    contents = {"config": b"{}", "layer": b"x" * 1600}
    described = {}
    for name, content in contents.items():
        digest, _ = put_blob(server, content)
        kind = "config.v1+json" if name == "config" else "layer.v1.tar"
        described[name] = {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": str(digest),
            "size": len(content),
        }
    server.push_manifest(
        "bench/small", "1", {**manifest, "config": described["config"], "layers": [described["layer"]]}
    )


def put_blob(server: RegistryServer, content: bytes) -> tuple[Digest, float]:
    """POST and PUT; returns the digest and the seconds that the PUT took."""
    digest = Digest.of(content)
    location = server.request("POST", "/v2/bench/small/blobs/uploads/").headers["location"]
    path = location[location.index("/v2/") :]
    path += ("&" if "?" in path else "?") + f"digest={digest}"
    began = time.perf_counter()
    answer = server.request("PUT", path, content, {"Content-Type": "application/octet-stream"})
    took = time.perf_counter() - began
    assert answer.status == 201, answer.body
    return digest, took


def get_blob(server: RegistryServer, digest: Digest) -> float:
    """Seconds to receive a blob."""
    buffer = bytearray(_BUFFER)
    received = 0
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", f"/v2/bench/small/blobs/{digest}")
    answer = connection.getresponse()
    while count := answer.readinto(buffer):
        received += count
    took = time.perf_counter() - began
    connection.close()
    assert received == SIZE
    return took


def manifest_rate(server: RegistryServer, seconds: int) -> float:
    """Requests a second, by ``wrk -t1 -c16``."""
    url = f"http://{server.host}/v2/bench/small/manifests/1"
    # docker-registry refuses to serve an OCI manifest to who does not say that it is wanted.
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-H", accept, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found is not None, output
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if refused:
        total = re.search(r"(\d+) requests in", output)
        share = int(refused[1]) / int(total[1]) if total else 1.0
        print(f"  ({server.host} refused {share:.1%} of the requests)")
    return float(found[1])


def compare(
    pair: tuple[RegistryServer, RegistryServer],
    rounds: int,
    measure: Callable[[RegistryServer], float],
    *,
    what: str,
    unit: str,
    goal: float,
) -> Row:
    """Measures both, in turns."""
    results: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for server, figures in zip(pair, results, strict=True):
            figures.append(measure(server))
    return Row(what, unit, statistics.median(results[0]), statistics.median(results[1]), goal)


def images_seconds(directory: Path, server: RegistryServer) -> float:
    """How long ``digestry images`` takes, start to end, with one image in the store."""
    environment = {**os.environ, "DIGESTRY_HOME": str(directory / "home")}
    tree = directory / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    pack = digestry("pack", tree, "--tag", f"{server.host}/bench/packed:1")
    subprocess.run(pack, env=environment, check=True, capture_output=True)
    took = []
    for _ in range(15):
        began = time.perf_counter()
        subprocess.run(digestry("images"), env=environment, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of each figure")
    parser.add_argument("--seconds", type=int, default=5, help="of load for each request rate")
    arguments = parser.parse_args()
    lacking = [name for name in ("docker-registry", "wrk") if shutil.which(name) is None]
    if lacking:
        print(f"make bench needs {' and '.join(lacking)} on the PATH", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="digestry-bench-") as name:
        directory = Path(name)
        (directory / "peer").mkdir()
        ours = start_registry(directory / "ours")
        try:
            with docker_registry(directory / "peer") as theirs:
                pair = (ours, theirs)
                rows = measure_all(pair, arguments.rounds, arguments.seconds)
            images = images_seconds(directory, ours)
        finally:
            ours.stop()
    report(rows, images)
    return 0


def measure_all(pair: tuple[RegistryServer, RegistryServer], rounds: int, seconds: int) -> list[Row]:
    for server in pair:
        push_small_image(server)
    rows = [
        compare(
            pair,
            rounds,
            lambda server: manifest_rate(server, seconds),
            what="GET manifest by tag (wrk -t1 -c16)",
            unit="/s",
            goal=10,
        )
    ]
    # Random, and new each time: neither may know the blob already.
    blobs: dict[str, Digest] = {}

    def put(server: RegistryServer) -> float:
        blobs[server.host], took = put_blob(server, os.urandom(SIZE))
        return SIZE / took / 1e9

    def get(server: RegistryServer) -> float:
        return SIZE / get_blob(server, blobs[server.host]) / 1e9

    rows.append(compare(pair, rounds, put, what="PUT 200 MB blob", unit="GB/s", goal=2))
    rows.append(compare(pair, rounds, get, what="GET 200 MB blob", unit="GB/s", goal=1))
    return rows


def report(rows: list[Row], images: float) -> None:
    print(f"{'':<38}{'digestry':>12}{'docker-registry':>18}{'ratio':>9}{'goal':>9}")
    for row in rows:
        figures = f"{row.ours:,.2f}" if row.ours < 100 else f"{row.ours:,.0f}"
        others = f"{row.theirs:,.2f}" if row.theirs < 100 else f"{row.theirs:,.0f}"
        what = f"{row.what}, {row.unit}"
        print(f"{what:<38}{figures:>12}{others:>18}{row.ratio:>8.1f}x{row.goal:>8.0f}x")
    print(f"{'digestry images, ms':<38}{images * 1000:>12.0f}{'':>18}{'':>9}{'< 100':>9}")


if __name__ == "__main__":
    sys.exit(main())
