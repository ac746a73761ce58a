"""The tools as clients see them in `tools/list`.

The bridge answers the first `tools/list` from a file made here, before the SDK is loaded:

    python -m mcp_server.tools.described_tools > mcp_server/tools/tools_list.json
"""

from __future__ import annotations

import json
import sys
from functools import cache

import mcp_types as types

from mcp_server.tools.catalogue import TOOLS
from mcp_server.tools.schema import PlainSchema


@cache
def described_tools() -> list[types.Tool]:
    """Name, texts, schemas and hints of each tool."""
    return [
        types.Tool(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=tool.arguments.model_json_schema(schema_generator=PlainSchema),
            output_schema=tool.result.model_json_schema(schema_generator=PlainSchema),
            annotations=tool.annotations,
        )
        for tool in TOOLS.values()
    ]


if __name__ == "__main__":
    tools = [
        tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in described_tools()
    ]
    json.dump({"tools": tools}, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")
