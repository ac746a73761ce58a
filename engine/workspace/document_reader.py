"""The process that reads documents, within bounds, and answers them as Markdown."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Callable
from typing import Any

_CPU_S = 120
_MEMORY_BYTES = 3 << 30
_UNPACKED_BYTES = 300 << 20
"""Of a Word document, which is a ZIP file."""
_PARTS = 10_000
_PAGES = 10_000
_CHARS = 50_000_000

_UNSEEN = ["script", "style", "noscript", "template", "svg", "nav", "iframe", "object"]
_LANGUAGE = re.compile(r"(?:language|lang|highlight-source|brush:?)[-\s]([\w+#.-]+)")

_WORD_TITLE = re.compile(r'<h1 class="title">(.*?)</h1>', re.DOTALL)


def main() -> None:
    """Answer each document on stdin with what it says, or why it cannot be read, on stdout.

    A question is `<suffix> <bytes>` on a line and the document, an answer `read <bytes>` or
    `failed <bytes>` and the text.
    """
    asked, answered = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a parser prints
    while line := asked.readline():
        suffix, size = line.split()
        _bound()
        try:
            outcome, text = "read", _READERS[suffix.decode()](asked.read(int(size)))
            if len(text) > _CHARS:
                raise _RefusedError(f"it says more than {_CHARS} characters")
        except _RefusedError as exc:
            outcome, text = "failed", str(exc)
        except (MemoryError, RecursionError):
            outcome, text = "failed", "it takes too much memory to read"
        except Exception as exc:  # noqa: BLE001 - parsers of foreign files raise almost anything
            outcome, text = "failed", f"it cannot be read: {str(exc) or type(exc).__name__}"
        said = (text if outcome == "read" else " ".join(text.split())).encode("utf-8", "replace")
        answered.write(f"{outcome} {len(said)}\n".encode() + said)
        answered.flush()


class _RefusedError(Exception):
    """A document is beyond the bounds."""


def _bound() -> None:
    """Let the next document take so much and no more."""
    import resource

    taken = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    until_s = int(taken.ru_utime + taken.ru_stime) + _CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def _html(content: bytes | str) -> str:
    from bs4 import BeautifulSoup, Comment, Doctype
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(content, "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for tag in soup([*_UNSEEN, "head", "title"]):
        tag.decompose()
    for part in soup.find_all(string=lambda string: isinstance(string, Comment | Doctype)):
        part.extract()
    for image in soup("img"):
        image.replace_with(str(image.get("alt") or ""))
    first = soup.find(["h1", "h2", "h3"])
    # A page's title often repeats its first heading, with the name of the site.
    is_new = title and not (first and " ".join(first.get_text().split()) in title)
    text = MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        strip=["a"],
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
        code_language_callback=_language,
    ).convert_soup(soup)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"# {title}\n\n{_lowered(text)}" if is_new else text


def _lowered(markdown: str) -> str:
    """Headings one level further down, for those below a page's title."""
    if not re.search(r"(?m)^# ", markdown):
        return markdown
    parts = re.split(r"(?ms)(^```.*?^```)", markdown)
    return "".join(
        part if n % 2 else re.sub(r"(?m)^(#{1,5}) ", r"#\1 ", part) for n, part in enumerate(parts)
    )


def _language(pre: Any) -> str | None:  # noqa: ANN401 - a tag of bs4
    """The language of a block of code, by the class that highlighters give it."""
    for tag in (pre, pre.find("code"), pre.parent):
        found = _LANGUAGE.search(" ".join(tag.get("class") or []) if tag else "")
        if found:
            return found[1]
    return None


def _word(content: bytes) -> str:
    import mammoth

    with zipfile.ZipFile(io.BytesIO(content)) as file:
        parts = file.infolist()
    if len(parts) > _PARTS or sum(part.file_size for part in parts) > _UNPACKED_BYTES:
        raise _RefusedError("it unpacks to more than a document does")
    converted = mammoth.convert_to_html(
        io.BytesIO(content),
        style_map="p[style-name='Title'] => h1.title:fresh",
        convert_image=mammoth.images.img_element(lambda image: {"alt": image.alt_text or ""}),
    )
    title = _WORD_TITLE.search(converted.value)
    head = f"<title>{title[1]}</title>" if title else ""
    body = _with_heading_rows(_WORD_TITLE.sub("", converted.value, count=1))
    return _html(f"<html><head>{head}</head><body>{body}</body></html>")


def _with_heading_rows(html: str) -> str:
    """Word marks few heading rows; a table's first row is read as one."""
    return re.sub(r"<table><tr>(.*?)</tr>", _heading_row, html, flags=re.DOTALL)


def _heading_row(match: re.Match[str]) -> str:
    cells = re.sub(r"<(/?)td\b", r"<\1th", match[1])
    return f"<table><thead><tr>{cells}</tr></thead>"


def _pdf(content: bytes) -> str:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise _RefusedError("it is encrypted")
    if len(reader.pages) > _PAGES:
        raise _RefusedError(f"it has more than {_PAGES} pages")
    headings = _outline(reader)
    title = reader.metadata.title if reader.metadata else None
    texts = [f"# {' '.join(title.split())}"] if title and headings else []
    n_chars = 0
    for number, page in enumerate(reader.pages):
        text = _with_headings(page.extract_text(), headings.get(number, []))
        texts.append(text)
        n_chars += len(text)
        if n_chars > _CHARS:
            break
    return "\n\n".join(text for text in texts if text.strip())


def _outline(reader: Any) -> dict[int, list[tuple[int, str]]]:  # noqa: ANN401 - of pypdf
    """Level and title of a document's bookmarks, by the number of their page."""
    headings: dict[int, list[tuple[int, str]]] = {}

    def take(entries: list[Any], level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                take(entry, level + 1)
                continue
            number, title = reader.get_destination_page_number(entry), " ".join(entry.title.split())
            if title and number is not None:
                headings.setdefault(number, []).append((min(level, 6), title))

    try:
        take(reader.outline, 2)
    except Exception:  # noqa: BLE001 - a broken outline is no reason not to read the pages
        return {}
    return headings


def _with_headings(text: str, headings: list[tuple[int, str]]) -> str:
    """A page whose bookmarks are headings where they stand, or else at its top."""
    lines = [line.rstrip() for line in text.replace("\0", "").split("\n")]
    at_top = []
    for level, title in headings:
        heading = f"{'#' * level} {title}"
        at = next((n for n, line in enumerate(lines) if _is_title(line, title)), None)
        if at is None:
            at_top.append(heading)
        else:
            lines[at] = f"\n{heading}\n"
    return "\n\n".join([*at_top, "\n".join(lines)])


def _is_title(line: str, title: str) -> bool:
    words = " ".join(line.split())
    return words == title or re.fullmatch(rf"[\dA-Z.]+ {re.escape(title)}", words) is not None


_READERS: dict[str, Callable[[bytes], str]] = {
    ".html": _html,
    ".htm": _html,
    ".xhtml": _html,
    ".docx": _word,
    ".pdf": _pdf,
}
