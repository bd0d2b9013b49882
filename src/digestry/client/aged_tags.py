"""The digest that a tag has had for long enough: for commands that are given a minimum age."""

from __future__ import annotations

from digestry.client.repository import Repository
from digestry.errors import RemoteError, TooYoung
from digestry.model.age_answers import TagAge


def aged_tag(remote: Repository, tag: str, seconds: int) -> TagAge:
    """Return what ``tag`` resolves to under a minimum age of ``seconds``; its ``stood`` is not None.

    Raises :class:`TooYoung` if no digest has stood for so long, and as :func:`known_age` does.
    """
    found = known_age(remote, tag, seconds)
    if found.stood is None:
        raise TooYoung(
            found.reason,
            hint="wait, ask for less, or pull a digest that you have looked at; who runs the registry can let"
            " one through: digestry age allow",
        )
    return found


def known_age(remote: Repository, tag: str, seconds: int) -> TagAge:
    """Return what ``tag`` resolves to under a minimum age of ``seconds``, or why to nothing.

    Raises :class:`RemoteError` if the registry keeps no history of its tags, and
    :class:`~digestry.errors.RemoteNotFound`.
    """
    found = remote.tag_age(tag, seconds)
    if found is None:
        remote.resolve(tag)  # a repository or tag that is not there says so
        raise RemoteError(
            f"{remote.reference.host} keeps no history of its tags, so that it is not known for how long any"
            f" digest has stood under {tag}",
            hint="pull through a mirror of digestry, which observes it (docs/min-age.md), or pull a digest",
        )
    return found
