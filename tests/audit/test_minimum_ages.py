"""Containers of tags with a minimum age, judged by a mirror, which is asked tag by tag."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_audit import inventory
from tests.registry.pull_through.support import upstream
from tests.registry.test_min_age import DAY, HOUR, gated_mirror, observe
from tests.support import run_digestry, wait_until


@pytest.mark.long
@pytest.mark.parametrize("aged", [True, False], ids=["an older one is served", "all are too young"])
def test_a_mirror_that_is_asked_tag_by_tag(tmp_path: Path, aged: bool) -> None:
    with upstream() as other, gated_mirror(other, tmp_path) as server:
        old = other.image("team/app", "1", layer=b"old")
        observe(server, "1", old, 30 * DAY if aged else 5 * HOUR, 4 * HOUR)
        young = other.image("team/app", "1", layer=b"young")
        observe(server, "1", young, 3 * HOUR, HOUR)
        path = "/v2/docker.io/team/app/manifests/1"
        status = 200 if aged else 403
        wait_until(lambda: server.request("GET", path).status == status, what="an answer")
        name = f"{server.host}/docker.io/team/app:1"
        seen = tmp_path / "seen.json"
        seen.write_text(
            inventory(
                {"host": "n1", "name": "young", "reference": name, "digest": str(young)},
                {"host": "n1", "name": "old", "reference": name, "digest": str(old)},
            )
        )
        done = run_digestry("audit", "--source", f"file:{seen}", "--format", "json", timeout=60)
        rows = {row["name"]: row for row in json.loads(done.stdout)["containers"]}
        # What the tag pointed to before is not in this mirror's journal: nobody pulled it.
        expected = {"young": "current", "old": "current" if aged else "unknown"}
        assert {key: row["tag_state"] for key, row in rows.items()} == expected, (done.stdout, done.stderr)
        served = f"gets the older {old}" if aged else "is refused"
        why = f"the tag points to {young}, and a pull by it {served}: the registry's minimum age"
        for row in rows.values():
            assert why in row["reasons"] or row["tag_state"] == "unknown", row["reasons"]
