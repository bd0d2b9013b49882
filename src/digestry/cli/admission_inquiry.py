"""How the commands of admission ask registries: by the user's settings, and the admission file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from digestry.admission.configuration import AdmissionConfiguration
    from digestry.admission.image_knowledge import ImageKnowledge


@contextmanager
def open_inquiry(
    configuration: AdmissionConfiguration, *, timeout: float
) -> Iterator[Callable[[list[str]], Mapping[str, ImageKnowledge]]]:
    """Yield what asks registries about images; ``timeout`` is for each question, in seconds.

    Raises :class:`~digestry.errors.InvalidConfiguration`.
    """
    from dataclasses import replace

    from digestry.admission.inquiry import InquiryOptions, inquire
    from digestry.audit.configuration import FleetConfiguration
    from digestry.audit.configuration import load as load_fleet
    from digestry.cli.sessions import client_options
    from digestry.cli.settings import load
    from digestry.client.session import Session

    settings = load()
    fleet = FleetConfiguration() if configuration.fleet is None else load_fleet(configuration.fleet)
    options = replace(
        client_options(settings),
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
    how = InquiryOptions(settings.trust(), fleet.names, timeout)
    with Session(options) as session:
        yield lambda images: inquire(images, session, how)
