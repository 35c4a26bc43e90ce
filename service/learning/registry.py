"""The folder of adapters, and which of them serves.

    adapters/<digest>/      an adapter's files, its manifest and its card; a folder appears whole or not at all
    current                 a link to the adapter that serves; missing while the base alone serves
    previous                what ``current`` was before, as a file: a digest, or empty for the base
    attempts.json           how many candidates have sat each exam
    canary, canaries/       canary.py

``current`` is replaced by a rename, so that a process that opens it finds the old adapter or the new one, even if this
one is killed at any moment. An adapter's name is the digest of its files, and a folder whose files have another digest
is damaged: it is neither examined nor promoted.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from service.learning.canary import Canaries, Canary, CanaryVerdict
from service.learning.card import make_card
from service.learning.collected import DamagedFile
from service.learning.manifest import Manifest, read_manifest, write_manifest
from service.whole_files import write_whole

NEEDED = ("adapter_config.json", "adapter_model.safetensors")
CARD = "README.md"
_DIGITS = 16


class Refused(Exception):
    """An order that would harm what serves. The message is a sentence for the operator."""


class UnknownAdapter(Refused):
    """There is no adapter of that name."""


class Registry:
    """The adapters of a folder. One process at a time may change them, but for which one serves: any process may change
    that at any time, also while another trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canaries = Canaries(folder)
        self._adapters = folder / "adapters"

    @property
    def current(self) -> str:
        """The digest of the adapter that serves; empty for the base."""
        try:
            return Path(os.readlink(self.folder / "current")).name
        except FileNotFoundError:
            return ""

    @property
    def previous(self) -> str | None:
        """What a rollback returns to: a digest, or empty for the base; None before the first promotion."""
        try:
            return (self.folder / "previous").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    @property
    def digests(self) -> Sequence[str]:
        """The names of all adapters, damaged ones too."""
        if not self._adapters.is_dir():
            return []
        return sorted(folder.name for folder in self._adapters.iterdir() if not folder.name.startswith("."))

    def list(self) -> Sequence[Manifest]:
        """The manifests of all adapters but the damaged ones, the oldest first."""
        found = []
        for digest in self.digests:
            with suppress(DamagedFile):
                found.append(self.manifest(digest))
        return sorted(found, key=lambda manifest: manifest.created)

    def damaged(self) -> Mapping[str, str]:
        """The adapters whose manifests cannot be read, and why."""
        found = {}
        for digest in self.digests:
            try:
                self.manifest(digest)
            except DamagedFile as error:
                found[digest] = str(error)
        return found

    def manifest(self, digest: str) -> Manifest:
        """An adapter's manifest. Raises DamagedFile."""
        return read_manifest(self._adapters / digest)

    def add(self, trained: Path, describe: Callable[[str], Manifest]) -> Manifest:
        """Move a trained adapter in, with the manifest that ``describe`` makes for its digest. The folder ``trained``
        must be on the same file system. Raises DamagedFile if it is not an adapter."""
        digest = digest_of_adapter(trained)
        manifest = describe(digest)
        _write(trained, manifest)
        self._adapters.mkdir(parents=True, exist_ok=True)
        target = self._adapters / digest
        if target.exists():  # trained again with the same result, perhaps from lessons that other evaluators verified
            shutil.rmtree(trained)
            self.amend(digest, lambda now: now.model_copy(update={"evaluators": manifest.evaluators}))
            return self.manifest(digest)
        trained.replace(target)
        return manifest

    def shape(self, digest: str) -> tuple[int, frozenset[str]]:
        """An adapter's rank, and the layers that it changes. Raises DamagedFile."""
        path = self._adapters / digest / "adapter_config.json"
        try:
            config = json.loads(path.read_bytes())
            rank, layers = config["r"], frozenset(config["target_modules"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedFile(f"{path} is not the configuration of an adapter: {type(error).__name__}") from error
        if not isinstance(rank, int):
            raise DamagedFile(f"{path} is not the configuration of an adapter: its rank is not a number")
        return rank, layers

    def folder_of(self, digest: str) -> Path:
        """The whole folder of an adapter. Raises UnknownAdapter and DamagedFile."""
        folder = self._adapters / digest
        if digest not in self.digests:
            known = ", ".join(self.digests) or "none yet"
            raise UnknownAdapter(f"there is no adapter {digest}; there are: {known}")
        if (found := digest_of_adapter(folder)) != digest:
            raise DamagedFile(f"the adapter {digest} is damaged: its files have the digest {found}")
        return folder

    def amend(self, digest: str, change: Callable[[Manifest], Manifest]) -> None:
        """Change an adapter's manifest as it is by now. Raises UnknownAdapter and DamagedFile."""
        with self._alone():
            folder = self.folder_of(digest)
            _write(folder, change(read_manifest(folder)))

    def count_attempt(self, exam: str) -> int:
        """Count a candidate that sits an exam, before it does, and return how many have."""
        path = self.folder / "attempts.json"
        attempts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        attempts[exam] = attempts.get(exam, 0) + 1
        write_whole(path, json.dumps(attempts, indent=2) + "\n")
        count: int = attempts[exam]
        return count

    def obstacle(self, manifest: Manifest) -> str:
        """Why an adapter may not serve; empty if it may."""
        if manifest.tainted:
            return manifest.tainted
        tried = self.canaries.find(manifest.adapter, self.current)
        if tried is not None and tried.verdict == "worse":
            return f"its canary was worse than what serves ({tried.reason})"
        if tried is not None and tried.verdict == "better":
            return ""
        if not manifest.verdicts:
            return "it has not sat an exam"
        last = manifest.verdicts[-1]
        if last.decision != "promote":
            return f"the gate's verdict is {last.decision} ({'; '.join(last.reasons)})"
        if last.against != self.current:
            return "its exam was against another model than the one that serves now"
        return ""

    def check(self, digest: str) -> None:
        """Return if an adapter may be promoted. Raises Refused and DamagedFile."""
        if reason := self.obstacle(read_manifest(self.folder_of(digest))):
            raise Refused(f"{digest} is not promoted: {reason}")

    def promote(self, digest: str, *, force: bool = False) -> None:
        """Let an adapter serve.

        force: also without a verdict to promote it against what serves now, which its manifest then says.
        Raises Refused and DamagedFile.
        """
        with self._alone():
            folder = self.folder_of(digest)
            manifest = read_manifest(folder)
            reason = self.obstacle(manifest)
            if reason and not force:
                raise Refused(f"{digest} is not promoted: {reason}")
            if reason:
                _write(folder, manifest.model_copy(update={"forced": True}))
            self._point(digest)

    def rollback(self) -> str:
        """Let what served before the last promotion serve again; returns its digest, empty for the base. A second
        rollback takes the first one back. Raises Refused and DamagedFile."""
        with self._alone():
            digest = self.check_rollback()
            self._point(digest)
            return digest

    def check_rollback(self) -> str:
        """What a rollback would return to. Raises Refused and DamagedFile."""
        if (digest := self.previous) is None:
            raise Refused("nothing was promoted yet, so there is nothing to return to")
        if digest:
            self.folder_of(digest)
        return digest

    def start_canary(self, digest: str, share: float, *, promotes: bool = False, force: bool = False) -> Canary:
        """Let an adapter write some of the first drafts for ``share`` of the requests that can be trials.

        promotes: let it serve as soon as it is shown to be better. force: also without a verdict to promote it.
        Raises Refused and DamagedFile.
        """
        with self._alone():
            self.check_canary(digest, force=force)
            return self.canaries.begin(digest, self.current, share, promotes=promotes, forced=force)

    def check_canary(self, digest: str, *, force: bool = False) -> None:
        """Return if an adapter's canary may start. Raises Refused and DamagedFile."""
        manifest = read_manifest(self.folder_of(digest))
        tried = self.canaries.find(digest, self.current)
        if (running := self.canaries.running) is not None:
            reason = f"the canary of {running.candidate} runs: stop it first"
        elif digest == self.current:
            reason = "it serves already"
        elif tried is not None and tried.verdict in ("better", "worse"):
            reason = f"its canary was {tried.verdict} than what serves ({tried.reason})"
        else:
            reason = "" if force else self.obstacle(manifest)
        if reason:
            raise Refused(f"the canary of {digest} does not start: {reason}")

    def end_canary(self, canary: Canary, verdict: CanaryVerdict, reason: str) -> bool:
        """End a canary, and let the candidate serve if it is better and was to be promoted. False if that has been done
        already. Raises Refused and DamagedFile, and the canary goes on, if the candidate cannot serve."""
        with self._alone():
            if self.canaries.running != canary:
                return False
            promotes = verdict == "better" and canary.promotes
            if promotes and (reason := read_manifest(self.folder_of(canary.candidate)).tainted):
                raise Refused(f"{canary.candidate} is not promoted: {reason}")
            self.canaries.end(canary, verdict, reason)
            if promotes:
                self._point(canary.candidate)
            return True

    def stop_canary(self, digest: str | None = None) -> Canary:
        """End the canary that runs, without a verdict. ``digest``: if it is this adapter's. Raises Refused."""
        canary = self.canaries.running
        if canary is None or digest not in (None, canary.candidate):
            raise Refused("no canary runs" if digest is None else f"no canary of {digest} runs")
        self.end_canary(canary, "undecided", "it was stopped")
        return canary

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The right to change manifests and what serves. Other processes wait for it: it is held for moments."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".pointer.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _point(self, digest: str) -> None:
        before = self.current
        if before == digest:
            return
        write_whole(self.folder / "previous", f"{before}\n")
        link, aside = self.folder / "current", self.folder / ".current"
        aside.unlink(missing_ok=True)
        if digest:
            aside.symlink_to(Path("adapters", digest))
            aside.replace(link)
        else:
            link.unlink(missing_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(folder: Path, manifest: Manifest) -> None:
    """Write an adapter's manifest, and its card for people."""
    write_manifest(folder, manifest)
    write_whole(folder / CARD, make_card(manifest))


def digest_of_adapter(folder: Path) -> str:
    """The digest of an adapter's configuration and weights. Raises DamagedFile."""
    digest = hashlib.sha256()
    for name in NEEDED:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise DamagedFile(f"{folder} is not the folder of an adapter: {name} cannot be read") from error
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:_DIGITS]
