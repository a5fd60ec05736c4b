"""The environment of a stack's programs: the settings of our own processes, and `export` lines for any client.

Each process gets only what its work needs: the API's node macaroon can make, look up and cancel invoices, the worker's
can pay but not spend on-chain, and the admin macaroons are for people and tests.
"""

import json
import os
from collections.abc import Mapping

from infra.local.bitcoin_rpc import HOT
from infra.local.home import BANK, MOST_APIS, NODES, Home, State

NAMESPACE = "millrace"
DATABASE, OWNER, APP = "millrace", "millrace_owner", "millrace_app"
_PUBLIC_LIMIT = "MILLRACE_PUBLIC_RATE_LIMIT_PER_MINUTE"


def dsn(home: Home, role: str) -> str:
    """How a role reaches the database."""
    password = home.secrets()["owner_password" if role == OWNER else "app_password"]
    return f"postgresql://{role}:{password}@127.0.0.1:{home.ports()['postgres']}/{DATABASE}"


def bitcoind_credentials(home: Home) -> str:
    """User and password, as in bitcoind's own cookie file."""
    return f"millrace:{home.secrets()['bitcoind_password']}"


def bitcoind_url(home: Home, *, with_credentials: bool) -> str:
    """How bitcoind is reached."""
    who = f"{bitcoind_credentials(home)}@" if with_credentials else ""
    return f"http://{who}127.0.0.1:{home.ports()['bitcoind']}"


def bitcoind_zmq(home: Home) -> str:
    """Where bitcoind publishes blocks and transactions."""
    return f"tcp://127.0.0.1:{home.ports()['bitcoind-zmq']}"


def of_processes(home: Home) -> dict[str, str]:
    """The settings that the API, the workers and every client share."""
    ports = home.ports()
    return {
        "MILLRACE_POSTGRES_DSN": dsn(home, APP),
        "MILLRACE_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
        "MILLRACE_TEMPORAL_ADDRESS": f"127.0.0.1:{ports['temporal']}",
        "MILLRACE_TEMPORAL_NAMESPACE": NAMESPACE,
        "MILLRACE_BITCOIN_NETWORK": "regtest",
    }


def of_api(home: Home) -> dict[str, str]:
    """The API's settings."""
    secrets = home.secrets()
    return {
        **of_processes(home),
        "MILLRACE_BITCOIND_URL": bitcoind_url(home, with_credentials=False),
        "MILLRACE_ADMIN_KEY": secrets["admin_key"],
        "MILLRACE_PREIMAGE_SECRET": secrets["preimage_secret"],
        "MILLRACE_PUBLIC_URL": f"http://127.0.0.1:{home.ports()['api-1']}",
        # Here all clients have one address.
        _PUBLIC_LIMIT: os.environ.get(_PUBLIC_LIMIT) or "6000",
        "MILLRACE_NODES": _nodes(home, "receive"),
    }


def of_worker(home: Home, name: str) -> dict[str, str]:
    """A worker's settings; it creates its ready file when its pollers run."""
    return {
        **of_processes(home),
        "MILLRACE_BITCOIND_URL": bitcoind_url(home, with_credentials=False),
        "MILLRACE_BITCOIND_AUTH_FILE": str(home.bitcoind_auth),
        "MILLRACE_BITCOIND_ZMQ": bitcoind_zmq(home),
        "MILLRACE_HOT_WALLET": HOT,
        "MILLRACE_NODES": _nodes(home, "worker"),
        "MILLRACE_READY_FILE": str(home.folder / "run" / f"{name}.ready"),
    }


def inherited() -> dict[str, str]:
    """This process's environment without what would mislead a child.

    That is another stack's secrets, libpq's defaults, and a ban on byte code: Temporal's sandbox loads the workflow's
    modules for each workflow, and without byte code it compiles them each time (seen: half of a worker's time).
    """
    misleading = (
        "MILLRACE_ADMIN_KEY",
        "MILLRACE_PREIMAGE_SECRET",
        "MILLRACE_POSTGRES_OWNER_DSN",
        "MILLRACE_TOOLS",
        "MILLRACE_NODES",
        "PYTHONDONTWRITEBYTECODE",
    )
    return {name: value for name, value in os.environ.items() if name not in misleading and not name.startswith("PG")}


def exported(home: Home, state: State) -> dict[str, str]:
    """What `./run env` prints, with the processes' ids of this moment."""
    ports, apis = (
        home.ports(),
        [f"api-{number}" for number in range(1, MOST_APIS + 1) if f"api-{number}" in state.processes],
    )
    urls = [f"http://127.0.0.1:{ports[api]}" for api in apis or ["api-1"]]
    found = {
        "MILLRACE_API_URL": urls[0],
        "MILLRACE_API_URLS": ",".join(urls),
        "MILLRACE_ADMIN_KEY": home.secrets()["admin_key"],
        **of_processes(home),
        "MILLRACE_POSTGRES_OWNER_DSN": dsn(home, OWNER),
        "MILLRACE_TEMPORAL_UI_URL": f"http://127.0.0.1:{ports['temporal-ui']}/namespaces/{NAMESPACE}/workflows",
        "MILLRACE_BITCOIND_URL": bitcoind_url(home, with_credentials=True),
        "MILLRACE_BITCOIND_ZMQ": bitcoind_zmq(home),
        "MILLRACE_HOT_WALLET": HOT,
    }
    for node in NODES:
        prefix = f"MILLRACE_{_upper(node)}"
        found[f"{prefix}_ADDRESS"] = f"127.0.0.1:{ports[node]}"
        found[f"{prefix}_TLS_CERT"] = str(home.certificate(node))
        found[f"{prefix}_MACAROON"] = str(home.macaroon(node, "admin"))
    for name, process in state.processes.items():
        if process.pid is not None:
            found[f"MILLRACE_PID_{_upper(name)}"] = str(process.pid)
            if name in ("api-1", "worker-1"):
                found[f"MILLRACE_PID_{_upper(name.removesuffix('-1'))}"] = str(process.pid)
    return found


def _nodes(home: Home, role: str) -> str:
    ports = home.ports()
    nodes: Mapping[str, Mapping[str, str]] = {
        node: {
            "address": f"127.0.0.1:{ports[node]}",
            "tls_cert": str(home.certificate(node)),
            "macaroon": str(home.macaroon(node, role)),
        }
        for node in BANK
    }
    return json.dumps(nodes)


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
