"""The labels of engines, Compose, nerdctl and the kubelet that say what a container belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from digestry.model.json_types import prepared
from digestry.model.json_values import as_text

COMPOSE_PROJECT: Final = "com.docker.compose.project"
COMPOSE_IMAGE: Final = "com.docker.compose.image"
"""The label in which Compose keeps the ID of the image that it started."""

_SANDBOX: Final = "sandbox"


class ContainerLabels(msgspec.Struct, frozen=True):
    """Those labels of a container that name a project, a pod or a namespace; "" for a missing one."""

    compose_project: str = msgspec.field(default="", name=COMPOSE_PROJECT)
    pod: str = msgspec.field(default="", name="io.kubernetes.pod.name")
    pod_namespace: str = msgspec.field(default="", name="io.kubernetes.pod.namespace")
    pod_container: str = msgspec.field(default="", name="io.kubernetes.container.name")
    cri_kind: str = msgspec.field(default="", name="io.cri-containerd.kind")
    nerdctl_name: str = msgspec.field(default="", name="nerdctl/name")
    nerdctl_namespace: str = msgspec.field(default="", name="nerdctl/namespace")
    compose_service: str = msgspec.field(default="", name="com.docker.compose.service")
    swarm_service: str = msgspec.field(default="", name="com.docker.swarm.service.name")
    unit: str = msgspec.field(default="", name="PODMAN_SYSTEMD_UNIT")
    nomad_job: str = msgspec.field(default="", name="com.hashicorp.nomad.job_name")

    @property
    def is_sandbox(self) -> bool:
        """Whether the container is a pod's sandbox, in containerd."""
        return self.cri_kind == _SANDBOX

    @property
    def containerd_name(self) -> str:
        """The name that containerd's client or the kubelet gave the container, with its pod's before it."""
        name = "(sandbox)" if self.is_sandbox else self.nerdctl_name or self.pod_container
        return self.in_pod(name)

    @property
    def workload(self) -> str:
        """What the container is a part of, as ``kind/name``; "" if the labels do not say."""
        if self.compose_service:
            project = f"{self.compose_project}/" if self.compose_project else ""
            return f"compose/{project}{self.compose_service}"
        named = (
            ("service", self.swarm_service),
            ("unit", self.unit),
            ("nomad", self.nomad_job),
            ("pod", self.pod),
        )
        return next((f"{kind}/{name}" for kind, name in named if name), "")

    def in_pod(self, name: str) -> str:
        """Return ``name`` as ``pod/name`` if the container belongs to a pod."""
        return f"{self.pod}/{name}" if self.pod else name


NO_LABELS: Final = ContainerLabels()


def read_labels(labels: Mapping[str, object]) -> ContainerLabels:
    """Return the project, pod and namespace in ``labels``, all labels of a container."""
    texts = {name: as_text(value) for name, value in labels.items()}
    return msgspec.convert(texts, prepared(ContainerLabels))
