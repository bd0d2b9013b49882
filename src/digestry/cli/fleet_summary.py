"""``digestry fleet summary``: count what runs, by the state of its images."""

from __future__ import annotations

from typing import Final

import click

from digestry.cli.fleet_rows import short_time
from digestry.cli.fleet_target import open_fleet, registry_option
from digestry.cli.output import json_document, json_option, printable, say, table
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of
from digestry.model.timestamps import rfc3339

_STATES: Final = ("affected", "unknown", "unjudged", "not_assessed", "fixed", "not_affected")


@click.command("summary")
@registry_option
@json_option
@timeout_option
def summary(*, registry: str | None, as_json: bool) -> None:
    """Count the containers that run, and their images, by the audit's state.

    JSON: one object with at, containers and images (numbers by state), silent_containers, places,
    silent_places, agents, silent_agents, oldest_affected (when the oldest affected container started, or
    null), unknown_hosts (the unknown containers whose images are named after registries that this one does
    not ask, by those) and registry.

    Exit code 1 if a container is affected; 3 if none is, but something is not known; 0 only if all is known.
    """
    from digestry.cli.documents import FleetCounts
    from digestry.cli.fleet_unknowns import status

    with open_fleet(registry) as asked:
        found = asked.fleet.summary()
        host = asked.host
    if as_json:
        json_document(
            FleetCounts(
                host,
                rfc3339(found.at),
                {state: found.containers.get(state, 0) for state in _STATES},
                {state: found.images.get(state, 0) for state in _STATES},
                found.silent_containers,
                found.places,
                found.silent_places,
                found.agents,
                found.silent_agents,
                None if found.oldest_affected is None else rfc3339(found.oldest_affected),
                found.unknown_hosts,
            )
        )
    else:
        rows = [
            [state.replace("_", " "), str(found.containers.get(state, 0)), str(found.images.get(state, 0))]
            for state in _STATES
            if found.containers.get(state) or found.images.get(state)
        ]
        rows.append(["all", str(sum(found.containers.values())), str(sum(found.images.values()))])
        table(["STATE", "CONTAINERS", "IMAGES"], rows)
        say()
        if found.agents:
            places = number_of(found.places, "place")
            agents = number_of(found.agents, "agent")
            say(f"{places} and {agents} have reported, as of {short_time(found.at)}.")
        if found.silent_containers:
            many = number_of(found.silent_containers, "container")
            say(f"{many} ran in places that are silent: whether they still run is not known.")
        if found.oldest_affected is not None:
            say(f"The oldest affected container runs since {short_time(found.oldest_affected)}.")
        for name, number in found.unknown_hosts.items():
            many = number_of(number, "container")
            say(
                printable(
                    f"Unknown: {many} of {name}, which the registry does not ask. If that is a name of it,"
                    f' list it in its configuration: hosts = ["{name.rpartition(":")[0] or name}"].'
                )
            )
    affected = bool(found.containers.get("affected"))
    uncertain = bool(found.containers.get("unknown")) or bool(found.silent_agents)
    raise click.exceptions.Exit(status(found, host, affected=affected, uncertain=uncertain))
