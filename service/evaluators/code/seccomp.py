"""System calls that are refused to a program in the sandbox, in addition to those that need privileges.

They give out memory that does not belong to any process, and so escapes every limit, or they open large parts of the
kernel that a test of a program does not need. Each fails as if the kernel did not have it. So does every call of
another architecture than the machine's, which would otherwise be a way around the list.

Sockets are limited to the families that a network namespace confines and that Python's own modules need. Others fail as
if the kernel did not know the family. AF_VSOCK is the reason: it reaches the hypervisor from any namespace. Netlink is
allowed, because the C library uses it to read the loopback's addresses.
"""

import struct

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""For each machine, the column of its numbers below, and its AUDIT_ARCH_… of linux/audit.h."""
_REFUSED = {
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "ptrace": (101, 117),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
"""Numbers from linux/arch/x86/entry/syscalls/syscall_64.tbl and linux/include/uapi/asm-generic/unistd.h."""
_WITH_FAMILY = {"socket": (41, 198), "socketpair": (53, 199)}
"""Calls whose first argument is a family of sockets."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK of linux/socket.h."""
_X32 = 0x40000000
"""Set in the numbers of the x32 ABI, which has the architecture of x86-64. No other number is as large."""

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data; both machines are little-endian
_ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
_NO_SUCH_CALL, _NO_SUCH_FAMILY = 0x00050000 | 38, 0x00050000 | 97  # SECCOMP_RET_ERRNO with ENOSYS and EAFNOSUPPORT

_Step = tuple[int, str | None, str | None, int]
"""An instruction, its target if the condition holds, its target if not (None: the next instruction), its operand."""


def make_call_filter(machine: str) -> bytes | None:
    """The filter for seccomp(2), an array of struct sock_filter; None for an unknown machine."""
    if machine not in _MACHINES:
        return None
    column, architecture = _MACHINES[machine]
    return _assemble(
        [
            (_LOAD, None, None, _ARCHITECTURE_AT),
            (_JUMP_IF_EQUAL, None, "no such call", architecture),
            (_LOAD, None, None, _NUMBER_AT),
            (_JUMP_IF_AT_LEAST, "no such call", None, _X32),
            *((_JUMP_IF_EQUAL, "no such call", None, row[column]) for row in _REFUSED.values()),
            *((_JUMP_IF_EQUAL, "family", None, row[column]) for row in _WITH_FAMILY.values()),
            "allow",
            (_RETURN, None, None, _ALLOW),
            "family",  # the kernel reads the lower half of the argument only, an int
            (_LOAD, None, None, _FIRST_ARGUMENT_AT),
            *((_JUMP_IF_EQUAL, "known family", None, family) for family in _FAMILIES),
            (_RETURN, None, None, _NO_SUCH_FAMILY),
            "known family",
            (_RETURN, None, None, _ALLOW),
            "no such call",
            (_RETURN, None, None, _NO_SUCH_CALL),
        ]
    )


def _assemble(program: list[_Step | str]) -> bytes:
    """Encode the instructions, with the distance to each label in place of its name. A string is a label."""
    places: dict[str, int] = {}
    steps: list[_Step] = []
    for line in program:
        if isinstance(line, str):
            places[line] = len(steps)
        else:
            steps.append(line)
    return b"".join(
        struct.pack("=HBBI", code, *(places[label] - place - 1 if label else 0 for label in (holds, fails)), operand)
        for place, (code, holds, fails, operand) in enumerate(steps)
    )
