"""``digestry audit``: formats, files, exit codes, groups, plans and rounds, as a user meets them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.audit.reports import values
from tests.support import PATIENCE, RegistryServer, digestry, run_digestry


def nothing_of_this_machine(home: Path) -> dict[str, str]:
    """An environment in which no engine answers."""
    return {
        "PATH": str(home), "HOME": str(home), "DIGESTRY_HOME": str(home / "home"),
        "DOCKER_HOST": f"unix://{home}/docker.sock", "XDG_RUNTIME_DIR": str(home),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TERM": "xterm",
    }  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return nothing_of_this_machine(tmp_path)


@pytest.fixture(scope="module")
def fleet(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inventory: one container runs the bad one, 30 the good one. Beside it, what no tag had."""
    folder = tmp_path_factory.mktemp("fleet")
    where = f"{registry.host}/cli/output/golftrack"
    bad = registry.push_image("cli/output/golftrack", "1", b"bad")
    good = registry.push_image("cli/output/golftrack", "1", b"good")
    stranger = registry.push_image("cli/output/golftrack", "nightly", b"stranger")
    added = run(
        nothing_of_this_machine(folder), "advisory", "add", f"{where}@{bad}", "--status", "affected",
        "--id", "CVE-1", "--fixed-by", str(good),
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    rows = [{"host": "n1", "name": "bad", "reference": f"{where}:1", "digest": str(bad)}]
    rows += [
        {"host": "n2", "name": f"g{n}", "reference": f"{where}:1", "digest": str(good)} for n in range(30)
    ]
    path = folder / "fleet.json"
    path.write_text(json.dumps(rows))
    (folder / "good.json").write_text(json.dumps(rows[1:]))
    odd = {"host": "n3", "name": "odd", "reference": f"{where}:1", "digest": str(stranger)}
    (folder / "never.json").write_text(json.dumps([odd]))
    (folder / "moved.json").write_text(json.dumps([{**odd, "digest": str(bad)}]))
    return path


def run(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_digestry(*arguments, env=environment, given=stdin, timeout=60)  # fmt: skip


@pytest.mark.long
def test_bad_ones_among_many_come_first_and_the_rest_is_a_line(
    environment: dict[str, str], fleet: Path
) -> None:
    done = run(environment, "audit", "--source", f"file:{fleet}")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[2].startswith("VULNERABLE   bad")
    assert re.match(r"FIXED +30 containers +n2 ", lines[3])
    assert max(map(len, lines[:4])) <= 100
    every = run(environment, "audit", "--source", f"file:{fleet}", "--all-rows").stdout
    assert all(f" g{n} " in every for n in range(30))
    by_host = run(environment, "audit", "--source", f"file:{fleet}", "--by", "host").stdout.splitlines()
    assert by_host[1] == "n1: 1 container: 1 vulnerable"


@pytest.mark.long
def test_formats_to_standard_output(environment: dict[str, str], fleet: Path) -> None:
    starts = {
        "json": '{\n"version": 1', "csv": '"row","host"', "sarif": '{"$schema"', "junit": "<?xml",
        "markdown": "### 🔴 digestry audit", "html": "<!doctype html>", "table": "STATE",
    }  # fmt: skip
    for name, start in starts.items():
        done = run(environment, "audit", "--source", f"file:{fleet}", "--format", name)
        assert done.returncode == 1
        assert done.stdout.startswith(start)
        assert done.stderr == ""
    html = run(environment, "audit", "--source", f"file:{fleet}", "--format", "html").stdout
    assert 'class="bar"' in html


@pytest.mark.long
def test_a_files_ending_tells_the_format_and_the_summary_is_still_said(
    environment: dict[str, str], fleet: Path, tmp_path: Path
) -> None:
    for ending, start in (
        (".json", "{"),
        (".csv", '"row"'),
        (".sarif", "{"),
        (".xml", "<?xml"),
        (".md", "###"),
    ):
        path = tmp_path / f"report{ending}"
        done = run(environment, "audit", "--source", f"file:{fleet}", "--output", str(path))
        assert done.returncode == 1
        assert done.stdout == ""
        assert "31 containers: 1 vulnerable, 30 fixed" in done.stderr
        assert path.read_text().startswith(start)
    with (tmp_path / "report.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 32
    assert not list(tmp_path.glob(".report*"))


def test_a_file_that_cannot_be_written_is_storages_fault(
    environment: dict[str, str], fleet: Path, tmp_path: Path
) -> None:
    done = run(environment, "audit", "--source", f"file:{fleet}", "--output", str(tmp_path / "no" / "x.json"))
    assert done.returncode == 6
    assert "cannot write" in done.stderr


def test_a_device_is_written_to(environment: dict[str, str], fleet: Path) -> None:
    done = run(
        environment, "audit", "--source", f"file:{fleet}", "--format", "json", "--output", "/dev/stdout"
    )
    assert json.loads(done.stdout)["version"] == 1


@pytest.mark.parametrize(
    ("inventory", "fail_on", "status"),
    [
        ("fleet", "affected", 1),
        ("fleet", "none", 0),
        ("fleet", "never,unknown", 0),
        ("good", "affected,never,moved,unknown", 0),
        ("never", "affected", 0),
        ("never", "never", 1),
        ("never", "not-from-tag", 1),
        ("never", "not-assessed", 1),
        ("never", "not_assessed", 1),
        ("good", "not-assessed", 0),
        ("moved", "moved", 1),
    ],
)
def test_what_fails_an_audit_can_be_chosen(
    environment: dict[str, str], fleet: Path, inventory: str, fail_on: str, status: int
) -> None:
    source = f"file:{fleet.with_name(f'{inventory}.json')}"
    assert run(environment, "audit", "--source", source, "--fail-on", fail_on).returncode == status


def test_something_unseen_is_3_unless_something_was_found(environment: dict[str, str], fleet: Path) -> None:
    sources = ("--source", f"file:{fleet}", "--source", "docker:unix:///nowhere.sock")
    assert run(environment, "audit", *sources).returncode == 1
    assert run(environment, "audit", *sources, "--fail-on", "none").returncode == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fail-on", "everything"), ("--fail-on", ""), ("--fail-on", "none,moved"), ("--format", "pdf"),
        ("--by", "colour"), ("--fix-plan", "--format", "csv"), ("--watch", "--format", "html"),
        ("--watch", "0.1"), ("--config", "/nowhere/fleet.toml"),
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = run(environment, "audit", "--source", "file:-", *arguments, stdin="[]")
    assert done.returncode == 2, done.stdout


def test_the_schema_is_printed_without_asking_anybody(environment: dict[str, str]) -> None:
    done = run(environment, "audit", "--schema")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(values.schema()))


def test_the_plan_is_written_and_not_run(environment: dict[str, str], fleet: Path) -> None:
    done = run(environment, "audit", "--source", f"file:{fleet}", "--fix-plan")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("# What would fix")
    assert lines[2].startswith("# VULNERABLE: bad on n1 (")
    assert all(not line or line.startswith("#") for line in lines)
    document = json.loads(
        run(environment, "audit", "--source", f"file:{fleet}", "--fix-plan", "--format", "json").stdout
    )
    assert "fix" in document["containers"][0]
    assert "fix" not in document["containers"][1]


def test_a_fleet_file_names_the_sources(environment: dict[str, str], fleet: Path, tmp_path: Path) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text(f'[[source]]\nkind = "file"\nwhere = "{fleet}"\nname = "berlin"\nhost = "b1"\n')
    done = run(environment, "audit", "--config", str(config), "--format", "json")
    assert done.returncode == 1, done.stderr
    assert {one["source"] for one in json.loads(done.stdout)["containers"]} == {"berlin"}
    assert {one["host"] for one in json.loads(done.stdout)["containers"]} == {"b1"}


# -- rounds -------------------------------------------------------------------------------------


@contextlib.contextmanager
def watching(
    environment: dict[str, str], *arguments: str, terminal: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    out = subprocess.PIPE if terminal is None else terminal
    process = subprocess.Popen(
        digestry("audit", "--watch", "1", *arguments), env=environment, stdout=out, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_rounds_go_on_and_end_with_130(environment: dict[str, str], fleet: Path) -> None:
    with watching(environment, "--source", f"file:{fleet}") as process:
        assert process.stdout is not None
        seen = b""
        while seen.count(b"31 containers: 1 vulnerable") < 2:
            seen += os.read(process.stdout.fileno(), 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 130
    assert re.findall(rb"^== \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, every 1 s$", seen, re.MULTILINE)
    assert b"\x1b" not in seen


@pytest.mark.long
def test_rounds_go_on_after_a_failure(environment: dict[str, str], fleet: Path, tmp_path: Path) -> None:
    output = tmp_path / "later" / "report.json"
    with watching(environment, "--source", f"file:{fleet}", "--output", str(output)) as process:
        assert process.stderr is not None
        seen = b""
        while b"cannot write" not in seen:
            seen += os.read(process.stderr.fileno(), 65536)
        output.parent.mkdir()
        end = time.monotonic() + PATIENCE
        while not output.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert json.loads(output.read_bytes())["summary"]["containers"] == 31


@pytest.mark.long
def test_a_terminal_is_drawn_anew(environment: dict[str, str], fleet: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        environment["COLUMNS"], environment["LINES"] = "80", "12"
        with watching(environment, "--source", f"file:{fleet}", "--all-rows", terminal=theirs):
            seen = b""
            while seen.count(b"\x1b[H") < 3:
                seen += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    first = seen.split(b"\x1b[H")[1].decode()
    assert "VULNERABLE" in first
    assert "more lines" in first
    assert first.count("\n") <= 11
    assert (
        first.rstrip()
        .removesuffix("\x1b[J")
        .rstrip()
        .removesuffix("\x1b[K")
        .endswith("1 vulnerable, 30 fixed")
    )


@pytest.mark.long
def test_the_table_is_as_wide_as_the_terminal(environment: dict[str, str], fleet: Path) -> None:
    for width in (60, 140):
        ours, theirs = pty.openpty()
        try:
            environment["COLUMNS"] = str(width)
            process = subprocess.Popen(
                digestry("audit", "--source", f"file:{fleet}"), env=environment, stdout=theirs
            )
            process.wait(timeout=60)
            shown = io.StringIO(os.read(ours, 1 << 16).decode(errors="replace"))
        finally:
            os.close(ours)
            os.close(theirs)
        rows = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown][:4]
        assert max(map(len, rows)) <= width
        assert (max(map(len, rows)) > 100) is (width == 140)


@pytest.mark.long
def test_the_table_in_a_pipe_is_as_wide_as_columns_says(environment: dict[str, str], fleet: Path) -> None:
    for width in (60, 140):
        environment["COLUMNS"] = str(width)
        done = subprocess.run(
            digestry("audit", "--source", f"file:{fleet}"),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        rows = done.stdout.splitlines()[:4]
        assert max(map(len, rows)) <= width
        assert (max(map(len, rows)) > 100) is (width == 140)
