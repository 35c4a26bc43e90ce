"""System calls that a program in the sandbox is refused, on top of what its lack of privileges refuses it.

They hand out memory that belongs to no process, and so escapes every limit, or open large parts of the kernel that a
test of a program has no use for. Each fails as if the kernel did not have it. So does every call of another
architecture than the machine's own, which would otherwise be a way around the list.
"""

import struct

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Where each has its number in a row below, and its AUDIT_ARCH_… of linux/audit.h."""
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
_X32 = 0x40000000
"""Set in the number of a call of the x32 ABI, which has the architecture of x86-64; elsewhere no number is as large."""

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_ALLOW, _NO_SUCH_CALL = 0x7FFF0000, 0x00050000 | 38  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with ENOSYS


def call_filter(machine: str) -> bytes | None:
    """The filter as seccomp(2) takes it, an array of struct sock_filter; None for a machine that is not known."""
    if machine not in _MACHINES:
        return None
    column, architecture = _MACHINES[machine]
    numbers = [row[column] for row in _REFUSED.values()]
    refuse = len(numbers) + 5  # the place of the last instruction
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 0, refuse - 2, architecture),  # a jump counts from the next instruction
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_AT_LEAST, refuse - 4, 0, _X32),
        *((_JUMP_IF_EQUAL, refuse - 5 - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NO_SUCH_CALL),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
