import socket
import struct

import pytest

from service.evaluators.code.seccomp import make_call_filter

X86_64, AARCH64, I386, ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
ALLOWED, ENOSYS, EAFNOSUPPORT = 0x7FFF0000, 0x00050026, 0x00050061


def verdict(calls: bytes, architecture: int, number: int, argument: int = socket.AF_INET) -> int:
    """What the kernel would make of a call: the few instructions of BPF that the filter is made of."""
    steps = list(struct.iter_unpack("=HBBI", calls))
    loaded, place = -1, 0
    while True:
        code, yes, no, operand = steps[place]
        place += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            loaded = {0: number, 4: architecture, 16: argument & 0xFFFFFFFF}[operand]
        else:
            place += yes if {0x15: loaded == operand, 0x35: loaded >= operand}[code] else no


@pytest.mark.parametrize(
    ("machine", "architecture", "refused"),
    [
        ("x86_64", X86_64, {29, 64, 68, 101, 248, 249, 250, 298, 319, 321, 323, 425, 426, 427, 447}),
        ("aarch64", AARCH64, {117, 186, 190, 194, 217, 218, 219, 241, 279, 280, 282, 425, 426, 427, 447}),
    ],
)
def test_some_calls_are_refused_and_the_others_are_not(machine: str, architecture: int, refused: set[int]) -> None:
    calls = make_call_filter(machine)
    assert calls
    verdicts = {number: verdict(calls, architecture, number) for number in range(600)}
    assert set(verdicts.values()) == {ALLOWED, ENOSYS}
    assert {number for number, found in verdicts.items() if found == ENOSYS} == refused


@pytest.mark.parametrize(
    ("machine", "architecture", "calls_with_family"), [("x86_64", X86_64, (41, 53)), ("aarch64", AARCH64, (198, 199))]
)
def test_sockets_are_of_the_families_that_a_namespace_confines(
    machine: str, architecture: int, calls_with_family: tuple[int, int]
) -> None:
    calls = make_call_filter(machine)
    assert calls
    known = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    for number in calls_with_family:
        for family in range(-1, 64):
            expected = ALLOWED if family in known else EAFNOSUPPORT
            assert verdict(calls, architecture, number, family) == expected
            assert verdict(calls, architecture, number, family | 1 << 32) == expected  # the kernel does not see that


@pytest.mark.parametrize(
    ("machine", "architecture", "number"),
    [("x86_64", I386, 20), ("x86_64", AARCH64, 20), ("x86_64", X86_64, 0x40000000 | 39), ("aarch64", ARM, 20)],
)
def test_calls_of_another_architecture_are_refused(machine: str, architecture: int, number: int) -> None:
    calls = make_call_filter(machine)
    assert calls
    assert verdict(calls, architecture, number) == ENOSYS


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert make_call_filter("s390x") is None
