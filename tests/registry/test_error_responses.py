"""What a client is told of an error of the registry's storage."""

from __future__ import annotations

import pytest

from digestry.catalog.transactions import OutcomeUnknown, TransactionUndone
from digestry.errors import StorageBusy, StorageError, StorageFull
from digestry.registry.error_responses import from_error

SECRET = "postgresql://db.internal:5432/registry"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (StorageError(f"{SECRET} failed"), 500, "its log says why"),
        (StorageFull(f"{SECRET} failed"), 507, "is full"),
        (StorageBusy(f"{SECRET} failed"), 503, "not carried out"),
        (TransactionUndone(f"{SECRET} failed"), 503, "nothing was changed"),
        (OutcomeUnknown(f"{SECRET} failed", committed=True), 503, "the change was made"),
        (OutcomeUnknown(f"{SECRET} failed", committed=None), 503, "the change may have been made"),
    ],
)
def test_an_error_of_the_storage_is_named_and_no_more(error: StorageError, status: int, told: str) -> None:
    """Whether anything was changed is told as far as it is known."""
    answer = from_error(error)
    assert answer.status == status
    assert told in answer.message
    assert SECRET not in answer.message
    if isinstance(error, OutcomeUnknown):
        assert "nothing was changed" not in answer.message
