"""The command ``redraft``. It is installed with the client too, but needs the extra ``server``."""

import sys


def main() -> int:
    """Run the command line and return its exit code: 1 with a sentence where the extra is not installed."""
    try:
        from service.cli import main as cli
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("service", "redraft"):
            raise
        sys.stderr.write(f"Redraft's command needs {missing}, which is not installed: pip install 'redraft[server]'\n")
        return 1
    return cli.main()
