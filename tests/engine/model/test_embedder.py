import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InvalidInputError, ModelNotFoundError
from engine.model.embedder import MAX_RUN_TOKENS, Embedder
from engine.model.files import MANIFEST_FILE, TOKENISER_FILE, Precision, default_model_dir
from engine.model.precision import choose_precision, default_precision, read_cpuinfo
from engine.model.tokeniser import MAX_PIECES, Tokeniser

MODEL_DIR = default_model_dir(os.environ, Path.home())
CASES = json.loads((Path(__file__).parent / "canonical_embeddings.json").read_bytes())["cases"]
TEXTS = [case["text"] for case in CASES]
UNKNOWN = ["", "Pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 120]
CANONICAL = np.array([case["embedding"] for case in CASES], np.float32)

int8_capable = pytest.mark.skipif(
    default_precision(read_cpuinfo()) != "int8", reason="this processor saturates int8 products"
)


@pytest.fixture(scope="module")
def fp32() -> Embedder:
    return Embedder(MODEL_DIR, precision="fp32")


@pytest.fixture(scope="module")
def int8() -> Embedder:
    return Embedder(MODEL_DIR, precision="int8")


def test_fp32_gives_the_official_embeddings(fp32: Embedder) -> None:
    embeddings = fp32.embed(TEXTS)

    said = np.abs(embeddings).max(axis=1) > 0
    np.testing.assert_allclose(embeddings[said], CANONICAL[said], atol=1e-5)
    assert [text for text, known in zip(TEXTS, said.tolist(), strict=True) if not known] == UNKNOWN


@int8_capable
def test_int8_stays_close_to_the_official_embeddings(int8: Embedder) -> None:
    embeddings = int8.embed(TEXTS)
    cosines = (embeddings * CANONICAL).sum(axis=1)[embeddings.any(axis=1)]

    assert cosines.min() > 0.99  # the least are texts of no or one sign
    assert cosines.mean() > 0.997


def test_case_and_spacing_do_not_change_an_embedding(fp32: Embedder) -> None:
    plain, *variants = fp32.embed(
        ["a quiet Lisbon street", "A QUIET LISBON STREET", "  a\tquiet\n\n lisbon   street\u00a0"]
    )

    for variant in variants:
        np.testing.assert_array_equal(variant, plain)


def test_text_past_the_256th_piece_does_not_change_an_embedding(fp32: Embedder) -> None:
    head = "word " * (MAX_PIECES - 2)

    cut, whole = fp32.embed([head, head + "and something else entirely"])

    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_embedding_does_not_depend_on_the_batch(
    precision: str, request: pytest.FixtureRequest
) -> None:
    embedder: Embedder = request.getfixturevalue(precision)
    texts = [f"item {word} of the list" for word in ("one", "two", "six", "ten")] * 8

    together = embedder.embed(texts)

    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_embeddings_come_back_in_the_order_of_the_texts(fp32: Embedder) -> None:
    texts = ["short", "a rather longer text about lighthouses", "mid length text", "short again"]

    embeddings = fp32.embed(texts)

    for text, embedding in zip(texts, embeddings, strict=True):
        np.testing.assert_allclose(fp32.embed([text])[0], embedding, atol=1e-6)


def test_no_texts_give_an_empty_matrix(fp32: Embedder) -> None:
    embeddings = fp32.embed([])

    assert embeddings.shape == (0, 384)
    assert embeddings.dtype == np.float32


def test_runs_cover_every_text_once_and_stay_short(fp32: Embedder) -> None:
    texts = [" ".join(["memory"] * (1 + i * 7 % 300)) for i in range(90)] + TEXTS

    runs = fp32.plan_runs(texts)

    covered = np.concatenate([run.rows for run in runs])
    assert sorted(covered) == list(range(len(texts)))
    for run in runs:
        assert len(run.rows) == len(run.token_ids)
        assert run.token_ids.size <= MAX_RUN_TOKENS
        for row, ids in zip(run.rows, run.token_ids, strict=True):
            assert len(ids) == min(fp32.count_pieces(texts[row]), MAX_PIECES)


def test_several_threads_may_share_one_embedder(fp32: Embedder) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(fp32.embed, [TEXTS[:8]] * 8))

    for embeddings in results:
        np.testing.assert_allclose(embeddings[:4], CANONICAL[:4], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("\u202e rtl", 1),
        ("10 cats 🙂", 1),
        ("\x00", 0),
        ("\u200b\u200d\ufeff", 0),
        ("\U0010ffff", 0),
        ("e\u0301" * 600, 0),
        ("🙂", 0),
        ("ระบบจะรีสตาร์ท ok", 0),
        ("ระบบ restarts every night at two", 1),
    ],
)
def test_a_text_that_the_model_does_not_know_has_an_embedding_of_zeros(
    text: str, length: int, fp32: Embedder
) -> None:
    assert np.linalg.norm(fp32.embed([text])[0]) == pytest.approx(length, abs=1e-5)


def test_the_hidden_rows_of_a_query_add_up_to_its_embedding(fp32: Embedder) -> None:
    query = fp32.read("Where does user_service live, in Lisbon?")

    total = query.pieces.rows.astype(np.float32).sum(axis=0)
    assert total @ query.vector / np.linalg.norm(total) == pytest.approx(1, abs=1e-4)
    words = [query.pieces.words[n] if n >= 0 else "" for n in query.pieces.word_of]
    assert words[:4] == ["", "Where", "does", "user"]
    assert words[-3:] == ["Lisbon", "?", ""]


def test_windows_cover_a_long_text_and_overlap(fp32: Embedder) -> None:
    text = " ".join(f"w{n}" for n in range(400))
    runs = fp32.plan_runs([text, "short"], [sys.maxsize, sys.maxsize])

    windows = {
        (int(row), int(window)): ids[1:-1].tolist()
        for run in runs
        for row, window, ids in zip(run.rows, run.windows, run.token_ids, strict=True)
    }
    pieces = windows[0, 0]
    for number in range(1, len(windows) - 1):
        overlap = MAX_PIECES - 2 - 190
        assert windows[0, number][:overlap] == pieces[-overlap:]
        pieces += windows[0, number][overlap:]
    assert len(pieces) == fp32.count_pieces(text) - 2
    assert len(windows) - 1 == Tokeniser(MODEL_DIR).facts([text])[0].n_windows


def test_a_lone_surrogate_is_the_callers_fault(fp32: Embedder) -> None:
    with pytest.raises(InvalidInputError, match="character 3"):
        fp32.embed(["fine", "bad\ud800"])
    with pytest.raises(InvalidInputError, match="character 0"):
        fp32.count_pieces("\udfff")


def test_pieces_are_counted_without_truncation() -> None:
    tokeniser = Tokeniser(MODEL_DIR)

    assert tokeniser.count_pieces("") == 2
    assert tokeniser.count_pieces("the cat") == 4
    assert tokeniser.count_pieces("cat " * 5000) == 5002
    assert len(tokeniser.encode(["cat " * 5000])[0]) == MAX_PIECES


def test_the_identity_names_the_official_weights(fp32: Embedder, int8: Embedder) -> None:
    assert fp32.identity.name == "all-MiniLM-L6-v2"
    assert fp32.dim == int8.dim == 384
    assert fp32.identity.fingerprint.startswith("53aa51172d142c89")
    assert (fp32.identity.precision, int8.identity.precision) == ("fp32", "int8")


def test_a_directory_without_a_model_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r" -m scripts\.setup_model --model-dir"):
        Embedder(tmp_path, precision="fp32")


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "not-json"])
def test_damaged_model_files_say_what_to_run(damage: str, tmp_path: Path) -> None:
    graph = "model-int8.onnx"
    for name in (MANIFEST_FILE, TOKENISER_FILE, graph):
        shutil.copy2(MODEL_DIR / name, tmp_path / name)
    Embedder(tmp_path, precision="int8")
    if damage == "missing":
        (tmp_path / graph).unlink()
    elif damage == "truncated":
        (tmp_path / graph).write_bytes((tmp_path / graph).read_bytes()[:1_000_000])
    elif damage == "altered":
        content = bytearray((tmp_path / graph).read_bytes())
        content[30_000_000] ^= 0xFF
        (tmp_path / graph).write_bytes(content)
    else:
        (tmp_path / MANIFEST_FILE).write_text("{")

    with pytest.raises(ModelNotFoundError, match=r" -m scripts\.setup_model"):
        Embedder(tmp_path, precision="int8")


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "int8"),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", "int8"),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", "fp32"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "int8"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "fp32"),
        ("flags\t: avx_vnni\n\nflags\t: avx2\n", "fp32"),
        ("vmx flags\t: avx_vnni\n", "fp32"),
        ("", "fp32"),
    ],
)
def test_int8_is_the_default_only_where_products_cannot_saturate(
    cpuinfo: str, expected: str
) -> None:
    assert default_precision(cpuinfo) == expected


@pytest.mark.parametrize("wanted", ["fp32", "int8"])
def test_an_explicit_precision_wins(wanted: Precision) -> None:
    assert choose_precision(wanted) == wanted
