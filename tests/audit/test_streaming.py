"""Rows that share most of their text are written as if each were written alone."""

from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
import pytest

from digestry.audit.audit import audit
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import to_json
from digestry.audit.reports.values import container_row
from tests.audit.fakes import HOST, FakeRegistries
from tests.audit.test_audit import state
from tests.inventory.fakes import ARM64, START, Listed, changed, claim, image_id, sighted

APP = f"{HOST}/app"


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_every_row_is_its_own(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(to_json, "_MOST_TAILS", most)
    registries = FakeRegistries(bulk=True)
    app = registries.at(APP)
    old = app.image("one", "1")
    new = app.image("two", "1")
    state(registries, f"{APP}@{old.manifest}", "affected", f"{APP}:1")
    changes: list[dict[str, Any]] = [
        {}, {"name": "other", "host": "\u202e\x7f"},
        {"namespace": 'a"b', "id": "x"}, {"remarks": ("said", "so")},
        {"platform": ARM64}, {"seen_at": START + datetime.timedelta(days=1)}, {"image_id": None},
        {"source": "file:x"}, {"reference": f"{APP}:none"}, {"runs": False}, {"registry_named": False},
    ]  # fmt: skip
    seen = [
        changed(sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)), **change)
        for change in changes
        for one in (old, new)
    ]
    report = audit([Listed(*seen)], RegistryQueries(registries))
    text = "".join(to_json.write(report))
    assert "\u202e" not in text
    assert "\x7f" not in text
    wanted = [msgspec.to_builtins(container_row(finding)) for finding in report.findings]
    assert json.loads(text)["containers"] == wanted
    assert len(wanted) == len(seen)
