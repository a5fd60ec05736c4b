"""The address under which the requests of a client are counted."""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache

_V6_SITE = 64
_REMEMBERED = 4096


def trusting(networks: Sequence[str]) -> Callable[[str], bool]:
    """A function that tells whether an address is in one of these networks, which must be valid."""
    known = [ipaddress.ip_network(network) for network in networks]

    @lru_cache(maxsize=_REMEMBERED)
    def trusts(host: str) -> bool:
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(ip in network for network in known)

    return trusts


@lru_cache(maxsize=_REMEMBERED)
def site(host: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: a client is given at least a /64, which has 2^64 addresses."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((ip, _V6_SITE), strict=False).network_address)
