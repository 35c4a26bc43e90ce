"""Runs first inside the sandbox: it sets its own limits, then runs the program that it is sent.

Standard input is one JSON object, read to its end before anything else runs: ``limits`` (resource limits by name, each
a soft and a hard one), ``memory`` (bytes of address space on top of what the interpreter uses by then), ``program``
(source) and ``payload``. The program's globals include ``payload`` and ``report``, a descriptor, and a copy of the
builtins. The report replaces standard error: a NUL byte on it says that the limits are set. From then on standard error
goes to standard output, and standard input is empty. If memory is short, the kernel kills this process before others.
"""

import builtins
import json
import os
import resource


def launch() -> None:
    with open(0, "rb", closefd=False) as stdin:
        order = json.load(stdin)
    report = os.dup(2)  # closed on exec
    os.dup2(1, 2)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    with open("/proc/self/oom_score_adj", "w") as oom_score:
        oom_score.write("1000")  # the most there is
    with open("/proc/self/statm") as statm:
        memory = int(statm.read().split()[0]) * resource.getpagesize() + order["memory"]
    for name, (soft, hard) in {**order["limits"], "RLIMIT_AS": (memory, memory)}.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    os.write(report, b"\0")
    program = compile(order.pop("program"), "<program>", "exec", dont_inherit=True)
    scope = {"__name__": "__main__", "__builtins__": dict(vars(builtins)), "report": report}
    exec(program, {**scope, "payload": order.pop("payload")})  # noqa: S102 - its purpose


if __name__ == "__main__":
    launch()
