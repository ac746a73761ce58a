"""What a namespace may be called, and which globs are of it."""

from __future__ import annotations

import re

import pytest

from engine.namespaces import is_covered, is_name
from wire.limits import NAMESPACE, NAMESPACE_GLOB


@pytest.mark.parametrize("name", ["default", "a", "0", "team.a", "a-b_c.d", "a" * 100])
def test_names_that_are_allowed(name: str) -> None:
    assert is_name(name)
    assert re.search(NAMESPACE, name)
    assert re.search(NAMESPACE_GLOB, name)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "_a", "a b", "a/b", "a\n", "ä", "a*", "*", "a" * 101, "a\0"]
)
def test_names_that_are_not(name: str) -> None:
    assert not is_name(name)
    assert not re.fullmatch(NAMESPACE, name) or name.endswith("\n")


@pytest.mark.parametrize(
    ("globs", "covered", "others"),
    [
        (["*"], ["a", "team.b"], []),
        (["team.*"], ["team.a", "team.b.c"], ["team", "teams.a", "a.team.b", "default"]),
        (["team*"], ["team", "teams"], ["tea"]),
        (["a", "b"], ["a", "b"], ["ab", "aa", "c"]),
        ([], [], ["a"]),
    ],
)
def test_a_glob_is_of_what_begins_alike(
    globs: list[str], covered: list[str], others: list[str]
) -> None:
    assert all(is_covered(name, globs) for name in covered)
    assert not any(is_covered(name, globs) for name in others)
