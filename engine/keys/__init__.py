"""Keys: who may call, in which namespaces, to do what, and how much of it."""
