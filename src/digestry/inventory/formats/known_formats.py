"""The formats that a file of containers may have.

A new format is a class with the members of :class:`~.rows.Format`, and a line in ``FORMATS``.
"""

from __future__ import annotations

from typing import Final

from digestry.inventory.formats.apple import AppleContainer
from digestry.inventory.formats.aws_batch import BatchJob
from digestry.inventory.formats.azure import (
    AzureApp,
    AzureContainer,
    AzureExecution,
    AzureGroup,
    AzureReplica,
    AzureRevision,
)
from digestry.inventory.formats.bills_of_materials import SPDX2, SPDX3, CycloneDX
from digestry.inventory.formats.cloud_run import CloudRun
from digestry.inventory.formats.compose_file import ComposeFile
from digestry.inventory.formats.containerd import Containerd
from digestry.inventory.formats.cri import CriImageInspect, CriImages, CriInspect, CriList, CriPods
from digestry.inventory.formats.docker import (
    ComposeImages,
    DockerInspect,
    DockerList,
    ImageInspect,
    ImageList,
)
from digestry.inventory.formats.ecs import EcsContainer, EcsService, EcsTask, EcsTaskDefinition
from digestry.inventory.formats.fly import FlyMachine
from digestry.inventory.formats.image_listings import ImageListing
from digestry.inventory.formats.image_scans import ImageScan, TrivyCluster, VulnerabilityReport
from digestry.inventory.formats.inventory import Inventory
from digestry.inventory.formats.kubernetes import Kubernetes
from digestry.inventory.formats.metrics import PrometheusAnswer
from digestry.inventory.formats.nomad import NomadAllocation, NomadJob
from digestry.inventory.formats.other_documents import OtherDocument
from digestry.inventory.formats.pod_statuses import ContainerSpec, ContainerStatus, PodStatus
from digestry.inventory.formats.podman import PodmanInspect, PodmanList
from digestry.inventory.formats.rows import Format
from digestry.inventory.formats.swarm import (
    SwarmService,
    SwarmServiceList,
    SwarmTask,
    SwarmTaskList,
)

FORMATS: Final[tuple[type[Format], ...]] = (
    # In this order: the first that recognises an entry reads it.
    CycloneDX,
    SPDX2,
    SPDX3,
    CloudRun,
    OtherDocument,
    ComposeFile,
    VulnerabilityReport,
    Kubernetes,
    TrivyCluster,
    ImageScan,
    PrometheusAnswer,
    PodStatus,
    ContainerStatus,
    ContainerSpec,
    SwarmTaskList,
    SwarmTask,
    SwarmServiceList,
    SwarmService,
    EcsTask,
    EcsContainer,
    EcsTaskDefinition,
    EcsService,
    AzureGroup,
    AzureContainer,
    AzureApp,
    AzureRevision,
    AzureReplica,
    AzureExecution,
    NomadAllocation,
    NomadJob,
    FlyMachine,
    AppleContainer,
    BatchJob,
    CriList,
    CriImages,
    CriPods,
    CriImageInspect,
    CriInspect,
    ImageInspect,
    ComposeImages,
    ImageList,
    Containerd,
    PodmanInspect,
    PodmanList,
    DockerInspect,
    DockerList,
    ImageListing,
    Inventory,
)

EXPECTED: Final = (
    "expected an inventory (JSON, JSON lines, CSV), or what these print: `docker inspect`, `podman inspect`,"
    " `podman ps --format json`, `kubectl get pods -A -o json`, `crictl ps -o json`, `crictl inspect`,"
    " `ctr container info`, `nerdctl inspect`, `docker stack ps --format json`, `aws ecs describe-tasks`,"
    " `az container show`, `az containerapp revision list`, `gcloud run revisions list --format json`,"
    " `nomad alloc status -json`, `fly machine list --json`; kube-state-metrics; or a CycloneDX"
    " or SPDX bill of materials in JSON"
)
