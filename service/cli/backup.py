"""``python -m service backup``: a copy of the store that REDRAFT_STORE names, while the service runs."""

import argparse
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.cli.standard_streams import say
from service.settings import PREFIX, Settings
from service.store.backup import back_up
from service.store.errors import StoreMisconfigured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the copy, which must not exist yet")


def run(arguments: argparse.Namespace) -> int:
    """Write the copy; 1 if there is none."""
    try:
        store = Settings().store
        size = None if store is None else back_up(store, arguments.file)
    except (ValidationError, SettingsError) as error:
        say(f"Cannot back up: the settings are not valid: {error}")
        return 1
    except StoreMisconfigured as error:
        say(f"Cannot back up: {error}")
        return 1
    if size is None:
        say(f"Cannot back up: {PREFIX}STORE names no store")
        return 1
    say(f"{arguments.file} has {size} bytes")
    return 0
