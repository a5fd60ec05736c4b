"""A Temporal server of its own, in memory, with our search attributes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.testing import WorkflowEnvironment

from engine.contracts import search_attributes
from engine.contracts.converter import DATA_CONVERTER


@asynccontextmanager
async def running(temporal: Path) -> AsyncIterator[WorkflowEnvironment]:
    """Started with this program, for the length of the block."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(temporal), data_converter=DATA_CONVERTER
    ) as environment:
        attributes = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in search_attributes.ALL}
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=environment.client.namespace, search_attributes=attributes)
        )
        yield environment
