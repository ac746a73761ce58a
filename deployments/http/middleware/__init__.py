"""The layers around the routes: pure ASGI, each wrapped in the one before."""
