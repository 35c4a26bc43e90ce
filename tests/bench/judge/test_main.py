"""The command that ``make bench-attacks`` runs, from the engine to the page."""

from functools import partial
from pathlib import Path

import pytest

from bench.judge import __main__ as command
from bench.judge.attacks import ATTACKS, CONTROLS
from bench.judge.judging import measure_attacks
from service.engines.scripted import Script, ScriptedEngine
from service.errors import EngineDead


async def test_the_command_writes_the_page_and_closes_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ScriptedEngine(Script(weights=lambda call: (0.25, 0.75)))

    async def start(settings: object) -> ScriptedEngine:
        return engine

    monkeypatch.setattr(command, "start_engine", start)
    monkeypatch.setattr(command, "measure_attacks", partial(measure_attacks, attacks=(*CONTROLS, *ATTACKS[:20])))
    monkeypatch.setattr(command, "REPORT", tmp_path / "judge-attacks.md")

    await command.main()

    page = (tmp_path / "judge-attacks.md").read_text()
    assert "Model scripted" in page
    assert "Judging took" in page
    assert "Judging took" in capsys.readouterr().out
    with pytest.raises(EngineDead):
        await engine.check()
