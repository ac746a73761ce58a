"""The memory engine: a library without Ray, HTTP, MCP or environment variables."""
