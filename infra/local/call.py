"""`./run call`: one HTTP request to the running stack's API, for machines without curl; standard library only.

Its options are curl's, so that a line of the README's tour works with either.
"""

import argparse
import http.client
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from infra.local import environment
from infra.local.commands import running_stack
from infra.local.parts.store import Failed

LIMIT_S = 75  # A payment waits for its end for at most 60 s.


def call(arguments: Sequence[str]) -> int:
    """Print the API's answer, whatever its status; raises `Failed` when there is none. A repeat is sent again."""
    options = _options(arguments)
    home, state = running_stack()
    url = urlsplit(environment.exported(home, state)["MILLRACE_API_URL"])
    headers = dict(_header(line) for line in options.header)
    if options.key:
        headers["Authorization"] = f"Bearer {options.key}"
    if options.json is not None:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=LIMIT_S)
    try:
        connection.request(options.method, options.path, options.json and options.json.encode(), headers)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Failed(f"The API gave no answer ({error}): ./run status shows whether it runs.") from None
    finally:
        connection.close()
    if options.include:
        head = [
            f"HTTP/1.1 {answer.status} {answer.reason}",
            *(f"{name}: {value}" for name, value in answer.getheaders()),
        ]
        print(*head, "", sep="\n")
    sys.stdout.write(body if body.endswith("\n") else f"{body}\n")
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run call", description="One request to the running stack's API.")
    parser.add_argument("method", metavar="METHOD", help="GET, POST, …")
    parser.add_argument("path", metavar="PATH", help="for example /v1/limits?window=day")
    parser.add_argument("key", metavar="KEY", nargs="?", help="an API key; public pages need none")
    parser.add_argument("--json", metavar="BODY", help="the body, and that it is JSON")
    parser.add_argument("-H", "--header", metavar="LINE", action="append", default=[], help="one more header")
    parser.add_argument("-i", "--include", action="store_true", help="print the answer's status and headers too")
    return parser.parse_args(arguments)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise Failed(f"{line!r} is no header: write it like 'Idempotency-Key: lunch'.")
    return name.strip(), value.strip()
