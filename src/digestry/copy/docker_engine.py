"""Images to and from a docker engine, by the API calls of ``docker save`` and ``docker load``."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

from digestry.copy.archive import ArchiveTarget
from digestry.copy.scratch_file import new_scratch_file
from digestry.errors import (
    ProtocolViolation,
    Refused,
    RemoteNotFound,
    Unreachable,
)
from digestry.fsio import storage_errors
from digestry.inventory.engines.connections import connection_to
from digestry.inventory.engines.endpoints import Endpoint, docker_endpoint
from digestry.model.text import printable

_SILENCE: Final = 600.0
"""Seconds without a byte: an engine that compresses or unpacks a large image sends nothing meanwhile."""
_CHUNK: Final = 1 << 20
_LARGEST_MESSAGE: Final = 64 << 10
_LARGEST_ANSWER: Final = 16 << 20


def save_from_engine(name: str, directory: Path) -> Path:
    """Write the image ``name`` of the docker engine into a file of ``directory``, and return its path.

    The caller removes it. Raises :class:`RemoteNotFound`, :class:`Unreachable`, :class:`Refused` and
    :class:`StorageError`.
    """
    endpoint = docker_endpoint()
    path = new_scratch_file(directory, "from-engine")
    try:
        connection = connection_to(endpoint, _SILENCE)
        try:
            response = _ask(connection, endpoint, "GET", f"/images/{quote(name, safe='/:@')}/get")
            if response.status != 200:
                raise _refused(response, endpoint, name)
            with path.open("wb") as file, storage_errors("write", path):
                while chunk := _read(response, endpoint):
                    file.write(chunk)
        finally:
            connection.close()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _read(response: http.client.HTTPResponse, endpoint: Endpoint) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{endpoint.url}: the image ended too early: {_reason(error)}") from error


def _ask(
    connection: http.client.HTTPConnection,
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    body: Path | None = None,
) -> http.client.HTTPResponse:
    try:
        if body is None:
            connection.request(method, path)
        else:
            with body.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                headers = {"Content-Type": "application/x-tar", "Content-Length": str(size)}
                connection.request(method, path, body=file, headers=headers)
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"{endpoint.url}: {_reason(error)}", hint="is the docker engine running? see DOCKER_HOST"
        ) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _refused(response: http.client.HTTPResponse, endpoint: Endpoint, name: str) -> Refused:
    raw = response.read(_LARGEST_MESSAGE)
    try:
        message = json.loads(raw)["message"]
    except (ValueError, KeyError, TypeError):
        message = raw.decode(errors="replace")
    text = f"{endpoint.url}: {name}: {printable(str(message).strip()[:300])}"
    if response.status == 404:
        return RemoteNotFound(text, status=404)
    return Refused(text, status=response.status)


class DockerEngineTarget(ArchiveTarget):
    """The docker engine's images: an archive is written, and loaded when it is whole."""

    def __init__(self, directory: Path, description: str) -> None:
        self._endpoint = docker_endpoint()
        self._scratch = new_scratch_file(directory, "to-engine")
        super().__init__(self._scratch, description, for_docker=True)
        self.loss = "an engine without the containerd image store keeps the image ID, and not the digest"

    def finish(self) -> None:
        """Have the engine load the images. Raises :class:`Refused` and :class:`Unreachable`."""
        super().finish()
        connection = connection_to(self._endpoint, _SILENCE)
        try:
            response = _ask(connection, self._endpoint, "POST", "/images/load?quiet=1", body=self._scratch)
            if response.status != 200:
                raise _refused(response, self._endpoint, "load")
            self._check(response)
        finally:
            connection.close()

    def _check(self, response: http.client.HTTPResponse) -> None:
        """Raise :class:`Refused` if the engine says in its answer that it failed: its status came before."""
        answer = response.read(_LARGEST_ANSWER)
        for line in answer.splitlines():
            try:
                message = json.loads(line)
            except ValueError as error:
                raise ProtocolViolation(
                    f"{self._endpoint.url} did not say whether it loaded the image"
                ) from error
            if isinstance(message, dict) and "error" in message:
                raise Refused(f"{self._endpoint.url}: {printable(str(message['error'])[:300])}", status=200)

    def close(self) -> None:
        super().close()
        self._scratch.unlink(missing_ok=True)
