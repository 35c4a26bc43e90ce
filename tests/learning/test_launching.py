"""Runs that a service starts: real processes, in place of the command line's."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from service.errors import NotFound, RunRefused
from service.learning import launching
from service.learning.launching import OUTPUT, Launcher
from service.learning.runs import Run, read_run, read_runs, record_run, take_folder

ROOT = Path(__file__).parents[2]
HANGS = "echo $$; exec cat"
"""Ends with its standard input, and by SIGTERM."""
STUBBORN = "echo $$; trap '' TERM; while :; do sleep 1; done"
SERVICE = """
import asyncio, sys
from pathlib import Path
from service.learning import launching
launching.check_packages = lambda: None
launching.GRACE_SECONDS = 0.1
async def main():
    run = await launching.Launcher(Path(sys.argv[1]), ("sh", "-c", sys.argv[2], "run")).start("quick", ["practice"])
    print(run.id, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: object())


@asynccontextmanager
async def launcher(folder: Path, script: str) -> AsyncIterator[Launcher]:
    made = Launcher(folder, ("sh", "-c", script, "run"))
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def printed(folder: Path, run: Run) -> str:
    return (folder / "runs" / run.id / OUTPUT).read_text()


async def test_a_run_is_started_and_cancelled(tmp_path: Path) -> None:
    async with launcher(tmp_path, HANGS) as launches:
        begun = await launches.start("quick", ["practice", "store"])
        await until(lambda: printed(tmp_path, begun))
        at_work = await launches.get(begun.id)
        process = psutil.Process(int(printed(tmp_path, begun)))
        niceness, command = process.nice(), process.cmdline()
        cancelled = await launches.cancel(begun.id, 30)
        again = await launches.cancel(begun.id, 30)

    assert (begun.state, begun.recipe, at_work) == ("running", "quick", begun)
    assert (niceness > 0, command) == (True, ["cat"])
    assert (cancelled.state, cancelled.error, cancelled.revision) == ("cancelled", None, 2)
    assert cancelled.finished_at
    assert again == cancelled
    assert not process.is_running()


async def test_the_command_has_the_recipe_the_sources_and_the_run(tmp_path: Path) -> None:
    async with launcher(tmp_path, 'echo "$@"') as launches:
        begun = await launches.start("quick", ["practice", "store"])
        await until(lambda: printed(tmp_path, begun))

    stated = f"--recipe quick --sources practice store --folder {tmp_path} --begun {begun.id}\n"
    assert printed(tmp_path, begun) == stated


async def test_one_run_works_on_a_folder_at_a_time_whoever_has_started_it(tmp_path: Path) -> None:
    async with launcher(tmp_path, HANGS) as launches, launcher(tmp_path, HANGS) as others:
        with take_folder(tmp_path), pytest.raises(RunRefused, match="another process works in"):
            await launches.start("quick", ["practice"])
        begun = await launches.start("quick", ["practice"])
        for each in (launches, others):
            with pytest.raises(RunRefused, match="another process works in"):
                await each.start("quick", ["practice"])
        assert [run.id for run in await launches.list()] == [begun.id]
        await launches.cancel(begun.id, 30)
        assert (await others.start("quick", ["practice"])).state == "running"


async def test_a_stubborn_process_is_killed_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.1)
    async with launcher(tmp_path, STUBBORN) as launches:
        begun = await launches.start("quick", ["practice"])
        await until(lambda: printed(tmp_path, begun))
        group = [psutil.Process(int(printed(tmp_path, begun)))]
        group += group[0].children()
        impatient = await launches.cancel(begun.id, 0.0)
        cancelled = await launches.cancel(begun.id, 30)

    assert (impatient.state, cancelled.state) == ("running", "cancelled")
    await until(lambda: not any(process.is_running() for process in group))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo begun; echo out of luck; exit 3", "its process ended with exit code 3, after it said: out of luck"),
        ("kill -9 $$", "its process was ended by signal 9"),
    ],
)
async def test_a_process_that_ends_without_a_word_has_failed(tmp_path: Path, script: str, error: str) -> None:
    async with launcher(tmp_path, script) as launches:
        begun = await launches.start("quick", ["practice"])
        states = [run.state async for run in launches.watch(begun.id, 0)]
        ended = await launches.get(begun.id)

    assert states[-1] == "failed"
    assert ended.error == error
    with take_folder(tmp_path):  # which is free
        pass


async def test_a_run_fails_with_the_end_of_its_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    for script in (HANGS, STUBBORN):
        async with launcher(tmp_path, script) as launches:
            begun.append(await launches.start("quick", ["practice"]))
            await until(lambda: printed(tmp_path, begun[-1]))
            monkeypatch.setattr(launching, "GRACE_SECONDS", 0.1)

    ended = [read_run(tmp_path, run.id) for run in begun]
    assert [(run.state, run.error) for run in ended if run] == [("failed", "the service that started it has ended")] * 2


async def test_a_run_ends_with_a_service_that_is_killed_even_if_it_is_stubborn(tmp_path: Path) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(tmp_path), STUBBORN, cwd=ROOT, stdout=subprocess.PIPE
    )
    assert service.stdout is not None
    its_id = (await service.stdout.readline()).decode().strip()
    while_it_serves = read_run(tmp_path, its_id)
    service.send_signal(signal.SIGKILL)
    await service.wait()

    assert while_it_serves is not None
    assert while_it_serves.state == "running"
    await until(lambda: (run := read_run(tmp_path, its_id)) is not None and run.state == "failed")
    with take_folder(tmp_path):
        pass


async def test_a_run_of_another_process_is_not_cancelled_here(tmp_path: Path) -> None:
    async with launcher(tmp_path, HANGS) as launches:
        with record_run(tmp_path) as record, pytest.raises(RunRefused, match="has not started it"):
            await launches.cancel(record.run.id, 30)
        ended = await launches.cancel(record.run.id, 30)
        with pytest.raises(NotFound):
            await launches.cancel("run_1", 30)

    assert ended.state == "ended"


async def test_what_keeps_a_run_from_beginning_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunRefused, match="nice: No such file or directory"):
        await Launcher(tmp_path).start("quick", ["practice"])
    with pytest.raises(RunRefused, match="file: "):
        await Launcher(tmp_path / "file").start("quick", ["practice"])
    monkeypatch.setattr("service.learning.process.find_spec", lambda name: None if name == "trl" else object())
    with pytest.raises(RunRefused, match=r"training needs trl: pip install 'redraft\[learn\]'"):
        await Launcher(tmp_path).start("quick", ["practice"])

    assert [run.state for run in read_runs(tmp_path)] == ["failed"]
    with take_folder(tmp_path):
        pass
