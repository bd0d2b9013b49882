"""How much an archive, or the layers of an image, may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from digestry.errors import TooLarge
from digestry.images.tar_reader import TarEntry
from digestry.model.descriptor import Descriptor


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an image may unpack to, over all layers: ``size`` in bytes of its files and, by itself, of
    its archives; ``entries``; and ``ratio``, how many bytes may come of each byte of a layer's blob, beyond
    ``free`` bytes. What of memory it takes goes by the entries of one layer: 100 to 500 bytes each."""

    size: int = 64 << 30
    entries: int = 1_000_000
    ratio: int = 250
    free: int = 4 << 30


class Budget:
    """What is left of the limits while an image is read."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._size = 0
        self.entries = 0

    def take(self, entry: TarEntry) -> None:
        """Count an entry. Raises :class:`TooLarge`."""
        self.entries += 1
        self._size += entry.size
        if self.entries > self._limits.entries:
            raise TooLarge(
                f"the image has more than {self._limits.entries} files", limit=self._limits.entries
            )
        if self._size > self._limits.size:
            raise TooLarge(
                f"the image unpacks to more than {self._limits.size} bytes", limit=self._limits.size
            )

    def of(self, layer: Descriptor) -> Callable[[int], None]:
        """Return a function that counts the bytes that are inflated from one layer."""
        limits = self._limits
        most = min(2 * limits.size, limits.free + limits.ratio * layer.size)
        came = 0

        def taken(count: int) -> None:
            nonlocal came
            came += count
            if came > most:
                raise TooLarge(
                    f"layer {layer.digest} of {layer.size} bytes inflates to more than {most}", limit=most
                )

        return taken
