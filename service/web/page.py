"""The page at ``/``, for people who want to see a refine at work, and the files that it loads.

All files but the page itself are below the digest of their content, so that a browser keeps them for good and an
update never mixes two versions. The page uses the API as any other client does, and has no rights of its own.

The policy that is sent with it lets nothing run that is not one of these files, and lets nothing leave for another
host. Texts of models and callers could therefore do no harm even if one were ever taken for markup.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.errors import NotFound
from service.web.assets import Asset, digest_of, read_assets

INDEX = "index.html"
ENTRY = "js/main.js"
SCHEMA = "schema.json"
SHOWN = "RefineRequest"
"""The schema that the page makes its form from."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
REVALIDATED = "no-cache"
FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Features:
    """What this service offers beyond the refine: the page asks for a key, shows jobs, or shows what is learned only
    where there are any."""

    keys: bool
    jobs: bool
    stored_traces: bool
    learning: bool


@dataclass(frozen=True)
class Page:
    """The page with its files. They are read when the first browser asks for them.

    features: what the page offers.
    openapi: gives the OpenAPI document.
    """

    features: Features
    openapi: Callable[[], Mapping[str, Any]]

    @cached_property
    def files(self) -> Mapping[str, Asset]:
        """What is below the digest."""
        contents = {name: content for name, content in read_assets().items() if name != INDEX}
        schema = json.dumps(reachable(self.openapi(), SHOWN), separators=(",", ":"))
        return {name: Asset.of(name, content) for name, content in {**contents, SCHEMA: schema.encode()}.items()}

    @cached_property
    def digest(self) -> str:
        return digest_of(self.files)

    @cached_property
    def index(self) -> Asset:
        modules = (name for name in self.files if name.endswith(".js") and name != ENTRY)
        preloaded = "\n".join(f'<link rel="modulepreload" href="assets/{self.digest}/{name}">' for name in modules)
        features = json.dumps({name: getattr(self.features, name) for name in Features.__slots__})
        template = read_assets()[INDEX].decode()
        filled = template.replace("{{ assets }}", f"assets/{self.digest}").replace("{{ features }}", escape(features))
        return Asset.of(INDEX, filled.replace("{{ modules }}", preloaded).encode())


def reachable(openapi: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema ``name`` of an OpenAPI document with all schemas that it refers to, by their names."""
    schemas = openapi["components"]["schemas"]
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = schemas[current]
            waiting += _references(schemas[current])
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner.rpartition("/")[2]
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def make_router(page: Page) -> APIRouter:
    """The routes of the page. They need no key: what they show is the same for everyone."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        return send(request, page.index, REVALIDATED)

    @router.get("/assets/{digest}/{path:path}")
    async def asset(request: Request, digest: str, path: str) -> Response:
        if digest != page.digest or path not in page.files:
            raise NotFound("there is no such file of the page; reload it")
        return send(request, page.files[path], FOR_GOOD)

    return router


def send(request: Request, asset: Asset, cache: str) -> Response:
    """The asset, compressed if the client takes that; 304 if the client has it."""
    headers = {**SECURITY, "Cache-Control": cache, "ETag": asset.etag, "Vary": "Accept-Encoding"}
    if asset.etag in _listed(request, "if-none-match"):
        return Response(status_code=304, headers=headers)
    if "gzip" in _listed(request, "accept-encoding"):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed, headers=headers, media_type=asset.media_type)
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def _listed(request: Request, header: str) -> list[str]:
    """The items of a header without parameters; those with a quality of zero are left out."""
    found = []
    for item in request.headers.get(header, "").split(","):
        value, _, parameter = item.partition(";")
        if parameter.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            found.append(value.strip().removeprefix("W/"))
    return found
