"""Where things lie when no setting says so: in a checkout, or as an installed program."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path

_ROOT = Path(__file__).parent.parent
OWN_PAGES = frozenset(
    {"README.md", "CHANGELOG.md", "benchmarks", "deploy", "docs", "integrations", "tests"}
)
"""What a checkout brings of its own that looks like somebody's notes."""


def checkout() -> Path | None:
    """The checkout that this code runs in; None when it is installed."""
    return _ROOT if (_ROOT / "pyproject.toml").is_file() else None


def default_data_dir() -> Path:
    """`./data` for a checkout, else the platform's directory for a user's data."""
    return local_data_dir() if checkout() else installed_data_dir()


def local_data_dir() -> Path:
    """`./data`."""
    return Path("data").absolute()


def installed_data_dir() -> Path:
    """The platform's directory for what a program keeps for its user."""
    return user_data_path("faiss-memory", appauthor=False)


def pages_not_to_build(workspace_dir: Path) -> frozenset[str]:
    """Top-level names in a workspace that are this product's own and nobody's notes."""
    root = checkout()
    return OWN_PAGES if root and workspace_dir.resolve() == root.resolve() else frozenset()
