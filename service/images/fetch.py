"""Images at addresses that callers name, fetched by the service itself and never by an engine.

A server that is given an address follows redirects, and looks at whatever its own network lets it reach. Here only
hosts that the operator names are asked, by https, at public addresses (outbound.py), and what they answer is bounded in
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
"""From the look-up of the host's name to the last byte."""


@dataclass(frozen=True)
class ImageAddress:
    """Where an image is to be fetched."""

    origin: Origin
    url: httpx.URL = field(repr=False)


class RemoteImages:
    """``hosts``: where images may be, each as ``host`` or ``host:port``; ValueError where one is none.

    ``public`` reaches the hosts; the tests' may be another.
    """

    def __init__(self, hosts: Sequence[str] = (), *, public: PublicTransport | None = None) -> None:
        self._origins = {parse_origin(host) for host in hosts}
        self._public = public or (PublicTransport(httpx.create_ssl_context()) if hosts else None)

    def check(self, address: ImageAddress) -> None:
        """Raise ValueError unless the operator allows it."""
        if self._public is None or address.origin not in self._origins:
            raise ValueError("the operator allows no images from this host and port; send it as a data: URL")

    async def fetch(self, address: ImageAddress) -> Image:
        """ValueError for every failure. The message is for the caller, and holds no URL and no address."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                return read_image(await self._fetch_body(address))
        except TimeoutError:
            raise ValueError(f"the image did not come within {FETCH_SECONDS:g} seconds") from None
        except ForbiddenAddress as error:
            raise ValueError(str(error)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise ValueError("no connection to the image's host could be made") from None
        except httpx.TransportError:
            raise ValueError("the connection broke before the image was complete") from None

    async def close(self) -> None:
        if self._public is not None:
            await self._public.aclose()

    async def _fetch_body(self, address: ImageAddress) -> bytes:
        """A bare transport follows no redirects, sends no cookies and decompresses nothing."""
        self.check(address)
        assert self._public is not None  # noqa: S101 - it was just checked
        headers = {"User-Agent": "redraft", "Accept": "image/*", "Accept-Encoding": "identity"}
        response = await self._public.handle_async_request(httpx.Request("GET", address.url, headers=headers))
        try:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"the image's host answers with the status {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise ValueError(f"an image may have at most {MOST_BYTES} bytes")
            return bytes(body)
        finally:
            await response.aclose()
