"""Filters are declared once: what one border offers, every border offers."""

from __future__ import annotations

from dataclasses import fields

from engine.records import MemoryFilter
from mcp_server.tools import arguments
from scripts.cli.options import FILTERS
from wire.requests import ExportQuery, Filters, ListQuery, SearchRequest


def test_every_filter_of_the_service_is_an_option_of_the_command_line() -> None:
    assert FILTERS.keys() == Filters.model_fields.keys()


def test_every_request_for_several_memories_takes_every_filter() -> None:
    for asked in (SearchRequest, ListQuery, ExportQuery, arguments.Search, arguments.ListMemories):
        assert Filters.model_fields.keys() <= asked.model_fields.keys(), asked


def test_every_condition_of_the_engine_can_be_asked_for() -> None:
    conditions = {field.name.removesuffix("_us") for field in fields(MemoryFilter)}
    assert conditions == {*Filters.model_fields, "metadata"} - {"timezone"}
