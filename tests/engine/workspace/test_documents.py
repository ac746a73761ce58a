"""HTML, PDF, Word and notebooks: what they say becomes passages, within bounds."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from engine.workspace import documents
from engine.workspace.chunking import chunk_file
from engine.workspace.documents import Documents, UnreadableDocumentError
from engine.workspace.workspace import Workspace
from tests.engine.workspace.test_chunking import count_words

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

PAGE = """<html><head><title>Tides - Sea Site</title><style>x{}</style></head><body>
<nav>menu</nav><h1>Tides</h1><p>A <a href="http://x">spring</a> tide, <img src="data:x" alt="moon">.
</p><h2>Heights</h2><table><tr><th>day</th><th>height_m</th></tr><tr><td>Mon</td><td>3.2</td></tr>
</table><ul><li>one<ul><li>nested</li></ul></li></ul>
<pre><code class="language-rust">let x = 1;
# no heading</code></pre><script>bad()</script></body></html>"""


def word(*paragraphs: tuple[str, str], table: list[list[str]] | None = None) -> bytes:
    """A Word document of (style, text) paragraphs and maybe a table after them."""

    def paragraph(style: str, text: str) -> str:
        styled = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        return f"<w:p>{styled}<w:r><w:t>{text}</w:t></w:r></w:p>"

    body = "".join(paragraph(style, text) for style, text in paragraphs)
    rows = (
        "<w:tr>" + "".join(f"<w:tc>{paragraph('', cell)}</w:tc>" for cell in row) + "</w:tr>"
        for row in table or []
    )
    body += f"<w:tbl>{''.join(rows)}</w:tbl>" if table else ""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name}"><w:name w:val="{shown}"/></w:style>'
        for name, shown in (("Title", "Title"), ("Heading1", "heading 1"))
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="a" '
            f'Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        )
        parts.writestr(
            "word/_rels/document.xml.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="b" '
            f'Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        )
        types = (
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
            'relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
        )
        parts.writestr(
            "[Content_Types].xml", f'<Types xmlns="{_PACKAGE}/content-types">{types}</Types>'
        )
        parts.writestr("word/styles.xml", f'<w:styles xmlns:w="{_W}">{styles}</w:styles>')
        parts.writestr(
            "word/document.xml",
            f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>',
        )
    return file.getvalue()


def pdf(*pages: list[str], title: str = "", bookmarks: tuple[tuple[str, int], ...] = ()) -> bytes:
    """A PDF of pages of lines, with bookmarks of a title and a page's number."""
    from pypdf import PdfWriter
    from pypdf.generic import DictionaryObject, NameObject, StreamObject

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject(f"/{name}"): NameObject(f"/{value}")
            for name, value in (("Type", "Font"), ("Subtype", "Type1"), ("BaseFont", "Helvetica"))
        }
    )
    for lines in pages:
        page = writer.add_blank_page(width=300, height=300)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        shown = StreamObject()
        drawn = " 0 -20 Td ".join(f"({line}) Tj" for line in lines)
        shown.set_data(f"BT /F1 12 Tf 20 250 Td {drawn} ET".encode())
        page[NameObject("/Contents")] = writer._add_object(shown)
    writer.add_metadata({"/Title": title})
    for name, number in bookmarks:
        writer.add_outline_item(title=name, page_number=number)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def document_text(content: bytes, suffix: str) -> str:
    with Documents() as reader:
        return reader.text(content, suffix)


def texts_of(path: str, content: bytes) -> list[str]:
    text = document_text(content, Path(path).suffix)
    return [c.text for c in chunk_file(path, text, count_pieces=count_words, max_pieces=64)]


def test_a_page_s_text_is_read_and_nothing_else_of_it() -> None:
    assert texts_of("a.html", PAGE.encode()) == [
        "Tides\n\nA spring tide, moon.",
        "Tides > Heights\n\n| day | height_m |\n| --- | --- |\n| Mon | 3.2 |\n\n- one\n  - nested"
        "\n\n```rust\nlet x = 1;\n# no heading\n```",
    ]


def test_a_page_whose_title_says_more_than_its_headings_stands_below_it() -> None:
    page = "<title>Sea Site</title><h1>Ebb</h1>falls<h1>Flow</h1>rises"
    assert texts_of("a.htm", page.encode()) == [
        "Sea Site > Ebb\n\nfalls",
        "Sea Site > Flow\n\nrises",
    ]


def test_a_page_in_another_encoding_is_read_as_it_says() -> None:
    page = '<meta charset="iso-8859-1"><p>Früh</p>'.encode("latin-1")
    assert document_text(page, ".html") == "Früh"


def test_a_word_document_has_its_title_headings_and_tables() -> None:
    paragraphs = (("Title", "Handbook"), ("Heading1", "Travel"), ("", "Trains before planes."))
    table = [["host", "owner"], *([f"srv-{n:03}", f"Dana{n}"] for n in range(40))]
    first, *others = chunk_file(
        "a.docx",
        document_text(word(*paragraphs, table=table), ".docx"),
        count_pieces=count_words,
        max_pieces=64,
    )
    assert first.text.startswith("Handbook > Travel\n\nTrains before planes.\n\n| host | owner |")
    assert {chunk.metadata["passage_context"] for chunk in others} == {"host | owner"}


def test_a_pdf_has_its_bookmarks_for_headings() -> None:
    pages = ["1 Start", "It was built in 1871."], ["Ola Brun kept it."]
    content = pdf(*pages, title="Log", bookmarks=(("Start", 0), ("Keepers", 1)))
    assert texts_of("a.pdf", content) == [
        "Log > Start\n\nIt was built in 1871.",
        "Log > Keepers\n\nOla Brun kept it.",
    ]


def test_a_notebook_s_cells_are_read_without_their_outputs() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Study\n", "Of tides"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "noise"}]},
        {"cell_type": "raw", "source": ""},
    ]
    book = {"cells": cells, "metadata": {"language_info": {"name": "python"}}}
    assert texts_of("a.ipynb", json.dumps(book).encode()) == [
        "Study\n\nOf tides\n\n```python\nx = 1\n```"
    ]


@pytest.mark.parametrize(("level", "marks"), [(10**19, "######"), (0, "#")])
def test_an_old_notebook_s_heading_is_no_deeper_than_headings_are(level: int, marks: str) -> None:
    cell = {"cell_type": "heading", "level": level, "source": "Tides"}
    content = json.dumps({"worksheets": [{"cells": [cell]}]}).encode()
    assert document_text(content, ".ipynb") == f"{marks} Tides"


def test_a_word_document_that_unpacks_to_gigabytes_is_refused_unpacked() -> None:
    file = io.BytesIO(word(("", "x")))
    with (
        zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as parts,
        parts.open("word/bomb.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(320):
            part.write(b"\0" * (1 << 20))
    with pytest.raises(UnreadableDocumentError, match="unpacks to more"):
        document_text(file.getvalue(), ".docx")


def test_a_page_nested_without_end_is_that_file_s_problem_alone() -> None:
    with pytest.raises(UnreadableDocumentError, match="too much"):
        document_text(b"<div>" * 20_000, ".html")


def test_a_document_that_takes_too_long_does_not_take_the_next_one_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "_LONGEST_S", 0)
    with Documents() as reader:
        with pytest.raises(UnreadableDocumentError, match="too much time"):
            reader.text(b"<p>x" * 1_000_000, ".html")
        monkeypatch.setattr(documents, "_LONGEST_S", 300)
        assert [reader.text(f"<p>{n}".encode(), ".html") for n in range(3)] == ["0", "1", "2"]


def test_an_encrypted_pdf_says_so() -> None:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["secret"]))))
    writer.encrypt("key", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    with pytest.raises(UnreadableDocumentError, match="encrypted"):
        document_text(file.getvalue(), ".pdf")


@pytest.mark.parametrize("suffix", [".pdf", ".docx", ".ipynb"])
def test_what_is_no_such_document_is_skipped_with_the_reason(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"junk")
    (tmp_path / "b.md").write_text("words")
    read = Workspace(tmp_path).read(None)
    assert [path for path, _ in read.files] == ["b.md"]
    [skipped] = read.skipped
    assert skipped.path == f"a{suffix}"
    assert skipped.reason.startswith("it ")


def test_a_scan_without_a_text_layer_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([]))
    (tmp_path / "b.md").write_text("words")
    assert [s.reason for s in Workspace(tmp_path).read(None).skipped] == ["empty"]


def test_without_its_package_a_document_is_skipped_with_the_command_that_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "find_spec", lambda name: None)
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "b.md").write_text("words")
    [skipped] = Workspace(tmp_path).read(None).skipped
    assert skipped.reason == ".pdf is read after pip install 'faiss-memory[documents]'"
