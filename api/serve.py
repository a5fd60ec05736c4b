"""How an API process is started, in every shape: `python -m api.serve --host 0.0.0.0 --port 8000`.

Do not use uvicorn's own command: without the bounds of `connection.py` one client can use up memory and descriptors.
The bounds come from the settings.
"""

import argparse
import gc
import logging
import resource
from functools import partial
from typing import Any

import uvicorn

from api.app import create_app
from api.http.address import trusting
from api.http.connection import Connection
from api.http.connection_limit import Bounds, Connections
from engine.settings import ApiSettings, load_settings

log = logging.getLogger(__name__)

_OTHER_DESCRIPTORS = 256
"""Descriptors for everything but clients' connections: Postgres, Redis, Temporal, nodes, payees, libraries."""


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m api.serve", description="The HTTP API of Millrace.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    settings = load_settings(ApiSettings)
    app = create_app(settings)
    gc.freeze()  # as in worker.py
    bounds = Bounds(
        max_connections=_within_descriptors(settings.max_connections),
        max_connections_per_address=settings.max_connections_per_address,
        max_head_bytes=settings.max_head_bytes,
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
    )
    trusts = trusting(settings.forwarded_allow_ips)
    connections = Connections(bounds, trusts=trusts, ended=app.state.metrics.connection_ended)
    app.state.metrics.connections.set_function(connections.__len__)
    protocol: Any = partial(Connection, connections=connections)
    uvicorn.run(
        app,
        host=asked.host,
        port=asked.port,
        http=protocol,
        ws="none",  # an upgraded connection would escape these bounds
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        timeout_keep_alive=settings.idle_timeout_s,
        access_log=False,
        server_header=False,
    )


def _within_descriptors(wanted: int) -> int:
    """The wanted number of connections, or as many as the limit on descriptors leaves for them."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, max(16, hard - _OTHER_DESCRIPTORS))
    if most < wanted:
        log.warning("%s descriptors are allowed: at most %s connections", hard, most)
    return most


if __name__ == "__main__":
    main()
