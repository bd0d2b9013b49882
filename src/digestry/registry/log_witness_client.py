"""Requests to a witness of the registry's log (C2SP ``tlog-witness``, ``add-checkpoint``)."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.errors import ContentError, DigestryError
from digestry.registry.access.fetch import Answer, ask
from digestry.registry.transparency_config import WitnessConfig
from digestry.registry.webhooks import trusting
from digestry.translog.checkpoints import parse_size
from digestry.translog.cosignatures import ADD_CHECKPOINT, SIZE_TYPE, AddCheckpoint, parse_answer
from digestry.translog.notes import Signature
from digestry.version import __version__

_LARGEST_ANSWER: Final = 256 << 10
_SHOWN: Final = 200


class WitnessFailed(DigestryError):
    """A witness did not answer, or not as the protocol says."""


class WitnessRefused(WitnessFailed):
    """A witness saw another history of this log (422)."""


@dataclass(frozen=True, slots=True)
class SawOther:
    """The witness last cosigned a checkpoint of so many entries (409)."""

    size: int


class WitnessClient:
    """Sends checkpoints to one witness."""

    def __init__(self, config: WitnessConfig) -> None:
        self.config = config
        self._tls: ssl.SSLContext | None = None

    def submit(
        self, stored: StoredCheckpoint, old_size: int, proof: Sequence[bytes]
    ) -> list[Signature] | SawOther:
        """Have a checkpoint cosigned. ``proof`` is that it continues the log of ``old_size`` entries.

        Raises :class:`WitnessRefused`, and :class:`WitnessFailed`.
        """
        name = self.config.name
        body = AddCheckpoint(old_size, tuple(proof), stored.note.encode()).encode()
        answer = self._ask(body)
        try:
            if answer.status == 200:
                text = stored.checkpoint.text
                return [found.signature for found in parse_answer(answer.content, text, self.config.keys)]
            if answer.status == 409 and answer.media_type == SIZE_TYPE:
                return SawOther(parse_size(answer.content.decode("ascii").removesuffix("\n")))
        except (ContentError, UnicodeDecodeError) as error:
            reason = error.message if isinstance(error, ContentError) else "it is not ASCII"
            raise WitnessFailed(f"the answer of the witness {name} is not valid: {reason}") from error
        said = answer.content[:_SHOWN].decode("utf-8", "replace").strip()
        if answer.status == 422:
            raise WitnessRefused(
                f"the witness {name} has cosigned another history of this log: it refuses the checkpoint of"
                f" {stored.checkpoint.size} entries ({said})"
            )
        raise WitnessFailed(f"the witness {name} answers {answer.status}: {said}")

    def _ask(self, body: bytes) -> Answer:
        url = f"{self.config.url}/{ADD_CHECKPOINT}"
        try:
            if self._tls is None and url.startswith("https:"):
                self._tls = trusting(self.config.ca)
            return ask(
                url,
                seconds=self.config.timeout,
                most=_LARGEST_ANSWER,
                body=body,
                headers={"Content-Type": "text/plain", "User-Agent": f"digestry/{__version__}"},
                tls=self._tls,
            )
        except (OSError, ValueError) as error:
            raise WitnessFailed(f"the witness {self.config.name} does not answer: {error}") from error
