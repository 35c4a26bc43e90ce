"""The files of the page as they are sent: read once, compressed once, named by what is in them."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

MEDIA_TYPES = MappingProxyType(
    {
        "css": "text/css; charset=utf-8",
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "json": "application/json",
        "svg": "image/svg+xml",
    }
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. ``etag``: of its content, with quotes."""

    content: bytes
    compressed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> "Asset":
        """The asset with the media type of its name's ending. The same content always has the same bytes and tag."""
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return cls(content, gzip.compress(content, mtime=0), media_type, f'"{_digest(content)}"')


def read_assets() -> dict[str, bytes]:
    """The content of every file in ``files``, by its path there, in order."""
    return dict(sorted(_walk(files("service.web") / "files", "")))


def digest_of(assets: Mapping[str, Asset]) -> str:
    """What names all assets together: one that changes gives all of them another address."""
    return _digest("".join(f"{name} {asset.etag}\n" for name, asset in assets.items()).encode())


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        found += _walk(entry, f"{name}/") if entry.is_dir() else [(name, entry.read_bytes())]
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
