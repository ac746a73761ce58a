"""The `faiss-memory` command: a client of the service, and a door to the scripts beside it."""
