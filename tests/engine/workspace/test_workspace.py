"""The workspace: what is read, what is skipped and why, and what is never reached."""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInputError, PathNotAllowedError
from engine.workspace import confined_file
from engine.workspace.documents import Documents
from engine.workspace.workspace import Workspace, _matches, _runs

SECRET = "the secret outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text(SECRET)
    root = tmp_path / "workspace"
    root.mkdir()
    for path in (
        "README.md",
        "docs/a.md",
        "docs/deep/b.rst",
        "docs/deep/c.txt",
        "notes/d.markdown",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"text of {path}")
    return root


def paths(root: Path, *sources: str) -> list[str]:
    return [path for path, _ in Workspace(root).read(sources or None).files]


def skipped(root: Path, *sources: str) -> dict[str, str]:
    return {s.path: s.reason for s in Workspace(root).read(sources or None).skipped}


ALL = ["README.md", "docs/a.md", "docs/deep/b.rst", "docs/deep/c.txt", "notes/d.markdown"]


def test_no_sources_read_the_whole_workspace_in_order(root: Path) -> None:
    read = Workspace(root).read(None)
    assert read.files == [(path, f"text of {path}") for path in ALL]
    assert read.skipped == []


def test_what_is_passed_over_is_read_when_it_is_named(root: Path) -> None:
    workspace = Workspace(root, passed_over=frozenset({"README.md", "docs"}))
    read = workspace.read(None)
    assert [path for path, _ in read.files] == ["notes/d.markdown"]
    assert [each.path for each in read.skipped] == ["README.md", "docs"]
    named = workspace.read(["README.md", "docs/deep"]).files
    assert [path for path, _ in named] == ["README.md", "docs/deep/b.rst", "docs/deep/c.txt"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("README.md", ["README.md"]),
        ("./docs/../README.md", ["README.md"]),
        ("docs", ALL[1:4]),
        ("docs/", ALL[1:4]),
        (".", ALL),
        ("*.md", ["README.md"]),
        ("docs/*", ["docs/a.md"]),
        ("docs/**/*.rst", ["docs/deep/b.rst"]),
        ("docs/**/*.md", ["docs/a.md"]),
        ("**/*.md", ["README.md", "docs/a.md"]),
        ("**/**/**/*.md", ["README.md", "docs/a.md"]),
        ("**", ALL),
        ("docs/**", ALL[1:4]),
        ("d*/", ALL[1:4]),
        ("**/deep/[bx].rst", ["docs/deep/b.rst"]),
        ("docs/?.md", ["docs/a.md"]),
    ],
)
def test_files_directories_and_globs_are_read(root: Path, source: str, expected: list[str]) -> None:
    assert paths(root, source) == expected
    assert paths(root, f"{root}/{source}") == expected


def test_overlapping_sources_give_each_file_once(root: Path) -> None:
    assert paths(root, "docs/**", "docs", "docs/a.md", str(root / "docs/a.md")) == ALL[1:4]


@given(
    path=st.lists(st.sampled_from("ab"), min_size=1, max_size=6),
    pattern=st.lists(st.sampled_from(["a", "b", "*", "**", "[b]"]), min_size=1, max_size=6),
)
def test_a_glob_matches_as_if_every_way_was_tried(path: list[str], pattern: list[str]) -> None:
    def tried(parts: list[str], pattern: list[str]) -> bool:
        if not pattern or not parts:
            return not pattern and not parts
        if pattern[0] != "**":
            return fnmatchcase(parts[0], pattern[0]) and tried(parts[1:], pattern[1:])
        ways = range(len(parts))
        return len(pattern) == 1 or any(tried(parts[n:], pattern[1:]) for n in ways)

    assert _matches(path, _runs("/".join(pattern))) == tried(path, pattern)


def test_a_glob_of_many_stars_is_matched_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    n_steps = 0

    def counted(name: str, pattern: str) -> bool:
        nonlocal n_steps
        n_steps += 1
        return fnmatchcase(name, pattern)

    monkeypatch.setattr("engine.workspace.workspace.fnmatchcase", counted)
    assert not _matches(["a"] * 1000, _runs("**/a/" * 500 + "b"))
    assert n_steps <= 3000


def test_a_file_whose_name_looks_like_a_glob_is_that_file(root: Path) -> None:
    (root / "a[1].md").write_text("x")
    assert paths(root, "a[1].md") == ["a[1].md"]


def test_a_workspace_reached_by_a_symlink_is_the_same(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert paths(tmp_path / "link") == ALL
    assert paths(tmp_path / "link", str(tmp_path / "link/docs/a.md")) == ["docs/a.md"]


@pytest.mark.parametrize(
    "source",
    [
        "../outside/secret.md",
        "../outside",
        "../outside/*.md",
        "../*/secret.md",
        "..",
        "docs/../../outside/secret.md",
        "/etc/hostname",
        "/etc/*",
        "../does-not-exist",
        "out",
        "out/secret.md",
        "out/*.md",
        "docs/secret.md",
        "docs/dangling.md",
        "../workspace-too/x.md",
    ],
)
def test_a_source_outside_refuses_the_whole_request(root: Path, source: str) -> None:
    (root / "out").symlink_to("../outside")
    (root / "docs/secret.md").symlink_to("../../outside/secret.md")
    (root / "docs/dangling.md").symlink_to("../../outside/nothing.md")
    with pytest.raises(PathNotAllowedError) as refusal:
        Workspace(root).read(["README.md", source])
    assert refusal.value.path == source


def test_symlinks_out_are_skipped_while_recursing(root: Path) -> None:
    (root / "docs/out").symlink_to("../../outside")
    (root / "docs/secret.md").symlink_to("../../outside/secret.md")
    read = Workspace(root).read(["docs"])
    assert [path for path, _ in read.files] == ALL[1:4]
    reason = "symlink out of the workspace"
    assert skipped(root, "docs") == {"docs/out": reason, "docs/secret.md": reason}
    assert SECRET not in str(read)


def test_a_symlink_inside_is_read_under_the_real_path(root: Path) -> None:
    (root / "notes/link.md").symlink_to("../docs/a.md")
    (root / "alias").symlink_to("docs")
    assert paths(root) == ALL
    assert paths(root, "notes") == ["docs/a.md", "notes/d.markdown"]
    assert paths(root, "alias") == ALL[1:4]
    assert paths(root, "alias/*.md") == ["docs/a.md"]


def test_symlink_loops_end(root: Path) -> None:
    (root / "docs/up").symlink_to("..")
    (root / "docs/self.md").symlink_to("self.md")
    assert paths(root) == ALL
    assert set(skipped(root)) == {"docs/up", "docs/self.md"}
    with pytest.raises(InvalidInputError, match="self"):
        Workspace(root).read(["docs/self.md/x"])


def swap_directory(root: Path) -> None:
    (root / "docs").rename(root / "was")
    (root / "docs").symlink_to("../outside")


def swap_file(root: Path) -> None:
    (root / "docs/a.md").unlink()
    (root / "docs/a.md").symlink_to("../../outside/a.md")


def swap_pipe(root: Path) -> None:
    (root / "docs/a.md").unlink()
    os.mkfifo(root / "docs/a.md")


@pytest.mark.parametrize("swap", [swap_directory, swap_file, swap_pipe])
def test_a_path_swapped_after_the_check_is_not_followed(
    root: Path, swap: Callable[[Path], None]
) -> None:
    (root.parent / "outside/a.md").write_text(SECRET)
    root_fd = os.open(root, os.O_RDONLY)
    swap(root)
    with pytest.raises(confined_file.UnreadableFileError):
        confined_file.read_text(root_fd, "docs/a.md", Documents(), max_bytes=100)
    os.close(root_fd)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.xlsx", b"PK", "unsupported type .xlsx"),
        ("Makefile", b"all:", "unsupported type (no suffix)"),
        ("binary.txt", b"ab\0cd", "binary"),
        ("nul16.md", "a\0b".encode("utf-16"), "binary"),
        ("cut16.md", "text".encode("utf-16")[:-1], "not UTF-16 at byte 8"),
        ("latin.md", "café".encode("latin-1"), "not UTF-8 at byte 3"),
        ("empty.md", b"", "empty"),
        ("blank.md", b" \n\t\n", "empty"),
        ("bom.md", b"\xef\xbb\xbf", "empty"),
        ("large.md", b"x" * 101, "larger than 100 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_skipped_with_the_reason(
    root: Path, name: str, content: bytes, reason: str
) -> None:
    (root / "docs" / name).write_bytes(content)
    read = Workspace(root, max_file_bytes=100).read(["docs", f"docs/{name}"])
    assert [(s.path, s.reason) for s in read.skipped] == [(f"docs/{name}", reason)]
    assert [path for path, _ in read.files] == ALL[1:4]


def test_a_byte_order_mark_is_no_text(root: Path) -> None:
    (root / "bom.md").write_bytes(b"\xef\xbb\xbfhello")
    assert Workspace(root).read(["bom.md"]).files == [("bom.md", "hello")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_told_by_its_byte_order_mark(root: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (root / "wide.md").write_bytes((mark + "größer").encode(encoding))
    assert Workspace(root).read(["wide.md"]).files == [("wide.md", "größer")]


def test_upper_case_suffixes_count(root: Path) -> None:
    (root / "READ.MD").write_text("x")
    assert paths(root, "READ.MD") == ["READ.MD"]


def test_special_files_are_skipped_unopened(root: Path) -> None:
    os.mkfifo(root / "docs/pipe.md")
    assert skipped(root, "docs", "docs/pipe.md") == {"docs/pipe.md": "not a regular file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_and_directories_are_skipped(root: Path) -> None:
    (root / "docs/a.md").chmod(0)
    (root / "docs/deep").chmod(0)
    found = skipped(root)
    (root / "docs/deep").chmod(0o700)
    assert found == {"docs/a.md": "Permission denied", "docs/deep": "Permission denied"}


def test_hidden_and_installed_directories_are_read_only_when_named(root: Path) -> None:
    for directory in (".git", "node_modules", "__pycache__", "env"):
        (root / directory).mkdir()
        (root / directory / "x.md").write_text("x")
    (root / "env/pyvenv.cfg").touch()
    (root / ".hidden.md").write_text("a hidden file is a file")
    assert paths(root) == [".hidden.md", *ALL]
    assert skipped(root) == {
        ".git": "hidden directory",
        "node_modules": "installed files",
        "__pycache__": "installed files",
        "env": "installed files",
    }
    assert paths(root, ".git/x.md", "env", "node_modules/*.md") == [
        ".git/x.md",
        "env/x.md",
        "node_modules/x.md",
    ]


def test_a_name_that_is_not_utf8_is_skipped_and_printable(root: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.md")).write_text("x")
    except OSError:
        pytest.skip("this file system refuses such names")
    assert skipped(root) == {"caf\ufffd.md": "the name is not UTF-8"}


@pytest.mark.parametrize("source", ["missing.md", "missing/*.md", "docs/a.md/x", "x" * 300])
def test_a_source_that_does_not_exist_is_refused_by_name(root: Path, source: str) -> None:
    with pytest.raises(InvalidInputError, match=source[:9].replace("*", ".")):
        Workspace(root).read(["README.md", source])


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_what_is_no_path_is_refused(root: Path, source: str) -> None:
    with pytest.raises(InvalidInputError, match="not a path"):
        Workspace(root).read([source])


def test_a_glob_that_matches_nothing_is_listed(root: Path) -> None:
    assert skipped(root, "README.md", "docs/*.mdx") == {"docs/*.mdx": "matches no file"}


def test_nothing_readable_says_what_was_looked_for(root: Path) -> None:
    (root / "docs/a.xlsx").write_bytes(b"PK")
    with pytest.raises(InvalidInputError) as refusal:
        Workspace(root).read(["docs/*.xlsx"])
    assert str(refusal.value) == (
        "Nothing to read in 'docs/*.xlsx': looked for .docx .htm .html .ipynb .markdown .md .mdx "
        ".pdf .rst .text .txt .xhtml; skipped docs/a.xlsx (unsupported type .xlsx)"
    )
    with pytest.raises(InvalidInputError, match="empty list"):
        Workspace(root).read([])


def test_a_workspace_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        Workspace(tmp_path / "none").read(None)
