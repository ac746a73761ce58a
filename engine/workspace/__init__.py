"""Files under the workspace directory, as passages."""
