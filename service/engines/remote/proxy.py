"""The proxy between here and a server, as the environment names it.

Read here and not by httpx, which refuses to start over a variable that has nothing to do with the server: desktops
export ``ALL_PROXY=socks://...``, and ``NO_PROXY`` with addresses in brackets.
"""

import ipaddress
import os
from urllib.request import getproxies, proxy_bypass

import httpx

from service.engines.served import EngineMisconfigured

SCHEMES = ("http", "https")
VARIABLES = "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"


def proxy_for(url: str) -> str | None:
    """The proxy for a server's address; none for one on this machine, or one that NO_PROXY names.

    EngineMisconfigured where the proxy is of a kind that cannot be used; the message holds no part of its address,
    in which there may be a password.
    """
    address = httpx.URL(url)
    if is_loopback(address.host) or _is_exempt(address.host, address.port):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy:
        return None
    scheme, separator, _ = proxy.partition("://")
    if not separator:
        scheme, proxy = "http", f"http://{proxy}"
    if scheme.lower() not in SCHEMES:
        raise EngineMisconfigured(
            f"the proxy that the environment names for the engine's server ({VARIABLES}) is not an HTTP proxy; unset "
            "it, or name the server's host in NO_PROXY"
        )
    try:
        httpx.Proxy(proxy)
    except (httpx.InvalidURL, ValueError):
        raise EngineMisconfigured(f"the proxy that the environment names ({VARIABLES}) has no valid address") from None
    return proxy


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("127.0.0.2"), is_loopback("10.0.0.1")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def _is_exempt(host: str, port: int | None) -> bool:
    """Whether NO_PROXY names the host, an address of IPv6 in brackets or without."""
    named = {entry.strip().strip("[]").lower() for entry in os.environ.get("NO_PROXY", "").split(",")}
    named |= {entry.strip().strip("[]").lower() for entry in os.environ.get("no_proxy", "").split(",")}
    return host.lower() in named or bool(proxy_bypass(host if port is None else f"{host}:{port}"))
