"""A copy of the database while the service works with it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from service.store.errors import StoreMisconfigured
from service.store.places import is_postgres


def back_up(place: str, copy: Path) -> int:
    """Write what is in the database file at ``place`` at this moment into a new file; its size in bytes.

    The copy needs no log next to it and holds nothing that was deleted. Only its owner may read it. The service may
    write meanwhile.

    Raises StoreMisconfigured, also if the copy exists already.
    """
    if is_postgres(place):
        raise StoreMisconfigured("the store is a Postgres database: use pg_dump")
    if not Path(place).is_file():
        raise StoreMisconfigured(f"there is no file {place}")
    if copy.exists():
        raise StoreMisconfigured(f"{copy} exists already")
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    try:
        unfinished.touch(0o600)
        try:
            with closing(sqlite3.connect(f"{Path(place).resolve().as_uri()}?mode=ro", uri=True)) as database:
                database.execute("VACUUM INTO ?", [str(unfinished)])
            with unfinished.open("rb+") as written:
                os.fsync(written.fileno())
            unfinished.rename(copy)
        except BaseException:
            unfinished.unlink()
            raise
    except (OSError, sqlite3.Error) as error:
        raise StoreMisconfigured(f"no copy could be written: {error}") from error
    return copy.stat().st_size
