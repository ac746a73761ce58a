"""How a host reaches the tools: stdio and HTTP."""
