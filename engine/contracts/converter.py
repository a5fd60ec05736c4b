"""How messages become JSON in Temporal's histories, and how they are read back: by pydantic, which checks every field.

As Temporal's own pydantic converter, but what pydantic compiles for a type is kept for the process. Temporal makes a
new converter for every workflow, and compiling was a tenth of a worker's time.
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
    """For messages of `engine.contracts`, and whatever else pydantic reads and writes."""

    def __init__(self) -> None:
        json = _Json()
        super().__init__(
            *(
                json if isinstance(each, JSONPlainPayloadConverter) else each
                for each in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


DATA_CONVERTER = DataConverter(payload_converter_class=MessageConverter)
"""For every client, worker and replayer."""
