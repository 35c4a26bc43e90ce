"""The learned model of a running service: which adapter answers for it, and which adapters are in the engine.

The link ``current`` says which adapter serves (registry.py). It is moved here, or by another process, which is noticed
within FOLLOW_SECONDS. An adapter is checked and loaded into the engine before it serves. One that cannot serve changes
nothing: ``problem`` says why, and the service goes on with what it has.

A program is compiled for the weights that serve then, which are called ``learned@<digest>``, and holds them to its end.
An adapter leaves the engine only if another needs its place, and neither while it serves nor while a program holds it.

A canary is followed in the same way: its candidate is loaded, some programs try it, and what becomes of them decides
(trying.py). Whatever is wrong with a candidate ends its canary, and costs no program.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.calibration.identity import digest_of_folders
from service.engines.served import Adaptable, AdapterRoom, AdapterUnusable, ServedEngine
from service.errors import AdapterRefused, EngineDead, ModelNotFound, NotFound, Starting, StoreUnavailable
from service.learning.collected import DamagedFile
from service.learning.lineage import follow_deletions
from service.learning.manifest import Manifest
from service.learning.registry import Refused, Registry, UnknownAdapter
from service.learning.trying import PREFIX, Listeners, Trying, explain
from service.models import LEARNED
from service.refinement.roles import Models

if TYPE_CHECKING:  # nothing of it is imported where traces are off
    from service.traces.store import TraceStore

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.5
"""How soon it is noticed that another process has moved the link."""
PLACES = 4
"""Adapters in the engine at once: the one that serves, the one before it, and two that programs still hold or a canary
tries."""
RANK = 8
"""The rank for which the engine is prepared unless the folder has a larger one: that of the built-in recipe. Every
adapter costs as much as the largest would."""
USUAL_LAYERS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
"""The linear layers of Llama and of the many models that are built like it."""
RESTART = "start the service again, which prepares it for all adapters in the folder"

FAILURES = (AdapterUnusable, DamagedFile, Refused, OSError)


class NoPlace(Exception):
    """All places of the engine are taken by adapters that programs hold. The message is for the operator."""


def make_room(registry: Registry) -> AdapterRoom:
    """What the engine has to prepare for the adapters in the folder and for those to come."""
    rank, layers = RANK, USUAL_LAYERS
    for digest in registry.digests:
        try:
            its_rank, its_layers = registry.shape(digest)
        except DamagedFile:  # it is refused when it is to serve
            continue
        rank, layers = max(rank, its_rank), layers | its_layers
    return AdapterRoom(PLACES, rank, layers)


class LearnedModel:
    """The learned model.

    registry: the folder's adapters.
    base: the main model's name.
    room: what the engine is prepared for.
    weights: the folder of the main model, once it has been loaded; None if it is not known.
    on_change: called with the name of the weights that serve from now on.
    listeners: who hears of canaries.
    """

    def __init__(
        self,
        registry: Registry,
        base: str,
        room: AdapterRoom,
        weights: Callable[[], Path | None],
        on_change: Callable[[str], None] = lambda model: None,
        listeners: Listeners = Listeners(),  # noqa: B008 - frozen
    ) -> None:
        self.registry = registry
        self.base = base
        self.problem = ""
        self._room = room
        self._weights = weights
        self._on_change = on_change
        self.trying = Trying(registry, self.name_of, listeners)
        self._main: Callable[[], ServedEngine] | None = None
        self._base_digest = ""
        self._serving: str | None = None
        self._failed = ""
        self._loaded: dict[str, ServedEngine] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unusable: dict[str, str] = {}
        self._held = Counter[str]()
        self._changing = asyncio.Lock()

    @property
    def serving(self) -> str | None:
        """The digest of the adapter that serves, empty for the base; None until the first one has been loaded."""
        return self._serving

    @property
    def loaded(self) -> frozenset[str]:
        """The adapters in the engine."""
        return frozenset(self._loaded)

    def obstacle(self, manifest: Manifest) -> str:
        """Why an adapter would not be promoted now; empty if it would be, as far as its manifest says. Raises
        DamagedFile."""
        if manifest.adapter == self._serving:
            return f"{manifest.adapter} serves already"
        if self._serving is None:
            return self.registry.obstacle(manifest) or "the engine is still loading"
        return self.registry.obstacle(manifest) or self._misfit(manifest)

    async def let_go(self, traces: "TraceStore", keep_days: float) -> None:
        """Remove the texts of traces that are gone from the folder, and mark the adapters that learned from them. What
        fails is done the next time."""
        try:
            marked = await follow_deletions(self.registry.folder, traces, keep_days)
        except (DamagedFile, StoreUnavailable, OSError) as error:
            log.warning("the lessons may still have texts of deleted traces", extra={"reason": str(error)})
            return
        if marked:
            log.warning("adapters have learned from traces that were withdrawn", extra={"adapters": marked})

    def resolve(self, model: str) -> str:
        """The name of the weights that answer for a model now: of ``learned`` the adapter that serves, or the base."""
        if model != LEARNED:
            return model
        return self.name_of(self.registry.current if self._serving is None else self._serving)

    def name_of(self, digest: str) -> str:
        """What an adapter is called as a model."""
        return f"{PREFIX}{digest}" if digest else self.base

    def engine(self, model: str) -> ServedEngine:
        """The engine with an adapter, by the adapter's name as a model.

        Raises Starting while it is loaded, which this begins, EngineDead, and ModelNotFound if it cannot be served.
        """
        digest = model.removeprefix(PREFIX)
        if digest in self._loaded:
            return self._loaded[digest]
        if self._main is None:
            raise Starting(f"the engine of {model} is still loading", retry_after=5)
        self._main()
        if reason := self._unusable.get(digest):
            raise ModelNotFound(f"{model} cannot be served: {reason}")
        if digest not in self._loading:
            self._loading[digest] = asyncio.create_task(self._load_for_program(digest))
        raise Starting(f"{model} is being loaded", retry_after=1)

    @contextmanager
    def hold(self, models: Models) -> Iterator[None]:
        """Keep the adapters of a program's models in the engine inside the ``with`` block."""
        names = set(models.by_role().values())
        digests = {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}
        self._held.update(digests)
        try:
            yield
        finally:
            self._held.subtract(digests)

    @asynccontextmanager
    async def follow(
        self, loaded: Callable[[], Awaitable[ServedEngine]], main: Callable[[], ServedEngine]
    ) -> AsyncIterator[None]:
        """Serve what the link names, inside the ``async with`` block.

        loaded: waits for the main model's engine. main: gives it, or raises why there is none.
        """
        self._main = main
        following = asyncio.create_task(self._follow(loaded))
        try:
            yield
        finally:
            tasks = [following, *self._loading.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.trying.close()

    async def promote(self, digest: str) -> None:
        """Let an adapter serve that has passed its exam. Programs at work keep theirs.

        Raises NotFound, AdapterRefused, Starting and EngineDead.
        """
        async with self._change():
            await asyncio.to_thread(self.registry.check, digest)
            await self._load(digest)
            await asyncio.to_thread(self.registry.promote, digest)
            self._serve(digest)

    async def rollback(self) -> None:
        """Let what served before the last promotion serve again. A second rollback takes the first one back.

        Raises AdapterRefused, Starting and EngineDead.
        """
        async with self._change():
            if digest := await asyncio.to_thread(self.registry.check_rollback):
                await self._load(digest)
            if digest := await asyncio.to_thread(self.registry.rollback):
                await self._load(digest)  # it is another one if another process was quicker
            self._serve(digest)

    async def start_canary(self, digest: str, share: float, *, promotes: bool = False) -> None:
        """Let an adapter that has passed its exam write some of the first drafts.

        Raises NotFound, AdapterRefused, Starting and EngineDead.
        """
        async with self._change():
            await asyncio.to_thread(self.registry.check_canary, digest)
            await self._load(digest)
            self.trying.canary = await asyncio.to_thread(self.registry.start_canary, digest, share, promotes=promotes)
            log.info("a canary begins", extra={"adapter": digest, "share": share})

    async def stop_canary(self, digest: str) -> None:
        """End an adapter's canary without a verdict. Raises AdapterRefused, Starting and EngineDead."""
        async with self._change():
            await asyncio.to_thread(self.registry.stop_canary, digest)
            self.trying.canary = None
            log.info("a canary was stopped", extra={"adapter": digest})

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """Change what serves, one change after the other."""
        if self._serving is None:
            if self._main is not None:
                self._main()
            raise Starting("the engine is still loading", retry_after=5)
        async with self._changing:
            try:
                yield
            except UnknownAdapter as error:
                raise NotFound(str(error)) from error
            except (*FAILURES, NoPlace) as error:
                raise AdapterRefused(explain(error)) from error

    async def _follow(self, loaded: Callable[[], Awaitable[ServedEngine]]) -> None:
        try:
            await loaded()
            folder = await asyncio.to_thread(self._weights)
            self._base_digest = await asyncio.to_thread(digest_of_folders, [folder]) if folder else ""
            while True:
                await self._catch_up()
                await self._follow_canary()
                await asyncio.sleep(FOLLOW_SECONDS)
        except EngineDead:  # the log says so already
            return
        except Exception:  # the service serves all the same
            log.exception("the learned model stays as it is")

    async def _catch_up(self) -> None:
        """Serve what the link names, if that is something else."""
        async with self._changing:
            try:
                current = await asyncio.to_thread(lambda: self.registry.current)
            except OSError as error:
                self.problem = explain(error)
                return
            if current == self._serving:
                self._failed = self.problem = ""
                return
            if current and current == self._failed:
                return
            try:
                if current:
                    await self._load(current)
            except NoPlace as error:  # which may end
                self.problem = str(error)
            except FAILURES as error:
                self._failed, self.problem = current, explain(error)
                log.warning("an adapter cannot serve", extra={"adapter": current, "reason": self.problem})
                if self._serving is None:
                    self._begin_with_base()
            else:
                self._serve(current)

    async def _follow_canary(self) -> None:
        """Take part in the canary that runs, and end it if its trials or anything else decide it."""
        async with self._changing:
            if (found := await self.trying.look()) is None:
                return
            if found.end:
                await self.trying.end(found.canary, found.verdict, found.end)
                return
            self.trying.canary = None
            try:
                await self._load(found.canary.candidate)
            except NoPlace as error:  # which may end
                log.info("a canary waits", extra={"adapter": found.canary.candidate, "reason": str(error)})
            except FAILURES as error:
                await self.trying.end(found.canary, "broken", f"it cannot be loaded: {explain(error)}")
            else:
                self.trying.canary = found.canary

    def _begin_with_base(self) -> None:
        self._serving = ""
        self._on_change(self.base)

    def _serve(self, digest: str) -> None:
        self._serving, self._failed, self.problem = digest, "", ""
        self._on_change(self.name_of(digest))
        log.info("what is learned serves", extra={"model": self.name_of(digest)})

    async def _load_for_program(self, digest: str) -> None:
        """Load what a program began with before the service was started again."""
        try:
            async with self._changing:
                await self._load(digest)
        except FAILURES as error:
            self._unusable[digest] = explain(error)
        except (NoPlace, EngineDead):
            pass  # the program asks again
        finally:
            del self._loading[digest]

    async def _load(self, digest: str) -> None:
        """Have an adapter in the engine. Raises one of FAILURES, NoPlace or EngineDead."""
        if digest in self._loaded or self._main is None:
            return
        folder = await asyncio.to_thread(self._check, digest)
        engine = self._main()
        if not isinstance(engine, Adaptable):
            raise TypeError("only the engine in this process takes adapters")
        await self._make_place(engine)
        self._loaded[digest] = await engine.load_adapter(self.name_of(digest), folder)
        self._unusable.pop(digest, None)

    def _check(self, digest: str) -> Path:
        """The folder of an adapter that the engine is prepared for. Raises Refused and DamagedFile."""
        folder = self.registry.folder_of(digest)
        if reason := self._misfit(self.registry.manifest(digest)):
            raise Refused(reason)
        return folder

    def _misfit(self, manifest: Manifest) -> str:
        """Why the engine cannot take an adapter; empty if it can. Raises DamagedFile."""
        digest = manifest.adapter
        if not manifest.base or not self._base_digest.startswith(manifest.base):
            return f"{digest} was trained on another base than {self.base} as it is here"
        rank, layers = self.registry.shape(digest)
        if rank > self._room.rank:
            return f"{digest} has rank {rank}, and the engine was started for rank {self._room.rank}: {RESTART}"
        if others := ", ".join(sorted(layers - self._room.layers)):
            return f"{digest} changes layers that the engine was not started for ({others}): {RESTART}"
        return ""

    async def _make_place(self, engine: Adaptable) -> None:
        while len(self._loaded) >= self._room.places:
            needed = {self._serving, self.trying.candidate}
            free = [digest for digest in self._loaded if digest not in needed and not self._held[digest]]
            if not free:
                raise NoPlace(f"programs still use all {self._room.places} adapters in the engine: wait for their end")
            previous = self.registry.previous
            longest_unused = min(free, key=lambda digest: digest == previous)
            await engine.drop_adapter(self._loaded.pop(longest_unused))
