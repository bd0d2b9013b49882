"""The list of the registry's maintenance jobs.

It is a module of its own, because the maintenance process imports it: that process does not load the request
handlers, which would take longer than the rest of its start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from digestry.backend import Backend
from digestry.registry.config import RegistryConfig
from digestry.registry.maintenance import Job

_SETTLED_SECONDS: Final = 60.0
"""After a start clients have the disk to themselves for so long."""

MakeFurtherJobs: TypeAlias = Callable[[RegistryConfig, Backend], Sequence[Job]]
"""Makes the jobs that whoever composes the server adds to the registry's own."""


def no_further_jobs(_config: RegistryConfig, _backend: Backend) -> Sequence[Job]:
    """Return no jobs."""
    return ()


def jobs(config: RegistryConfig, further: MakeFurtherJobs = no_further_jobs) -> list[Job]:
    """Return the jobs of this registry, and the ``further`` ones. Called in the maintenance process."""
    from digestry.registry.disk_reserve import ReserveJob, reserve_of  # noqa: PLC0415
    from digestry.registry.fleet_upkeep import FleetUpkeepJob  # noqa: PLC0415
    from digestry.registry.garbage_collection import CollectionJob  # noqa: PLC0415 - the server needs none of it
    from digestry.registry.log_signing import LogJob  # noqa: PLC0415
    from digestry.registry.log_witnesses import WitnessesJob  # noqa: PLC0415
    from digestry.registry.observability.audit_events import DamageEvents  # noqa: PLC0415
    from digestry.registry.observability.audit_log import AuditLog, RotationJob  # noqa: PLC0415
    from digestry.registry.observability.store_size import StoreSizeJob  # noqa: PLC0415
    from digestry.registry.scrub import ScrubJob  # noqa: PLC0415
    from digestry.registry.store_identity import IdentityJob  # noqa: PLC0415

    backend = config.backend()
    logged = config.transparency.enabled and not config.read_only
    audit = AuditLog(config.log, config.scratch)
    return [
        *([] if config.read_only else [CollectionJob(config, backend, audit=audit)]),
        ScrubJob(backend, config.scrub, first=_SETTLED_SECONDS, note=DamageEvents(audit)),
        *([StoreSizeJob(config, backend, audit)] if config.metrics.enabled else []),
        RotationJob(config.log, config.scratch),
        ReserveJob(reserve_of(backend)),
        *([] if config.read_only else [IdentityJob(backend)]),
        *([] if config.read_only else [FleetUpkeepJob(config, backend)]),
        *([LogJob(config, backend)] if logged else []),
        *([WitnessesJob(config, backend)] if logged and config.transparency.witnesses else []),
        *further(config, backend),
    ]
