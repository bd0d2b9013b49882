"""The questions that the sources docker, podman and cri share: list the containers, then show each one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from digestry.errors import DigestryError, RemoteNotFound
from digestry.inventory.observation import Observation, Unseen


class _Entry(Protocol):
    @property
    def id(self) -> str: ...


E = TypeVar("E", bound=_Entry)
T = TypeVar("T")


def observe_listed(
    source: str,
    listed: Sequence[E],
    observe: Callable[[E, bool], Observation | None],
    list_again: Callable[[], Iterable[E]],
    *,
    run: Callable[[Callable[[E], Observation | None], Sequence[E]], Iterator[Observation | None]] = map,
) -> Iterator[Observation]:
    """Yield the results of ``observe`` for each container that an engine has listed.

    ``observe`` returns None for one that the engine does not show: it has probably ended since. Those that
    the engine still lists in a second request are observed once more, with True.
    """
    gone = []
    for entry, seen in zip(listed, run(lambda listing: observe(listing, False), listed), strict=True):
        if seen is None:
            gone.append(entry)
        else:
            yield seen
    if not gone:
        return
    try:
        there = {entry.id for entry in list_again()}
    except DigestryError as error:
        yield Unseen(source, error.message, error.hint)
        return
    for entry in gone:
        if entry.id in there and (seen := observe(entry, True)) is not None:
            yield seen


def show_container(ask: Callable[[], T], who: str, remarks: list[str], *, still_listed: bool) -> T | None:
    """Return the result of ``ask``, or None and a remark that ``who`` does not show the container.

    Raises :class:`RemoteNotFound` if there is no such container and it is not ``still_listed``.
    """
    try:
        return ask()
    except RemoteNotFound:
        if not still_listed:
            raise
        remarks.append(f"{who} lists this container, and says that it is not there")
    except DigestryError as error:
        remarks.append(f"{who} does not show this container: {error.message}")
    return None


def show_image(ask: Callable[[], T], who: str, remarks: list[str]) -> T | None:
    """Return the result of ``ask``, or None and a remark that ``who`` does not show the image."""
    try:
        return ask()
    except RemoteNotFound:
        remarks.append(f"{who} no longer has the image that this container runs")
    except DigestryError as error:
        remarks.append(f"{who} does not show this container's image: {error.message}")
    return None


class CachedAnswers(Generic[T]):
    """Answers about images by their IDs, each requested once; an error is an answer too."""

    def __init__(self, ask: Callable[[str], T]) -> None:
        self._ask = ask
        self._answers: dict[str, T | DigestryError] = {}

    def get(self, identity: str) -> T:
        """Return the answer about ``identity``. Raises the error of the request."""
        if identity not in self._answers:
            try:
                self._answers[identity] = self._ask(identity)
            except DigestryError as error:
                self._answers[identity] = error
        answer = self._answers[identity]
        if isinstance(answer, DigestryError):
            raise answer
        return answer
