"""The guard: an LNURL cannot reach our network.

    https only          plain http, and addresses of our own network, on regtest only
    public hosts only   every address of the host is checked: one that is not public refuses the host

A host is resolved once, and only the addresses that were checked are connected to. So a name that resolves differently
the second time gains nothing. Each redirect passes the same checks.
"""

import ipaddress
from collections.abc import Sequence

import httpx

from engine.domain.errors import Invalid

_LAST_PORT = 65_535
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_TUNNELS = (ipaddress.IPv6Network("2001::/32"), ipaddress.IPv6Network("2002::/16"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def refused(reason: str) -> Invalid:
    """The error for an address that we do not call."""
    return Invalid(f"This destination cannot be asked: {reason}.", code="invalid_destination")


def allowed_place(url: httpx.URL, *, guarded: bool) -> tuple[str, int]:
    """Host and port of a URL that may be called. Raises Invalid (`invalid_destination`) for any other."""
    host = url.raw_host.decode("ascii")
    if url.scheme not in ({"https"} if guarded else {"http", "https"}) or not host or url.userinfo:
        raise refused("only https addresses without a login are asked")
    port = url.port or (443 if url.scheme == "https" else 80)
    if port > _LAST_PORT:
        raise refused("it is no URL")
    return host, port


def require_public(addresses: Sequence[str]) -> None:
    """Raises Invalid (`invalid_destination`) when any address of a host is not public."""
    if not all(is_public(address) for address in addresses):
        raise refused("its host is not on the public internet")


def is_public(address: str) -> bool:
    """Whether this IP address belongs to the public internet, also when it is wrapped in an IPv6 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_public_v4(ip)
    if ip.ipv4_mapped is not None:
        return _is_public_v4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_v4(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return ip in _GLOBAL_UNICAST and ip.is_global and not any(ip in tunnel for tunnel in _TUNNELS)


def _is_public_v4(ip: ipaddress.IPv4Address) -> bool:
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
