"""Jobs that are off cost nothing, and a store belongs to one process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_without_jobs_nothing_of_their_database_is_imported() -> None:
    program = (
        "import sys\nfrom service.app import create_app\nfrom service.settings import Settings\n"
        "create_app(Settings(engine='scripted'))\n"
        "print(sorted({'sqlalchemy', 'psycopg', 'service.jobs.database'} & sys.modules.keys()))"
    )
    assert run(program) == "[]\n"


def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    opened = f"open_store({str(tmp_path / 'jobs.db')!r}, 15.0)"
    program = (
        "import subprocess, sys\nfrom service.jobs.opening import StoreMisconfigured, open_store\n"
        f"store = {opened}\n"
        "second = '''from service.jobs.opening import StoreMisconfigured, open_store\n"
        f"try:\n    {opened}\nexcept StoreMisconfigured as error:\n    print(error)'''\n"
        "print(subprocess.run([sys.executable, '-c', second], capture_output=True, text=True).stdout)"
    )
    assert run(program).strip() == f"another process uses {tmp_path / 'jobs.db'}"
