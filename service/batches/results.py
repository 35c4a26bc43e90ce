"""The files with a batch's results, in OpenAI's format: a line of JSON for each line of the input."""

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from service.batches.batch import Batch, Result, result_file_id
from service.files.file import StoredFile
from service.files.store import FileStore, FileWriter
from service.wire.sse import json_line

Kind = Literal["output", "error"]
UNANSWERED: Mapping[str, str] = {
    "batch_cancelled": "The batch was cancelled before this request was answered.",
    "batch_expired": "This request could not be executed before the completion window expired.",
}
"""Why a line was not answered."""


class ResultFiles:
    """Writes the results of one batch: what was answered with 200 to one file, everything else to another.

    Writing the same results again does no harm.
    """

    def __init__(self, batch: Batch, files: FileStore) -> None:
        self._batch = batch
        self._files = files
        self._writers: dict[Kind, FileWriter] = {}

    async def write(self, result: Result) -> None:
        kind: Kind = "output" if result.state == "completed" else "error"
        if kind not in self._writers:
            self._writers[kind] = await FileWriter.begin(self._files, self._make_file(kind))
        await self._writers[kind].write(json_line(self._line(result)))

    async def finish(self) -> Mapping[str, str]:
        """The ids of the files that there are, by the names of a batch's fields."""
        return {f"{kind}_file": (await writer.finish()).id for kind, writer in self._writers.items()}

    def _make_file(self, kind: Kind) -> StoredFile:
        batch, now = self._batch, time.time()
        name = f"{batch.id}_{kind}.jsonl"
        return StoredFile(
            result_file_id(batch.id, kind), batch.caller, name, "batch_output", now, expires=now + batch.keep
        )

    def _line(self, result: Result) -> Mapping[str, Any]:
        code = "batch_expired" if "expired" in (result.state, self._batch.end) else "batch_cancelled"
        return {
            "id": f"batch_req_{self._batch.id.removeprefix('batch_')}{result.number:05d}",
            "custom_id": result.custom_id,
            "response": None if result.answer is None else json.loads(result.answer),
            "error": {"code": code, "message": UNANSWERED[code]} if result.answer is None else None,
        }
