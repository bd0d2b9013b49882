"""The outcomes of verifying the signatures of attached documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

SignatureState: TypeAlias = Literal["unsigned", "not verified", "verified", "invalid"]
"""``not verified``: there are signatures, and no key is trusted in the repository. ``invalid``: there are
signatures, and none is a trusted key's of what is stated about the image."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The outcome for one document. ``signer`` is who signed it, if it is verified, and ``reason`` why it is
    invalid."""

    state: SignatureState
    signer: str = ""
    reason: str = ""

    @property
    def shown(self) -> str:
        """The words for people."""
        return f"signed by {self.signer}" if self.state == "verified" else _WORDS[self.state]


_WORDS: Final[dict[SignatureState, str]] = {
    "unsigned": "unsigned",
    "not verified": "signature not verified",
    "invalid": "signature invalid",
}
UNSIGNED: Final = Signature("unsigned")
NOT_VERIFIED: Final = Signature("not verified")
