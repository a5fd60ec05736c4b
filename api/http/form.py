"""HTML forms as browsers send them."""

from urllib.parse import parse_qs

from fastapi import Request

from api.http.body import read_body
from api.http.codes import BadRequest
from engine.domain.errors import Invalid

_FORM_TYPE = "application/x-www-form-urlencoded"
_MOST_FIELDS = 10


async def read_form(request: Request, max_bytes: int) -> dict[str, str]:
    """The fields of the form, each once. Raises Invalid, BadRequest or TooLarge for anything but a small form."""
    media_type = request.headers.get("content-type", _FORM_TYPE).partition(";")[0].strip().lower()
    if media_type != _FORM_TYPE:
        raise BadRequest(f"A form must be sent as {_FORM_TYPE}.")
    body = await read_body(request, max_bytes)
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise Invalid("The form cannot be read.") from None
    return {name: values[0] for name, values in fields.items()}
