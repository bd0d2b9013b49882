"""PostgreSQL's errors as errors of the registry, in words for its operator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from digestry.catalog.transactions import TransactionUndone
from digestry.errors import StorageBusy, StorageError, StorageFull

LATER: Final = "the registry goes on by itself once the database answers again"
_REACH: Final = f"see that the database is up, and that its URL names its address; {LATER}"
_LOGIN: Final = "check the user, the password and the database that its URL names, and pg_hba.conf"
_PASSING: Final = ("start", "shut", "recover", "too many", "connection", "slots", "not yet", "timeout")
"""Words of a server, or of a pooler before it, that lets nobody in for the moment."""
RESTORE: Final = "restore the database from a backup; the blobs are not touched"

# Of the table "PostgreSQL Error Codes" in PostgreSQL's manual.
_UNDONE: Final = frozenset({"40001", "40P01", "23505", "26000"})  # the last: a statement is not prepared
_MADE_ALREADY: Final = frozenset({"42P07", "42710"})
_LOCKED: Final = "55P03"
_BUSY: Final = frozenset({"57014", "53300", "53200", "53000", "25P03"})
_AWAY: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
_DISK_FULL: Final = "53100"
_READ_ONLY: Final = "25006"
_DAMAGED: Final = frozenset({"XX001", "XX002"})
_UNKNOWN_SCHEMA: Final = frozenset({"42P01", "42703"})
_REFUSED: Final = frozenset({"42501", "28000", "28P01", "3D000"})


class TableBusy(StorageBusy):
    """Somebody else has locked a row or a table for longer than one waits."""


class MadeAlready(StorageError):
    """A table is there already: another node has just made it, or the database is of another program."""


def is_lost(error: BaseException) -> bool:
    """Return whether the connection is gone, or its server no longer accepts changes."""
    cause = _cause(error)
    state = getattr(cause, "sqlstate", None)
    if state is None:
        # An error that the server has not sent is libpq's own. psycopg raises the base class if it came in
        # place of a result.
        return isinstance(cause, psycopg.OperationalError) or type(cause) is psycopg.DatabaseError
    return state in _AWAY or state == _READ_ONLY or state.startswith("08")


def is_unfit(error: BaseException) -> bool:
    """Return whether a value of a statement is a text that no text of PostgreSQL's can be."""
    cause = _cause(error)
    return isinstance(cause, psycopg.DataError) and cause.sqlstate in {None, "22021", "22P05"}


def failure(name: str, error: BaseException, *, hint: str = "") -> StorageError:
    """Return the registry's error for an error of the database ``name``."""
    if isinstance(error, PoolTimeout):
        return StorageBusy(f"no connection to the catalog {name} was free in time", hint=LATER)
    cause = _cause(error)
    state = getattr(cause, "sqlstate", None) or ""
    what = _words(cause)
    message = f"the catalog {name} failed: {what}"
    if state in _UNDONE:
        return TransactionUndone(message, hint="others changed the same; try again")
    if state in _MADE_ALREADY:
        return MadeAlready(message, hint="the registry needs a database that no other program uses")
    if state == _DISK_FULL:
        return StorageFull(
            message, hint="free some space on the database's server; what was committed is safe"
        )
    if state == _LOCKED:
        return TableBusy(message, hint="others keep it busy; try again later")
    if state in _BUSY:
        return StorageBusy(message, hint="others keep it busy; try again later")
    if state == _READ_ONLY:
        return StorageBusy(f"the catalog {name} takes no changes now: {what}", hint=LATER)
    if state in _REFUSED:
        return StorageError(message, hint="the user of the address must own the tables of the database")
    if is_lost(error):
        # Busy even if the server refuses the user: a node whose password is being changed goes on then.
        return StorageBusy(f"the catalog {name} cannot be reached: {what}", hint=_reaching(what))
    if state in _DAMAGED:
        hint = RESTORE
    if state in _UNKNOWN_SCHEMA:
        hint = hint or "it may be of an older digestry: serving it with this one brings it up to date"
    return StorageError(message, hint=hint)


def _reaching(what: str) -> str:
    """Return what to do about a connection that could not be made, or broke.

    libpq gives such an error no code, only the server's words, after ``FATAL``.
    """
    _, refused, said = what.partition("FATAL:")
    if not refused:
        return _REACH
    passing = any(word in said.lower() for word in _PASSING)
    return LATER if passing else _LOGIN


def _cause(error: BaseException) -> BaseException:
    return getattr(error, "orig", None) or error


def _words(cause: BaseException) -> str:
    """Return the database's message, without the values of a statement."""
    diagnosis: Any = getattr(cause, "diag", None)
    message = getattr(diagnosis, "message_primary", None)
    return message or " ".join(str(cause).split()) or type(cause).__name__


@contextlib.contextmanager
def failures(name: str) -> Iterator[None]:
    """Turn an error of PostgreSQL's in the block into a :class:`StorageError` about the catalog ``name``."""
    try:
        yield
    except psycopg.Error as error:
        raise failure(name, error) from error
