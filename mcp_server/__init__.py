"""The MCP bridge: a plain HTTP client of the service."""
