"""LND's gRPC stubs, generated from the protocol files of exactly the pinned LND.

The upstream files import each other by bare paths. They are copied under the name of one package and their imports
prefixed with it, so that the generated modules import each other inside that package and nothing else claims their
names. The result is kept in the cache and copied into the checkout, where git ignores it.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

from infra.local.parts import lnd
from infra.local.parts.store import Store, remove

PACKAGE = Path("engine/clients/lndrpc")
CURE = "LND's gRPC stubs could not be generated: run ./run again, and if it happens again delete the cache folder"


def install(store: Store, python: Path, protos: Path, root: Path) -> None:
    """Have the current stubs at their place in the checkout."""
    source = _generated(store, python, protos)
    target = root / PACKAGE
    stamp = source.name
    with store.lock(f"stubs-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"):
        if (target / ".made-from").is_file() and (target / ".made-from").read_text() == stamp:
            return
        fresh = target.with_name(f".lndrpc-{os.getpid()}")
        remove(fresh)
        shutil.copytree(source / PACKAGE, fresh)
        (fresh / ".made-from").write_text(stamp)
        remove(target)
        fresh.rename(target)


def _generated(store: Store, python: Path, protos: Path) -> Path:
    def build(folder: Path) -> None:
        sources = folder / "protos" / PACKAGE
        names = []
        for proto in sorted(protos.rglob("*.proto")):
            name = proto.relative_to(protos)
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_text(
                re.sub(r'^import "', f'import "{PACKAGE}/', proto.read_text(), flags=re.MULTILINE)
            )
            names.append(str(PACKAGE / name))
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        plugins = [
            f"--plugin=protoc-gen-{name}={python.parent / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")
        ]
        store.run(
            "stubs", CURE, [python, "-m", "grpc_tools.protoc", f"-I{folder / 'protos'}", *plugins, *outputs, *names]
        )
        for place in {(folder / name).parent for name in names}:
            (place / "__init__.py").write_text(
                f'"""Generated from LND {lnd.version()} by `./run`; not kept in git."""\n'
            )

    return store.item(
        f"stubs-{lnd.key()}-{python.parent.parent.name.rpartition('-')[2]}",
        build,
        what="LND's gRPC stubs",
        usually="2 s",
    )
