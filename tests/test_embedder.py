import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine.embedder import MAX_RUN_TOKENS, Embedder
from engine.errors import InvalidInputError, ModelNotFoundError
from engine.model_files import MANIFEST_FILE, TOKENISER_FILE, Precision, default_model_dir
from engine.precision import choose_precision, default_precision, read_cpuinfo
from engine.tokeniser import MAX_PIECES, Tokeniser

MODEL_DIR = default_model_dir(os.environ, Path.home())
CASES = json.loads((Path(__file__).parent / "canonical_embeddings.json").read_bytes())["cases"]
TEXTS = [case["text"] for case in CASES]
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
    np.testing.assert_allclose(fp32.embed(TEXTS), CANONICAL, atol=1e-5)


@int8_capable
def test_int8_stays_close_to_the_official_embeddings(int8: Embedder) -> None:
    cosines = (int8.embed(TEXTS) * CANONICAL).sum(axis=1)

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
        np.testing.assert_allclose(embeddings, CANONICAL[:8], atol=1e-5)


@pytest.mark.parametrize(
    "text", ["\x00", "\u200b\u200d\ufeff", "\U0010ffff", "e\u0301" * 600, "\u202e rtl"]
)
def test_odd_unicode_embeds_to_a_unit_vector(text: str, fp32: Embedder) -> None:
    assert np.linalg.norm(fp32.embed([text])[0]) == pytest.approx(1, abs=1e-5)


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
