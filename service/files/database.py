"""Files in the service's database."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from service.files.file import StoredFile
from service.store.database import Database

FORMAT = 1
"""The version of the tables and of what is in them."""

metadata = sa.MetaData()
files = sa.Table(
    "redraft_files",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Index("redraft_files_by_caller", "caller", "id"),
    sa.Index("redraft_files_by_expiry", "expires"),
)
chunks = sa.Table(
    "redraft_file_chunks",
    metadata,
    sa.Column("file", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
SHOWN = [column for column in files.c if column.name != "complete"]


class FileDatabase:
    """A FileStore in a database.

    Makes its tables, which blocks. Raises StoreMisconfigured.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.prepare("files", metadata, FORMAT)

    async def begin(self, file: StoredFile) -> None:
        row = {**asdict(file), "complete": False}
        await self._database.write(lambda c: c.execute(self._database.insert_once(files), row))

    async def append(self, file_id: str, number: int, chunk: bytes) -> None:
        row = {"file": file_id, "number": number, "data": chunk}
        await self._database.write(lambda c: c.execute(self._database.insert_once(chunks), row))

    async def finish(self, file: StoredFile) -> None:
        known = {name: getattr(file, name) for name in ("name", "size", "expires")}
        finished = files.update().where(files.c.id == file.id).values(**known, complete=True)
        await self._database.write(lambda c: c.execute(finished), lasting=True)

    async def get(self, file_id: str) -> StoredFile | None:
        query = sa.select(*SHOWN).where(files.c.id == file_id, files.c.complete)
        row = await self._database.read(lambda c: c.execute(query).one_or_none())
        return None if row is None else StoredFile(**row._asdict())

    async def list(
        self, caller: str, limit: int, *, after: str | None, newest_first: bool, purpose: str | None
    ) -> Sequence[StoredFile]:
        order = files.c.id.desc() if newest_first else files.c.id
        query = sa.select(*SHOWN).where(files.c.caller == caller, files.c.complete).order_by(order).limit(limit)
        if after is not None:
            query = query.where(files.c.id < after if newest_first else files.c.id > after)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        rows = await self._database.read(lambda c: c.execute(query).all())
        return [StoredFile(**row._asdict()) for row in rows]

    async def read(self, file_id: str) -> AsyncIterator[bytes]:
        number = 0
        while (chunk := await self._chunk(file_id, number)) is not None:
            yield chunk
            number += 1

    async def _chunk(self, file_id: str, number: int) -> bytes | None:
        query = sa.select(chunks.c.data).where(chunks.c.file == file_id, chunks.c.number == number)
        found = await self._database.read(lambda c: c.execute(query).scalar_one_or_none())
        return None if found is None else bytes(found)

    async def delete(self, file_id: str) -> bool:
        def drop(connection: sa.Connection) -> bool:
            connection.execute(chunks.delete().where(chunks.c.file == file_id))
            return bool(connection.execute(files.delete().where(files.c.id == file_id)).rowcount)

        return await self._database.write(drop, lasting=True, bulk=True)

    async def held(self, caller: str | None = None) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(files.c.size), 0)).where(files.c.complete)
        if caller is not None:
            query = query.where(files.c.caller == caller)
        return await self._database.read(lambda c: int(c.execute(query).scalar_one()))

    async def purge(self, now: float, begun_before: float) -> int:
        abandoned = ~files.c.complete & (files.c.created < begun_before)
        old = (files.c.expires <= now) | abandoned

        def drop(connection: sa.Connection) -> int:
            dropped = connection.execute(files.delete().where(old)).rowcount
            connection.execute(chunks.delete().where(chunks.c.file.not_in(sa.select(files.c.id))))
            return dropped

        return await self._database.write(drop, bulk=True)
