"""Files of results. An interrupted benchmark resumes where it stopped: it reads what is there and adds the rest."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

OriginT = TypeVar("OriginT")
RecordT = TypeVar("RecordT")

RESULTS = Path(__file__).parents[1] / "results"
"""The folder of all files of results. Git ignores it."""


class OtherOrigin(Exception):
    """The file's records have another origin. Comparing them with new ones would compare commits or machines."""


class Records(Generic[RecordT]):
    """A JSON Lines file with one record a line. A line that was cut while it was written is left out.

    record: the type of a record, as Pydantic reads it.
    """

    def __init__(self, file: Path, record: Any) -> None:
        self.file = file
        self._record: TypeAdapter[RecordT] = TypeAdapter(record)

    def append(self, record: RecordT) -> None:
        """Add a record, on a new line even if the last one was cut."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab+") as output:
            if _was_cut(output):
                output.write(b"\n")
            output.write(self._record.dump_json(record) + b"\n")

    def read(self) -> Sequence[RecordT]:
        """All records, none if the file is not there. Pydantic's ValidationError for a whole line of another form."""
        found = []
        for line in self._lines():
            try:
                found.append(self._record.validate_json(line))
            except ValidationError as error:
                if error.errors()[0]["type"] != "json_invalid":
                    raise
        return found

    def _lines(self) -> Sequence[bytes]:
        return self.file.read_bytes().splitlines() if self.file.exists() else []


class Results(Records[RecordT], Generic[OriginT, RecordT]):
    """Records of one origin, which is the file's first line."""

    def __init__(self, file: Path, origin: type[OriginT], record: Any) -> None:
        super().__init__(file, record)
        self._origin: TypeAdapter[OriginT] = TypeAdapter(origin)

    def begin(self, origin: OriginT) -> None:
        """Create the file if it is not there. Raises OtherOrigin if its records have another one."""
        if not self.file.exists():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_bytes(self._origin.dump_json(origin) + b"\n")
        elif (found := self.origin()) != origin:
            raise OtherOrigin(f"{self.file} has results of another origin ({found}) than this one ({origin}).")

    def origin(self) -> OriginT:
        return self._origin.validate_json(super()._lines()[0])

    def _lines(self) -> Sequence[bytes]:
        return super()._lines()[1:]


def _was_cut(file: BinaryIO) -> bool:
    if not file.seek(0, os.SEEK_END):
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
