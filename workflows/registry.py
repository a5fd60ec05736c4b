"""The workflows of this room, found so that none can be forgotten."""

import importlib
import inspect
import pkgutil

import workflows


def find_workflows() -> list[type]:
    """Every workflow that stands in the room of workflows."""
    modules = [importlib.import_module(f"workflows.{found.name}") for found in pkgutil.iter_modules(workflows.__path__)]
    return [
        each
        for module in modules
        for name, each in inspect.getmembers(module, inspect.isclass)
        if name.endswith("Workflow") and each.__module__ == module.__name__
    ]
