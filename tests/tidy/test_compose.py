"""docker-compose.yml and the image: read as plain data everywhere, by Docker itself where there is one.

The one line of the image that makes LND's stubs is run here, on a small protocol of its own.
"""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.local import services as local
from infra.local.parts import lnd
from tests.tidy.house import ROOT, read
from tests.tidy.rendering import COMPOSE, services

pytestmark = pytest.mark.tidy

DOCKERFILE = ROOT / "infra/docker/Dockerfile"
PINNED = re.compile(r"^[a-z0-9./-]+:\d+(\.\d+)+(-[a-z0-9.]+)?$")
STUBS_LINE = re.compile(r'^RUN python -c "(.*)"$', re.MULTILINE)
EVERYWHERE = "0.0.0.0"  # noqa: S104 - of the container
SECRET = re.compile(r"PASSWORD|PWD|SECRET|KEY|DSN")


def unsound(name: str, service: dict[str, Any]) -> list[str]:
    """What every service must have, whatever it runs."""
    found = []
    image = service.get("image", "")
    if not PINNED.match(image):
        found.append(f"{name}: the image {image!r} is not pinned to a version")
    once = service.get("restart") == "no"
    if "healthcheck" not in service and not once:
        found.append(f"{name}: nothing tells whether it is healthy")
    if not once and service.get("restart") != "unless-stopped":
        found.append(f"{name}: it does not start again")
    found += [f"{name}: {port} is open to the world" for port in service.get("ports", []) if "127.0.0.1:" not in port]
    for key, value in service.get("environment", {}).items():
        if SECRET.search(key) and "${" not in str(value):
            found.append(f"{name}: {key} is written down")
    return found


def broken_references(all_services: dict[str, dict[str, Any]]) -> list[str]:
    """A service waits for a service that exists, and for an end only of one that ends."""
    found = []
    for name, service in all_services.items():
        for other, how in service.get("depends_on", {}).items():
            ends = all_services.get(other, {}).get("restart") == "no"
            if other not in all_services or ends != (how["condition"] == "service_completed_successfully"):
                found.append(f"{name} cannot wait for {other}")
    return found


@pytest.mark.parametrize("name", services())
def test_every_service_is_sound(name: str) -> None:
    assert unsound(name, services()[name]) == []


def test_services_wait_for_what_exists() -> None:
    assert broken_references(services()) == []


def test_mounted_files_exist() -> None:
    mounts = [mount.split(":")[0] for each in services().values() for mount in each.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith("./") and not (ROOT / mount).exists()] == []


def test_the_image_is_made_of_what_exists() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(copied) > 5
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_the_image_holds_the_commands_that_compose_starts() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    words = [word for each in services().values() if "build" in each for word in each.get("command", [])]
    files = [word for word in words if word.endswith((".py", ".ini"))]
    assert len(files) == 2
    assert [file for file in files if not any(file == path or file.startswith(f"{path}/") for path in copied)] == []


def test_the_image_makes_the_stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protos = tmp_path / "protos"
    (protos / "routerrpc").mkdir(parents=True)
    head = 'syntax = "proto3";\n'
    (protos / "lightning.proto").write_text(f"{head}package lnrpc;\nmessage Note {{ string text = 1; }}\n")
    text = f'{head}import "lightning.proto";\npackage routerrpc;\nmessage Two {{ lnrpc.Note one = 1; }}\n'
    (protos / "routerrpc/router.proto").write_text(text)
    (tmp_path / "engine/clients").mkdir(parents=True)
    monkeypatch.setattr(lnd, "protos", lambda _store, _go: protos)
    monkeypatch.chdir(tmp_path)
    (line,) = STUBS_LINE.findall(DOCKERFILE.read_text(encoding="utf-8"))
    exec(compile(line, "Dockerfile", "exec"), {})  # noqa: S102 the line is ours: the test is that it runs
    assert (tmp_path / "engine/clients/lndrpc/routerrpc/router_pb2.py").is_file()


def test_the_image_starts_the_api_as_the_local_stack_does() -> None:
    """With the bounds of api/http/connection.py, which are the settings'."""
    (command,) = re.findall(r"^CMD (.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    usual = [str(word) for word in local.api_command(Path("python"), 8000)]
    assert json.loads(command) == [word.replace("127.0.0.1", EVERYWHERE) for word in usual]


def test_nobody_starts_the_api_in_another_way() -> None:
    """uvicorn's own command knows no bounds: a factory that needs an argument cannot be started by it."""
    functions = {node.name: node for node in read(ROOT / "api/app.py").tree.body if isinstance(node, ast.FunctionDef)}
    assert functions["create_app"].args.args
    assert not functions["create_app"].args.defaults
    files = [ROOT / path for path in ("README.md", "infra", "tests", "docs", ".ci", "docker-compose.yml")]
    texts = [each for file in files for each in (file.rglob("*") if file.is_dir() else [file]) if each.is_file()]
    other = re.compile(r"uvicorn[\"', ]+api\.app")
    assert [str(each) for each in texts if other.search(each.read_text("utf-8", "ignore"))] == []


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A copy of what compose reads, with every blank of the example filled in."""
    shutil.copytree(ROOT / "infra/docker", tmp_path / "infra/docker")
    shutil.copytree(ROOT / "infra/temporal", tmp_path / "infra/temporal")
    shutil.copy(COMPOSE, tmp_path)
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(re.sub(r"^(\w+)=$", r"\1=/filled", example, flags=re.MULTILINE), encoding="utf-8")
    return tmp_path


def config(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "compose", "config"], cwd=folder, capture_output=True, text=True, check=False)


def test_docker_accepts_it_filled_in_and_names_what_is_missing(filled: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose on this machine: the tests above read the file without it")
    complete = config(filled)
    assert complete.returncode == 0, complete.stderr
    (filled / ".env").write_text("", encoding="utf-8")
    missing = config(filled)
    assert missing.returncode != 0
    assert "set it in .env" in missing.stderr


GOOD = {
    "image": "postgres:18.6",
    "restart": "unless-stopped",
    "healthcheck": {},
    "ports": ["127.0.0.1:1:1"],
    "environment": {"POSTGRES_PASSWORD": "${A:?}"},
}


@pytest.mark.parametrize(
    "change",
    [
        {"image": "postgres"},
        {"image": "postgres:latest"},
        {"image": "postgres:18"},
        {"restart": "always"},
        {"ports": ["8000:8000"]},
        {"environment": {"MILLRACE_ADMIN_KEY": "hunter2"}},
    ],
)
def test_an_unsound_service_is_seen(change: dict[str, Any]) -> None:
    assert unsound("a", GOOD) == []
    assert len(unsound("a", GOOD | change)) == 1


def test_a_service_without_healthcheck_is_seen() -> None:
    bare = {key: value for key, value in GOOD.items() if key != "healthcheck"}
    assert len(unsound("a", bare)) == 1
    assert unsound("a", bare | {"restart": "no"}) == []


def test_a_wrong_wait_is_seen() -> None:
    ends = {"condition": "service_completed_successfully"}
    once = {"restart": "no"}
    assert broken_references({"a": {"depends_on": {"b": ends}}, "b": once}) == []
    assert broken_references({"a": {"depends_on": {"b": {"condition": "service_healthy"}}}, "b": once}) != []
    assert broken_references({"a": {"depends_on": {"b": ends}}}) != []
