"""How the commands of admission ask registries: by the user's settings, and the admission file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from digestry.admission.configuration import AdmissionConfiguration
    from digestry.admission.image_knowledge import ImageKnowledge
    from digestry.model.changes import Changes
    from digestry.model.digest import Digest
    from digestry.model.reference import Reference

_PAUSE = 0.5
"""The longest pause, in seconds, before a log that lacks the latest entry is looked at again."""


@dataclass(frozen=True)
class Inquirer:
    """What asks registries: ``inquire`` about images, and, if it is told to, their transparency logs;
    ``changes`` what changed in them, None if other registries may have a say about their images."""

    inquire: Callable[[list[str], bool], Mapping[str, ImageKnowledge]]
    changes: Callable[[str, str], Changes | None] | None


@contextmanager
def open_inquiry(configuration: AdmissionConfiguration, *, timeout: float) -> Iterator[Inquirer]:
    """Yield what asks registries; ``timeout`` is for each question, in seconds.

    Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    import time

    from digestry.admission.inquiry import InquiryOptions, inquire
    from digestry.admission.proof_cache import ProofCache
    from digestry.audit.configuration import FleetConfiguration
    from digestry.audit.configuration import load as load_fleet
    from digestry.cli.log_trust import open_verifier
    from digestry.cli.sessions import client_options
    from digestry.cli.settings import load
    from digestry.client.session import Session
    from digestry.verifier.tag_proof import TagProver

    settings = load()
    fleet = FleetConfiguration() if configuration.fleet is None else load_fleet(configuration.fleet)
    options = client_options(settings).replace(
        insecure_hosts=fleet.plain_hosts,
        timeout=timeout,
        connect_timeout=timeout,
        patience=timeout,
        waiting=None,
        longest_command=None,
        longest_pause=timeout / 4,
        retries=1,
        tell=None,
    )
    prover = TagProver(open_verifier(settings), sleep=lambda seconds: time.sleep(min(seconds, _PAUSE)))
    with Session(options) as session:

        def prove(reference: Reference, digest: Digest) -> None:
            prover(session.repository(reference), reference, digest)

        how = InquiryOptions(settings.trust(), fleet.names, timeout, ProofCache(prove))
        yield Inquirer(
            lambda images, proven: inquire(images, session, how, prove=proven),
            session.changes if configuration.fleet is None else None,
        )
