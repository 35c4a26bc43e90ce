"""The folder of adapters, and which of them serves.

    adapters/<digest>/      an adapter's files and its manifest; a folder appears whole or not at all
    current                 a link to the adapter that serves; missing while the base alone serves
    previous                what ``current`` was before, as a file: a digest, or empty for the base
    attempts.json           how many candidates have sat each exam

``current`` is replaced by a rename, so that a process that opens it finds the old adapter or the new one, even if this
one is killed at any moment. An adapter's name is the digest of its files, and a folder whose files have another digest
is damaged: it is neither examined nor promoted.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from service.learning.collected import DamagedFile, write_whole
from service.learning.manifest import Manifest, read_manifest, write_manifest

NEEDED = ("adapter_config.json", "adapter_model.safetensors")
_DIGITS = 16


class Refused(Exception):
    """An order that would harm what serves. The message is a sentence for the operator."""


class Registry:
    """The adapters of a folder. One process at a time may change them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._adapters = folder / "adapters"

    @property
    def current(self) -> str:
        """The digest of the adapter that serves; empty for the base."""
        link = self._folder / "current"
        return Path(os.readlink(link)).name if link.is_symlink() else ""

    def list(self) -> Sequence[Manifest]:
        """The manifests of all adapters, the oldest first. Raises DamagedFile."""
        if not self._adapters.is_dir():
            return []
        found = [read_manifest(folder) for folder in self._adapters.iterdir() if not folder.name.startswith(".")]
        return sorted(found, key=lambda manifest: manifest.created)

    def add(self, trained: Path, describe: Callable[[str], Manifest]) -> Manifest:
        """Move a trained adapter in, with the manifest that ``describe`` makes for its digest. The folder ``trained``
        must be on the same file system. Raises DamagedFile if it is not an adapter."""
        digest = digest_of_adapter(trained)
        manifest = describe(digest)
        write_manifest(trained, manifest)
        self._adapters.mkdir(parents=True, exist_ok=True)
        target = self._adapters / digest
        if target.exists():  # trained again with the same result
            shutil.rmtree(trained)
            return read_manifest(target)
        trained.replace(target)
        return manifest

    def folder_of(self, digest: str) -> Path:
        """The whole folder of an adapter. Raises Refused for an unknown one, and DamagedFile."""
        folder = self._adapters / digest
        if not digest or digest.startswith(".") or "/" in digest or not folder.is_dir():
            known = ", ".join(manifest.adapter for manifest in self.list()) or "none yet"
            raise Refused(f"there is no adapter {digest}; there are: {known}")
        if (found := digest_of_adapter(folder)) != digest:
            raise DamagedFile(f"the adapter {digest} is damaged: its files have the digest {found}")
        return folder

    def update(self, manifest: Manifest) -> None:
        """Write an adapter's manifest again."""
        write_manifest(self.folder_of(manifest.adapter), manifest)

    def count_attempt(self, exam: str) -> int:
        """Count a candidate that sits an exam, before it does, and return how many have."""
        path = self._folder / "attempts.json"
        attempts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        attempts[exam] = attempts.get(exam, 0) + 1
        write_whole(path, json.dumps(attempts, indent=2) + "\n")
        count: int = attempts[exam]
        return count

    def promote(self, digest: str, *, force: bool = False) -> None:
        """Let an adapter serve.

        force: also without a verdict to promote it against what serves now, which its manifest then says.
        Raises Refused and DamagedFile.
        """
        manifest = read_manifest(self.folder_of(digest))
        reason = _obstacle(manifest, self.current)
        if reason and not force:
            raise Refused(f"{digest} is not promoted: {reason}")
        if reason:
            self.update(manifest.model_copy(update={"forced": True}))
        self._point(digest)

    def rollback(self) -> str:
        """Let what served before the last promotion serve again; returns its digest, empty for the base. A second
        rollback takes the first one back. Raises Refused."""
        path = self._folder / "previous"
        if not path.exists():
            raise Refused("nothing was promoted yet, so there is nothing to return to")
        digest = path.read_text(encoding="utf-8").strip()
        if digest:
            self.folder_of(digest)
        self._point(digest)
        return digest

    def _point(self, digest: str) -> None:
        before = self.current
        if before == digest:
            return
        write_whole(self._folder / "previous", f"{before}\n")
        link, aside = self._folder / "current", self._folder / ".current"
        aside.unlink(missing_ok=True)
        if digest:
            aside.symlink_to(Path("adapters", digest))
            aside.replace(link)
        else:
            link.unlink(missing_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def _obstacle(manifest: Manifest, current: str) -> str:
    """Why an adapter may not serve; empty if it may."""
    if manifest.tainted:
        return manifest.tainted
    if not manifest.verdicts:
        return "it has not sat an exam"
    last = manifest.verdicts[-1]
    if last.decision != "promote":
        return f"the gate's verdict is {last.decision} ({'; '.join(last.reasons)})"
    if last.against != current:
        return "its exam was against another model than the one that serves now"
    return ""
