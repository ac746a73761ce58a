"""`faiss-memory-mcp`: without arguments the stdio bridge, else the command line."""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Run the bridge, or the command that the arguments name."""
    # stdout belongs to the protocol.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    if sys.argv[1:]:
        from mcp_server.cli import app

        app(prog_name="faiss-memory-mcp")
    else:
        from mcp_server.transport.stdio import serve_stdio

        try:
            serve_stdio()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
