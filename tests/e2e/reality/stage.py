"""Makes a row of the table with one runtime, and asks digestry about it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from digestry.advisories import publish
from digestry.audit.registry_queries import RegistryQueries
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.inventory.observation import now
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.docker_registry import running_docker_registry
from tests.e2e.engines import Engine
from tests.e2e.reality import images
from tests.e2e.reality.rows import Row
from tests.e2e.reality.runtimes import Containerd, Cri, Runtime
from tests.support import digestry


@dataclass
class Stage:
    """One row on one runtime. ``folder`` is what its repositories' names begin with."""

    runtime: Runtime
    registry: str
    plain: str
    folder: str
    home: str
    labels: dict[str, Digest] = field(default_factory=dict)
    made: dict[str, images.Image] = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    away: str | None = None

    def play(self, row: Row) -> None:
        """Does what the row says. A step that this runtime has no way to do ends the test."""
        for verb, *words in row.steps:
            getattr(self, f"_{verb.replace('-', '_')}")(*words)

    def audit(self) -> tuple[int, dict[str, Any]]:
        """digestry's exit code, and its report."""
        environment = {"HOME": self.home, "DIGESTRY_HOME": self.home, "DOCKER_CONFIG": self.home}
        tool = Engine(tuple(digestry("audit", "--format=json")), environment)
        done = tool.attempt(f"--source={self.runtime.source}")
        assert done.returncode in {0, 1, 3}, done.stderr
        return done.returncode, json.loads(done.stdout)

    def digest(self, label: str | None) -> str | None:
        """What a label stands for, as reports write it."""
        return None if label is None else str(self.labels[label])

    def name(self, image: str) -> str:
        """The whole reference that a row's short name stands for."""
        which, _, rest = image.rpartition("!")
        if which == "away" and self.away is None:
            self.away = self.open.enter_context(running_docker_registry())
        host = {"": self.registry, "plain": self.plain, "away": self.away}[which]
        path, at, label = rest.partition("@")
        return f"{host}/{self.folder}/{path}" + (f"@{self.labels[label]}" if at else "")

    def _image(self, label: str, *, architecture: str = images.ARCHITECTURE) -> images.Image:
        return images.made(f"{self.folder} {label}", architecture)

    def _publish(self, label: str, image: str) -> None:
        self.made[label] = self._image(label)
        self.labels[label] = images.publish(self.name(image), self.made[label])

    def _sibling(self, label: str, of: str, image: str) -> None:
        self.made[label] = images.made(f"{self.folder} {of}", note=label)
        self.labels[label] = images.publish(self.name(image), self.made[label])

    def _index(self, label: str, image: str) -> None:
        own = self._image(f"{label}-own")
        other = self._image(f"{label}-other", architecture=images.OTHER)
        self.labels |= {f"{label}-own": own.digest, f"{label}-other": other.digest}
        self.labels[label] = images.publish(self.name(image), own, other, whole=images.index(own, other))

    def _run(self, container: str, image: str) -> None:
        self._pull(image)
        self._start(container, image)

    def _start(self, container: str, image: str) -> None:
        self.runtime.run(self.name(image), container)
        self.containers.append(container)

    def _start_id(self, container: str, image: str) -> None:
        if isinstance(self.runtime, Containerd) and not isinstance(self.runtime, Cri):
            pytest.skip("a bare containerd starts containers by name only")
        self.runtime.run(self.runtime.image_id(self.name(image)), container)
        self.containers.append(container)

    def _pull(self, image: str) -> None:
        self.runtime.pull(self.name(image))

    def _forget(self, image: str) -> None:
        self.runtime.forget(self.name(image))

    def _push(self, image: str) -> None:
        self.runtime.push(self.name(image))

    def _tag(self, image: str, name: str) -> None:
        self.runtime.tag(self.name(image), self.name(name))

    def _load(self, label: str, image: str, *, layout: bool = True) -> None:
        path = self.runtime.root.scratch / "image.tar"
        path.write_bytes(images.archive(self.name(image), self.made[label], layout=layout))
        self.runtime.load(path)

    def _load_old(self, label: str, image: str) -> None:
        self._load(label, image, layout=False)

    def _build(self, image: str) -> None:
        self.runtime.build(self.name(image), f"{self.folder} built")

    def _pushed(self, label: str, image: str) -> None:
        reference = Reference.parse(self.name(image))
        with Session(ClientOptions()) as session:
            self.labels[label] = session.repository(reference).resolve(str(reference.tag)).digest

    def _untag(self, image: str) -> None:
        reference = Reference.parse(self.name(image))
        with Session(ClientOptions()) as session:
            session.repository(reference).delete(str(reference.tag))

    def _restart(self) -> None:
        self.runtime.restart(self.containers)

    def _away(self) -> None:
        self.open.close()

    def _affected(self, label: str, image: str, fixed: str | None = None) -> None:
        where = self.name(image)
        with Session(ClientOptions()) as session:
            subject = publish.find_image(session, Reference.parse(f"{where}@{self.labels[label]}"))
            fixes = (
                [] if fixed is None
                else [publish.find_image(session, Reference.parse(f"{where}@{self.labels[fixed]}"))]
            )  # fmt: skip
            statement = publish.NewStatement(f"CVE-{label}", "affected", "reality", now())
            publish.attach_statement(
                session, subject, statement, fixes, new_queries=lambda: RegistryQueries(session)
            )


@contextlib.contextmanager
def staged(runtime: Runtime, registry: str, plain: str, row: Row, home: str) -> Iterator[Stage]:
    slug = row.name.replace(" ", "-").lower()
    stage = Stage(runtime, registry, plain, f"reality/{runtime.kind.name}/{slug}", home)
    try:
        yield stage
    finally:
        stage.open.close()
        runtime.clear()
