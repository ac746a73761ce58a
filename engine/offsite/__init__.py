"""Backups off the machine: snapshots in an object store, without knowing which one."""
