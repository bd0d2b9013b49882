"""The program in the demo's image: a small ELF executable, written byte by byte.

An image needs a program that runs in it, and the demo may ask for nothing but Python: no compiler,
no base image. This one writes its message; called without arguments it then waits for ever, as a
service does, and with any argument it ends. Linux on amd64 and arm64; it needs no library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from digestry.errors import InvalidConfiguration

_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56
_EXECUTABLE, _READ_AND_RUN, _LOAD = 2, 5, 1


def _amd64(length: int) -> bytes:
    before = (
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1          write
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1          to standard output
        b"\x48\x8d\x35" + struct.pack("<i", 32)  # lea rsi, [rip+32]   the message, after the code
        + b"\xba" + struct.pack("<I", length)  # mov edx, length
        + b"\x0f\x05"  # syscall
    )  # fmt: skip
    after = (
        b"\x48\x83\x3c\x24\x01"  # cmp qword [rsp], 1  argc
        b"\x7f\x09"  # jg +9               arguments: to the exit
        b"\xb8\x22\x00\x00\x00"  # mov eax, 34         pause
        b"\x0f\x05"  # syscall
        b"\xeb\xf7"  # jmp -9              for ever
        b"\xb8\x3c\x00\x00\x00"  # mov eax, 60         exit
        b"\x31\xff"  # xor edi, edi        0
        b"\x0f\x05"  # syscall
    )
    return before + after


def _arm64(length: int) -> bytes:
    words = (
        0xD2800020,  # mov x0, #1           standard output
        0x10000221,  # adr x1, .+68         the message, after the code
        0xD2800002 | length << 5,  # mov x2, #length
        0xD2800808,  # mov x8, #64          write
        0xD4000001,  # svc #0
        0xF94003E3,  # ldr x3, [sp]         argc
        0xF100047F,  # cmp x3, #1
        0x5400010C,  # b.gt .+32            arguments: to the exit
        0xD2800000,  # mov x0, #0           ppoll(NULL, 0, NULL, NULL)
        0xD2800001,  # mov x1, #0
        0xD2800002,  # mov x2, #0
        0xD2800003,  # mov x3, #0
        0xD2800928,  # mov x8, #73          waits for ever
        0xD4000001,  # svc #0
        0x17FFFFFA,  # b .-24
        0xD2800000,  # mov x0, #0
        0xD2800BA8,  # mov x8, #93          exit
        0xD4000001,  # svc #0
    )
    return struct.pack(f"<{len(words)}I", *words)


_MACHINES: Final[dict[str, tuple[int, Callable[[int], bytes]]]] = {
    "amd64": (62, _amd64),
    "arm64": (183, _arm64),
}


def executable(message: str, architecture: str) -> bytes:
    """Return a static Linux program that prints ``message``.

    Raises :class:`InvalidConfiguration` for an architecture that it cannot be made for.
    """
    if architecture not in _MACHINES:
        raise InvalidConfiguration(
            f"the demo's program cannot be made for {architecture}", hint=f"it can for {', '.join(_MACHINES)}"
        )
    machine, assemble = _MACHINES[architecture]
    text = message.encode() + b"\n"
    code = assemble(len(text))
    size = _HEADERS + len(code) + len(text)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        _EXECUTABLE, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", _LOAD, _READ_AND_RUN, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code + text
