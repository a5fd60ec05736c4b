"""Converts messages to JSON for Temporal's histories and back. Pydantic reads them and checks every field.

Like Temporal's own pydantic converter, except that what pydantic compiles for a type is kept for the process. Temporal
makes a new converter for every workflow, and compiling took a tenth of a worker's time.
"""

from functools import cache
from typing import Any

from pydantic import TypeAdapter
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - any type that a message may have
    return TypeAdapter(kind)


class _Json(PydanticJSONPlainPayloadConverter):
    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ANN401 - as the base class
        return _adapter(Any if type_hint is None else type_hint).validate_json(payload.data)


class MessageConverter(CompositePayloadConverter):
    """Converts messages of `engine.contracts`, and anything else that pydantic reads and writes."""

    def __init__(self) -> None:
        json = _Json()
        super().__init__(
            *(
                json if isinstance(each, JSONPlainPayloadConverter) else each
                for each in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


DATA_CONVERTER = DataConverter(payload_converter_class=MessageConverter)
"""Give this to every client, worker and replayer."""
