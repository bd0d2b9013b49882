"""The labels of namespaces while the API server answers, and when it does not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from digestry.admission.namespaces import OLDEST, NamespaceLabels
from digestry.errors import Unreachable
from digestry.inventory.kube.api import KubeAPI


class Server:
    """An API server with one namespace, which answers while ``up``."""

    def __init__(self) -> None:
        self.up = True
        self.env = "lab"

    def _namespace(self) -> dict[str, Any]:
        if not self.up:
            raise Unreachable("nothing listens there")
        return {"metadata": {"name": "shop", "labels": {"env": self.env}}}

    def whole(self, *_: str, **__: str) -> tuple[list[object], str]:
        return [self._namespace()], ""

    def get(self, *_: str) -> object:
        return self._namespace()


def test_labels_that_are_old_do_not_count() -> None:
    now = [1000.0]
    server = Server()
    labels = NamespaceLabels(cast("KubeAPI", server), lambda: now[0])
    assert labels.labels("shop") is None
    labels.refresh()
    assert labels.labels("shop") == {"env": "lab"}
    server.env = "production"
    assert labels.fetch("shop") == {"env": "production"}
    server.up = False
    now[0] += OLDEST + 1
    with pytest.raises(Unreachable):
        labels.refresh()
    assert labels.labels("shop") is None
    assert labels.fetch("shop") is None
    server.up = True
    labels.refresh()
    assert labels.labels("shop") == {"env": "production"}
