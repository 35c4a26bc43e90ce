"""Fetches images at addresses from callers. The service does it itself and never leaves it to an engine.

A server that is given an address follows redirects, and fetches whatever it can reach in its own network. Here only
hosts that the operator lists are asked, over https and at public addresses (outbound.py), and the answer is limited in
bytes and seconds. See docs/design/decisions/0015-images.md.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from service.engines.conversation import Image
from service.images.headers import MOST_BYTES, read_image
from service.outbound import ForbiddenAddress, Origin, PublicTransport, parse_origin

FETCH_SECONDS = 10.0
"""From resolving the host's name to the last byte."""


@dataclass(frozen=True)
class ImageAddress:
    """The address of an image."""

    origin: Origin
    url: httpx.URL = field(repr=False)


class RemoteImages:
    """Fetches images from allowed hosts. Raises ValueError for an invalid host.

    hosts: the allowed ones, each as ``host`` or ``host:port``.
    public: the transport to reach them, by default one to public addresses.

    >>> image = await RemoteImages(["images.example"]).fetch(address)
    """

    def __init__(self, hosts: Sequence[str] = (), *, public: PublicTransport | None = None) -> None:
        self._origins = {parse_origin(host) for host in hosts}
        self._public = public or (PublicTransport(httpx.create_ssl_context()) if hosts else None)

    def check(self, address: ImageAddress) -> None:
        """Raise ValueError unless the operator allows the address."""
        if self._public is None or address.origin not in self._origins:
            raise ValueError("the operator does not allow images from this host and port; send it as a data: URL")

    async def fetch(self, address: ImageAddress) -> Image:
        """Fetch an image. Raises ValueError for every failure, with a message for the caller that does not contain the
        URL or the host's address."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                return read_image(await self._fetch_body(address))
        except TimeoutError:
            raise ValueError(f"the image did not arrive within {FETCH_SECONDS:g} seconds") from None
        except ForbiddenAddress as error:
            raise ValueError(str(error)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise ValueError("could not connect to the image's host") from None
        except httpx.TransportError:
            raise ValueError("the connection broke before the image was complete") from None

    async def close(self) -> None:
        if self._public is not None:
            await self._public.aclose()

    async def _fetch_body(self, address: ImageAddress) -> bytes:
        """A transport alone does not follow redirects, send cookies or decompress anything."""
        self.check(address)
        assert self._public is not None  # noqa: S101 - it was just checked
        headers = {"User-Agent": "redraft", "Accept": "image/*", "Accept-Encoding": "identity"}
        response = await self._public.handle_async_request(httpx.Request("GET", address.url, headers=headers))
        try:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"the image's host answered with status {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise ValueError(f"an image may have at most {MOST_BYTES} bytes")
            return bytes(body)
        finally:
            await response.aclose()
