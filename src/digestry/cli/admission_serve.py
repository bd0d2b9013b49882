"""``digestry admission serve``: the webhook that a cluster asks before it takes an object."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


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
    with open_inquiry(configuration, timeout=max(configuration.answers.wait, 5.0)) as inquire:
        AdmissionService(file, Surroundings(inquire, sys.stdout)).run()
