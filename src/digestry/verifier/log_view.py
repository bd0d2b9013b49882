"""A registry's log as it is now: its latest checkpoint, verified, and compared with the one seen before."""

from __future__ import annotations

import base64
import contextlib
import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from digestry.client.transparency_log import TransparencyLog
from digestry.errors import ContentError, LogContradiction, RemoteError, Unproven
from digestry.model.timestamps import rfc3339
from digestry.translog.checkpoints import Checkpoint, SignedCheckpoint, open_checkpoint
from digestry.translog.cosignatures import Cosignature, cosignatures
from digestry.translog.log_keys import LogKeys, declared_keys
from digestry.translog.merkle import consistency_proof
from digestry.translog.notes import InvalidNote, UnsignedNote, VerifierKey, parse_verifier_key
from digestry.verifier.seen_logs import HostRecords, SeenLog, SeenLogs, TrustedKey
from digestry.verifier.trust import LogTrust, TrustOf
from digestry.verifier.verified_tiles import VerifiedTiles

Now = Callable[[], datetime.datetime]
_OLDER: Final = (0.2, 0.5, 1.0, 2.0)
"""Pauses in seconds while a node still shows an older checkpoint than another node did."""
_ATTEMPTS: Final = 10
_AHEAD: Final = datetime.timedelta(minutes=5)
"""So much may a witness's clock be ahead of ours."""


def utc_now() -> datetime.datetime:
    """Return the time now."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class LogView:
    """A checkpoint that was verified: signed by a trusted key, cosigned as required, and consistent with
    ``before``, the last one that was seen; None if none was."""

    log: TransparencyLog
    checkpoint: Checkpoint
    note: bytes
    tiles: VerifiedTiles
    keys: tuple[TrustedKey, ...]
    cosignatures: tuple[Cosignature, ...]
    before: SeenLog | None
    records: HostRecords
    seen_at: datetime.datetime

    @property
    def host(self) -> str:
        """The registry, ``host[:port]``."""
        return self.log.host

    @property
    def size(self) -> int:
        """The number of the log's entries."""
        return self.checkpoint.size

    @property
    def witnessed_at(self) -> datetime.datetime | None:
        """When the latest cosignature was made; None without any."""
        if not self.cosignatures:
            return None
        latest = max(each.seconds for each in self.cosignatures)
        return datetime.datetime.fromtimestamp(latest, datetime.UTC)


class LogVerifier:
    """Verifies logs of registries, and keeps in ``seen`` what it saw of them. Thread-safe.

    ``trust`` returns whose signatures a log must have, by its registry's ``host[:port]``; by default the key
    that a registry shows first is trusted. ``tell`` is called with a sentence for the user, such as that a
    key is trusted from now on.
    """

    def __init__(
        self,
        seen: SeenLogs,
        trust: TrustOf | None = None,
        *,
        now: Now = utc_now,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.seen = seen
        self._trust = trust or (lambda _: LogTrust())
        self._now = now
        self.tell = tell or (lambda _: None)

    def now(self) -> datetime.datetime:
        """Return the time now."""
        return self._now()

    def view(self, log: TransparencyLog) -> LogView:
        """Return the log as it is now, and keep that it was seen.

        Raises :class:`LogContradiction` for a log that does not continue what was seen before, or is not
        signed by a trusted key, :class:`Unproven` for one that does not prove it, :class:`InvalidNote` for a
        checkpoint that is none, :class:`RemoteError` for a registry without a log, and
        :class:`~digestry.errors.StorageError`.
        """
        records = self.seen.of(log.host)
        for _ in range(_ATTEMPTS):
            before = records.read()
            view = self._look(log, records, before)
            self._check_elsewhere(view)
            with records.locked():
                latest = records.read()
                if latest is not None and latest != before:
                    if latest.size > view.size:
                        continue  # another process has seen more meanwhile
                    self._check_continues(view, latest)
                seen = SeenLog(
                    view.checkpoint.origin,
                    view.keys,
                    view.size,
                    view.checkpoint.root.hex(),
                    view.note.decode(),
                    view.seen_at,
                )
                if latest is None or (latest.size, latest.keys) != (seen.size, seen.keys):
                    records.write(seen)
            return view
        raise Unproven(f"{log.host} shows an older checkpoint again and again", hint="try again")

    # -- one checkpoint -----------------------------------------------------------------------

    def _look(self, log: TransparencyLog, records: HostRecords, before: SeenLog | None) -> LogView:
        trust = self._trust(log.host)
        note = b""
        for pause in (*_OLDER, None):
            shown = log.checkpoint()
            if shown is None:
                raise self._without_log(log.host, before)
            note = shown
            signed, keys = self._opened(log, records, before, trust, note)
            checkpoint = signed.checkpoint
            if before is None or checkpoint.size >= before.size:
                break
            if pause is None:
                raise self._contradiction(
                    records,
                    before,
                    note,
                    f"the log of {log.host} was rolled back: it has {checkpoint.size} entries, and at "
                    f"{rfc3339(before.at)} it had {before.size}",
                )
            time.sleep(pause)
        tiles = VerifiedTiles(checkpoint.size, checkpoint.root, log.fetch)
        witnesses = self.witnessed(f"the checkpoint of the log of {log.host}", signed, trust)
        view = LogView(log, checkpoint, note, tiles, keys, tuple(witnesses), before, records, self._now())
        if before is not None:
            self._check_continues(view, before)
        return view

    def _without_log(self, host: str, before: SeenLog | None) -> Exception:
        if before is None:
            return RemoteError(
                f"{host} has no transparency log, or has not signed it yet",
                hint="a digestry registry signs its journal, unless [transparency] in its configuration turns"
                " that off (docs/transparency.md)",
            )
        return LogContradiction(
            f"{host} has no log any more: at {rfc3339(before.at)} it had one with {before.size} entries",
            hint="ask its operator; nothing that it says can be verified",
        )

    def _opened(
        self,
        log: TransparencyLog,
        records: HostRecords,
        before: SeenLog | None,
        trust: LogTrust,
        note: bytes,
    ) -> tuple[SignedCheckpoint, tuple[TrustedKey, ...]]:
        """Return the checkpoint, and the keys that are trusted after it."""
        now = self._now()
        if trust.keys:
            origin = trust.keys[0].name
            signed = self._open(records, before, note, origin, trust.keys)
            return signed, tuple(TrustedKey(str(key), now, "given") for key in trust.keys)
        if before is not None:
            known = tuple(parse_verifier_key(key.vkey) for key in before.keys)
            try:
                return open_checkpoint(note, before.origin, known), before.keys
            except UnsignedNote:
                trusted = (*before.keys, *self._declared(log, before, known))
                keys = tuple(parse_verifier_key(key.vkey) for key in trusted)
                return self._open(records, before, note, before.origin, keys), trusted
        shown = log.keys()
        signed = open_checkpoint(note, shown.origin, _keys_of(shown))
        trusted = tuple(TrustedKey(str(key), now, "first use") for key in signed.signatures)
        for key in trusted:
            self.tell(f"the key of the log of {log.host} is trusted from now on: {key.vkey}")
        return signed, trusted

    def _open(
        self,
        records: HostRecords,
        before: SeenLog | None,
        note: bytes,
        origin: str,
        keys: tuple[VerifierKey, ...],
    ) -> SignedCheckpoint:
        try:
            return open_checkpoint(note, origin, keys)
        except InvalidNote as error:
            message = f"the checkpoint of the log of {records.host} is not to be trusted: {error.message}"
            hint = (
                "if its operator says that the key was replaced, give the new one, which he tells you:"
                " --log-key, or log-key of its block in the settings"
            )
            if before is None:
                raise Unproven(message, hint=hint) from error
            raise self._contradiction(records, before, note, message, hint=hint) from error

    def _declared(
        self, log: TransparencyLog, before: SeenLog, known: Sequence[VerifierKey]
    ) -> list[TrustedKey]:
        """Return the keys that trusted keys declare to be the log's as well, directly or one by one."""
        shown = log.keys()
        found = declared_keys(shown, before.origin, known)
        for key in found:
            self.tell(f"the key of the log of {log.host} was replaced, as the one before declares: {key}")
        return [TrustedKey(str(key), self._now(), "rotated") for key in found]

    def witnessed(self, what: str, signed: SignedCheckpoint, trust: LogTrust) -> list[Cosignature]:
        """Return the cosignatures of trusted witnesses. Raises :class:`Unproven` for less than is required;
        ``what`` names the checkpoint."""
        now = self._now()
        latest = int((now + _AHEAD).timestamp())
        try:
            found = cosignatures(signed.note, trust.witnesses, latest=latest)
        except InvalidNote as error:
            raise Unproven(f"{what}: {error.message}") from error
        if len(found) < trust.quorum:
            names = ", ".join(each.key.name for each in found) or "none"
            raise Unproven(
                f"{what} has cosignatures of {len(found)} of the {len(trust.witnesses)} witnesses ({names}),"
                f" and {trust.quorum} are required",
                hint="witnesses may be away: try again later",
            )
        if trust.longest_ago is not None:
            enough = sorted((each.seconds for each in found), reverse=True)[trust.quorum - 1]
            at = datetime.datetime.fromtimestamp(enough, datetime.UTC)
            if now - at > trust.longest_ago:
                raise Unproven(
                    f"{what} was cosigned at {rfc3339(at)} last, which is longer ago than is allowed",
                    hint="the registry may be showing an old state, or its witnesses are away",
                )
        return found

    # -- two checkpoints ----------------------------------------------------------------------

    def _check_continues(self, view: LogView, seen: SeenLog) -> None:
        """Raise unless the log continues the checkpoint that was seen."""
        host = view.host
        if view.checkpoint.origin != seen.origin:
            raise self._contradiction(
                view.records,
                seen,
                view.note,
                f"the log of {host} is another one, {view.checkpoint.origin}; before, it was {seen.origin}",
            )
        if seen.size == view.size:
            root = view.checkpoint.root
        else:
            try:
                root = view.tiles.root_of(seen.size)
            except ContentError as error:
                message = (
                    f"the log of {host} does not prove that its {view.size} entries continue the {seen.size}"
                    f" that it had at {rfc3339(seen.at)}: {error.message}"
                )
                kept = self._keep(view.records, seen, view.note, message, {})
                raise Unproven(message, hint=f"both checkpoints are kept in {kept}") from error
        if root.hex() == seen.root:
            return
        proof = consistency_proof(seen.size, view.size, view.tiles) if seen.size != view.size else []
        lines = "".join(f"{base64.b64encode(each).decode()}\n" for each in proof)
        raise self._contradiction(
            view.records,
            seen,
            view.note,
            f"the log of {host} was forked: its first {seen.size} entries are others than at "
            f"{rfc3339(seen.at)}",
            proof=lines.encode(),
        )

    def _check_elsewhere(self, view: LogView) -> None:
        """Raise if another registry showed another history of this log, signed by the same key: two copies of
        a registry that both go on, or a registry that has more than one history."""
        others = self.seen.with_origin(view.checkpoint.origin, skip_damaged=True)
        for host, seen in others.items():
            same = {key.vkey for key in seen.keys} & {key.vkey for key in view.keys}
            if host == view.host or not same or seen.size > view.size:
                continue  # a shorter one is compared once the other is looked at
            if view.tiles.root_of(seen.size).hex() != seen.root:
                raise self._contradiction(
                    view.records,
                    seen,
                    view.note,
                    f"the log {view.checkpoint.origin} was forked: {host} showed other first {seen.size}"
                    f" entries at {rfc3339(seen.at)} than {view.host} does, under the same key",
                )

    def _contradiction(
        self,
        records: HostRecords,
        seen: SeenLog,
        note: bytes,
        message: str,
        *,
        proof: bytes = b"",
        hint: str = "",
    ) -> LogContradiction:
        kept = self._keep(records, seen, note, message, {"consistency.proof": proof} if proof else {})
        told = f"both checkpoints are kept in {kept}"
        return LogContradiction(
            message,
            hint=f"{hint}; {told}" if hint else f"trust nothing of it, and tell others: {told}",
            evidence=str(kept),
        )

    def _keep(
        self, records: HostRecords, seen: SeenLog, note: bytes, message: str, more: dict[str, bytes]
    ) -> object:
        files = {"seen.checkpoint": seen.checkpoint.encode(), "shown.checkpoint": note, **more}
        keys = "".join(f"{key.vkey}\n" for key in seen.keys).encode()
        return records.keep_evidence(message, {**files, "log.keys": keys}, self._now())


def _keys_of(shown: LogKeys) -> list[VerifierKey]:
    """Return the keys of the log's name that can be read; the others cannot have signed it."""
    found = []
    for stated in shown.keys:
        with contextlib.suppress(InvalidNote):
            found.append(parse_verifier_key(stated.key))
    return [key for key in found if key.name == shown.origin]
