"""What travels between the service and its clients, declared once: for REST, MCP and OpenAPI."""
