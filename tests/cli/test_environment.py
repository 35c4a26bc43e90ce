"""The command line as a process of its own, in environments that desktops and scripts have."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from service.engines.scripted import Script
from tests.support.serving import Served, serving

WEATHER = "今天天气很好"


@dataclass(frozen=True)
class Ended:
    code: int | None
    out: bytes
    err: str


async def run(
    served: Served, *arguments: str | bytes, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *arguments, "--url", str(served.client.base_url)),
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(given)
    return Ended(process.returncode, out, err.decode(errors="replace"))


async def test_a_proxy_that_httpx_does_not_know_is_in_nobody_s_way_on_this_machine(served: Served) -> None:
    ended = await run(served, "generate", "Write.", environment={"ALL_PROXY": "socks://127.0.0.1:7890"})

    assert (ended.code, ended.out) == (0, b"Waves.\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_a_prompt_in_any_of_unicode_s_encodings_is_read(served: Served, encoding: str) -> None:
    ended = await run(served, "generate", "-", given=f"{WEATHER}\r\n".encode(encoding))

    assert ended.code == 0
    assert served.engine.calls[0].prompt == WEATHER


async def test_a_prompt_in_another_encoding_is_refused_in_a_sentence(served: Served) -> None:
    ended = await run(served, "generate", "-", given=WEATHER.encode("gbk"), environment={"LC_ALL": "C.UTF-8"})

    assert ended.code == 2
    assert "standard input is not UTF-8" in ended.err
    assert "Traceback" not in ended.err


async def test_an_argument_in_another_encoding_is_refused_in_a_sentence(served: Served) -> None:
    ended = await run(served, "generate", WEATHER.encode("gbk"), environment={"LC_ALL": "C.UTF-8"})

    assert ended.code == 2
    assert "Traceback" not in ended.err


async def test_what_the_terminal_cannot_show_is_replaced() -> None:
    async with serving(Script(reply=lambda call: "天 \U0001f600!")) as served:
        ended = await run(served, "generate", "Write.", environment={"PYTHONIOENCODING": "gbk"})
        whole = await run(served, "generate", "Write.", "--json", environment={"PYTHONIOENCODING": "ascii"})

    assert (ended.code, ended.out) == (0, "天 ?!\n".encode("gbk"))
    assert whole.code == 0
    assert b"\\ud83d\\ude00" in whole.out


@pytest.mark.parametrize("command", ["generate", "refine"])
async def test_a_text_is_not_lost_where_nobody_reads_standard_output(served: Served, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", command, "Write.", "--url", str(served.client.base_url)),
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(write)
    _, err = await process.communicate()

    assert process.returncode == 1
    assert b"Waves." in err
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


async def test_printing_the_settings_into_a_closed_pipe_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "settings"), stdout=write, stderr=asyncio.subprocess.PIPE
    )
    os.close(write)
    _, err = await process.communicate()

    assert process.returncode == 1
    assert err == b""
