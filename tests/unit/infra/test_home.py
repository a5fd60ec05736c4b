import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local import environment
from infra.local import home as home_module
from infra.local.bitcoin_rpc import BitcoinRpc
from infra.local.home import Home, ProcessState, State
from infra.local.parts.store import Failed

pytestmark = pytest.mark.unit


def test_two_homes_never_share_a_port_and_each_keeps_its_own(tmp_path: Path) -> None:
    one, other = Home(tmp_path / "one"), Home(tmp_path / "other")
    first, second = one.settle_ports(tmp_path / "registry"), other.settle_ports(tmp_path / "registry")

    assert not set(first.values()) & set(second.values())
    assert len(set(first.values())) == len(first)
    assert Home(tmp_path / "one").settle_ports(tmp_path / "registry") == first


def test_homes_that_look_for_ports_at_the_same_moment_take_different_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are as many blocks as homes, so that two which do not wait for each other's choice meet in one."""
    many = 12
    monkeypatch.setattr(home_module, "LAST_PORT", home_module.FIRST_PORT + (many + 1) * len(home_module.PORTS))
    monkeypatch.setattr(home_module, "_free", lambda _port: True)
    homes = [Home(tmp_path / f"home-{number}") for number in range(many)]

    with ThreadPoolExecutor(many) as threads:
        taken = list(threads.map(lambda home: home.settle_ports(tmp_path / "registry")["postgres"], homes))

    assert len(set(taken)) == many


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    assert home.secrets() == Home(tmp_path / "home").secrets()
    assert stat.S_IMODE((tmp_path / "home" / "secrets.json").stat().st_mode) == 0o600
    assert len(home.secrets()["preimage_secret"]) == 64
    assert Home(tmp_path / "other").secrets() != home.secrets()


def test_a_home_has_one_supervisor_at_a_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert not home.running()

    lock = home.claim()
    assert lock is not None
    assert home.claim() is None
    assert home.running()

    lock.close()
    assert not home.running()


def test_the_state_that_the_supervisor_writes_is_read_back_whole(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    said = State(pid=7, ready=True, doing="ready", processes={"lnd-1": ProcessState("ready", 8, 2)})
    home.write_state(said)

    assert home.read_state() == said
    assert Home(tmp_path / "new").read_state() == State()


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Failed, match="set MILLRACE_HOME"):
        Home(tmp_path / "file" / "home")


def test_each_process_is_told_only_what_its_work_needs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.settle_ports(tmp_path / "registry")
    api, worker = environment.of_api(home), environment.of_worker(home, "worker-1")

    assert "@" not in api["MILLRACE_BITCOIND_URL"] + worker["MILLRACE_BITCOIND_URL"]
    assert worker["MILLRACE_BITCOIND_AUTH_FILE"] == str(home.bitcoind_auth)
    assert "MILLRACE_BITCOIND_AUTH_FILE" not in api
    assert "receive.macaroon" in api["MILLRACE_NODES"]
    assert "worker.macaroon" not in api["MILLRACE_NODES"]
    assert not {"MILLRACE_ADMIN_KEY", "MILLRACE_PREIMAGE_SECRET"} & set(worker)
    assert "admin.macaroon" not in api["MILLRACE_NODES"] + worker["MILLRACE_NODES"]
    assert "millrace_app" in worker["MILLRACE_POSTGRES_DSN"]


def test_a_child_inherits_no_secret_of_another_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_ADMIN_KEY", "of another stack")
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("MILLRACE_RATE_LIMIT_PER_MINUTE", "5")

    inherited = environment.inherited()

    assert not {"MILLRACE_ADMIN_KEY", "PGHOST"} & set(inherited)
    assert inherited["MILLRACE_RATE_LIMIT_PER_MINUTE"] == "5"


def test_clients_are_told_every_process_and_every_api(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ports = home.settle_ports(tmp_path / "registry")
    names = ("api-1", "api-2", "worker-1", "lnd-1", "postgres")
    state = State(processes={name: ProcessState("ready", number) for number, name in enumerate(names, 100)})

    told = environment.exported(home, state)

    assert told["MILLRACE_API_URLS"] == f"http://127.0.0.1:{ports['api-1']},http://127.0.0.1:{ports['api-2']}"
    assert told["MILLRACE_API_URL"] == f"http://127.0.0.1:{ports['api-1']}"
    assert (told["MILLRACE_PID_API"], told["MILLRACE_PID_API_1"], told["MILLRACE_PID_API_2"]) == ("100", "100", "101")
    assert (told["MILLRACE_PID_WORKER"], told["MILLRACE_PID_LND_1"]) == ("102", "103")
    assert told["MILLRACE_LND_1_MACAROON"].endswith("admin.macaroon")


def test_the_temporal_ui_opens_where_the_workflows_of_this_stack_are(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ports = home.settle_ports(tmp_path / "registry")

    told = environment.exported(home, State())

    namespace = environment.of_processes(home)["MILLRACE_TEMPORAL_NAMESPACE"]
    here = f"http://127.0.0.1:{ports['temporal-ui']}/namespaces/{namespace}/workflows"
    assert told["MILLRACE_TEMPORAL_UI_URL"] == here


def test_a_bitcoind_that_is_silent_is_named_with_what_it_was_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match="bitcoind gave no answer to createwallet within 0 s"):
            BitcoinRpc(f"http://user:secret@127.0.0.1:{port}", timeout_s=0.1).call("createwallet")
