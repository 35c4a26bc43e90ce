"""Finds the proxy that the environment sets for a client.

httpx reads the environment too, but if one variable is invalid it fails, even for an address that does not need a
proxy. Desktops do export ``ALL_PROXY=socks://…`` and ``NO_PROXY=…,[::1]``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from urllib.request import getproxies, proxy_bypass

import httpx

from redraft.errors import InvalidProxy


def find_proxy(url: httpx.URL) -> str | None:
    """The proxy for a URL, or None. Services on this machine are reached without one.

    >>> find_proxy(httpx.URL("http://127.0.0.1:8000"))
    """
    if _is_loopback(url.host) or proxy_bypass(url.host):
        return None
    proxies = getproxies()
    return proxies.get(url.scheme) or proxies.get("all") or None


@contextmanager
def map_proxy_errors(proxy: str | None) -> Iterator[None]:
    """Turn httpx's errors about a proxy into InvalidProxy, without the password that its URL may contain."""
    try:
        yield
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        if proxy is None:
            raise
        hint = " (pip install 'httpx[socks]')" if isinstance(error, ImportError) else ""
        scheme = proxy.partition(":")[0]
        raise InvalidProxy(
            f"the environment names a {scheme} proxy that cannot be used{hint}: unset ALL_PROXY, HTTP_PROXY or "
            "HTTPS_PROXY, add the service's host to NO_PROXY, or pass an http_client"
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
