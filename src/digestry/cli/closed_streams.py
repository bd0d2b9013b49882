"""Standard streams that whoever started the program had closed."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STREAMS: Final = (0, 1, 2)


class _Closed(io.BufferedIOBase):
    """A stream to which nothing can be written."""

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> NoReturn:
        raise OSError(errno.EBADF, "standard output is closed")


def occupy() -> None:
    """Put something in the place of the standard streams that are closed.

    The numbers of their descriptors would else be those of the next files and connections, into which whoever
    writes to "standard output" would write. What is printed to a closed standard output raises OSError:
    a result that nobody gets is not success.
    """
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: those below it are taken by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(_Closed(), encoding="utf-8", write_through=True)
