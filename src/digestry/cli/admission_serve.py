"""``digestry admission serve``: the webhook that a cluster asks before it takes an object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from digestry.admission.certificate_files import ServerCertificate
    from digestry.admission.certificate_keeper import CertificateKeeper
    from digestry.admission.configuration import AdmissionConfiguration
    from digestry.admission.namespaces import NamespaceLabels
    from digestry.inventory.kube.api import KubeAPI


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The admission file, TOML or YAML: the policy, and how it is served (docs/admission.md).",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The format of the log on standard error. Decisions are JSON on standard output.",
)
def serve(*, file: Path, log_format: Literal["text", "json"]) -> None:
    """Serve a validating webhook for Kubernetes, until SIGTERM or SIGINT.

    It answers AdmissionReviews (admission.k8s.io/v1) at /validate over TLS, from memory, which is refreshed
    by bulk queries. The file is read again when it changes, and at SIGHUP; one that is wrong is not used,
    and the one before stays. Each decision is a line of JSON on standard output. At SIGTERM it first becomes
    unready, and then answers every request that was sent.
    """
    import sys

    from digestry.admission.configuration import load
    from digestry.admission.service import AdmissionService, Surroundings
    from digestry.agent.log_lines import start_log
    from digestry.cli.admission_inquiry import open_inquiry

    start_log(log_format)
    configuration = load(file)
    with open_inquiry(configuration, timeout=max(configuration.answers.wait, 5.0)) as inquirer:
        surroundings = Surroundings(
            inquirer.inquire, sys.stdout.fileno(), inquirer.changes, _running, _certificate, _namespaces
        )
        AdmissionService(file, surroundings).run()


def _certificate(configuration: AdmissionConfiguration, used: ServerCertificate) -> CertificateKeeper:
    """Return the keeper of the certificate that the webhook makes by itself. Raises
    :class:`~digestry.errors.InvalidConfiguration`."""
    from digestry.admission.certificate_keeper import CertificateKeeper
    from digestry.admission.certificate_stores import DirectoryStore, SecretStore, TrustedAuthority

    options = configuration.certificate
    api = _api() if options.secret or options.webhook else None
    store = DirectoryStore(options.directory) if options.directory is not None else None
    return CertificateKeeper(
        store or SecretStore(_api() if api is None else api, options.secret),
        used,
        names=options.names,
        lifetime=options.lifetime,
        trusted=TrustedAuthority(api, options.webhook) if api is not None and options.webhook else None,
    )


def _running(most: int) -> list[str]:
    """Return the images of the cluster's pods. Raises :class:`~digestry.errors.DigestryError`."""
    from digestry.admission.warming import images_of_pods

    return images_of_pods(_api(), most)


def _namespaces() -> NamespaceLabels:
    """Return the labels of namespaces. Raises :class:`~digestry.errors.InvalidConfiguration`."""
    from digestry.admission.namespaces import NamespaceLabels

    return NamespaceLabels(_api())


def _api() -> KubeAPI:
    """Return the API server of the kubeconfig, or of the pod's own cluster."""
    import math

    from digestry.inventory.kube.api import KubeAPI
    from digestry.inventory.kube.config import find_access
    from digestry.inventory.kube.credentials import Credentials

    access = find_access()
    return KubeAPI(access, Credentials(access.user, access.cluster), timeout=10.0, deadline=math.inf)
