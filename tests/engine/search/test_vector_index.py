"""Both kinds of vector index against brute force in numpy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engine.records import BoolMask, FloatMatrix, RowArray
from engine.search.vectors.vector_index import VectorIndex

DIM = 96
N_ROWS = 6_000
K = 10
NEVER = 1 << 60


def clustered(n: int, dim: int = DIM, *, seed: int, n_clusters: int = 60) -> FloatMatrix:
    """Normalised vectors around shared centres, as embeddings of related texts are."""
    centres = np.random.default_rng(0).standard_normal((n_clusters, dim))
    rng = np.random.default_rng(seed)
    return normalised(centres[rng.integers(0, n_clusters, n)] + 0.7 * rng.standard_normal((n, dim)))


def normalised(vectors: npt.NDArray[Any]) -> FloatMatrix:
    scaled: FloatMatrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        np.float32
    )
    return scaled


def brute_force(
    vectors: FloatMatrix, queries: FloatMatrix, k: int, live: BoolMask | None = None
) -> RowArray:
    """The oracle: all products in float64, sorted."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if live is not None:
        scores[:, ~live] = -np.inf
    order: RowArray = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(scores, order, axis=1) == -np.inf, -1, order)


def recall(found: RowArray, expected: RowArray) -> float:
    hits = [
        np.isin(e[e >= 0], f).mean() if (e >= 0).any() else 1.0
        for f, e in zip(found, expected, strict=True)
    ]
    return float(np.mean(hits))


MakeIndex = Callable[[FloatMatrix], VectorIndex]


@pytest.fixture(params=["exact", "rabitq"])
def make_index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MakeIndex:
    """A filled index of either kind; codes are used although the tests' stores are small."""
    monkeypatch.setattr("engine.search.vectors.vector_index._ROWS_PER_CANDIDATE", 1)

    def make(vectors: FloatMatrix) -> VectorIndex:
        index = VectorIndex(vectors.shape[1], exact_below=NEVER if request.param == "exact" else 1)
        index.add(vectors)
        if request.param == "rabitq":
            index.adopt(index.build_quantised())
        assert index.kind == request.param
        return index

    return make


@pytest.fixture(scope="module")
def vectors() -> FloatMatrix:
    return clustered(N_ROWS, seed=1)


@pytest.fixture(scope="module")
def queries() -> FloatMatrix:
    return clustered(50, seed=2)


def test_search_finds_what_brute_force_finds(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    index = make_index(vectors)
    expected = brute_force(vectors, queries, K)

    one_by_one = np.concatenate([index.search(query[None], K)[0] for query in queries])
    together, _ = index.search(queries, K)

    if index.kind == "exact":
        np.testing.assert_array_equal(one_by_one, expected)
    assert recall(one_by_one, expected) >= 0.99
    np.testing.assert_array_equal(together, one_by_one)


def test_scores_are_exact_inner_products_best_first(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    rows, scores = make_index(vectors).search(queries, K)

    exact = np.einsum("qd,qkd->qk", queries.astype(np.float64), vectors[rows].astype(np.float64))
    np.testing.assert_allclose(scores, exact, atol=1e-6)
    assert scores.dtype == np.float32
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_stored_vector_finds_itself_first(make_index: MakeIndex, vectors: FloatMatrix) -> None:
    sample = np.arange(0, N_ROWS, 37)

    rows, scores = make_index(vectors).search(vectors[sample], 1)

    np.testing.assert_array_equal(rows[:, 0], sample)
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-6)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.04, 0.005])
def test_only_live_rows_are_found(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix, share: float
) -> None:
    live = np.random.default_rng(3).random(N_ROWS) < share
    index = make_index(vectors)
    expected = brute_force(vectors, queries, K, live)

    together, _ = index.search(queries, K, live)
    alone, _ = index.search(queries[:1], K, live)

    assert live[together].all()
    assert recall(together, expected) >= 0.99
    np.testing.assert_array_equal(alone, together[:1])


def test_rows_live_only_far_from_the_query_are_found(make_index: MakeIndex) -> None:
    vectors = clustered(N_ROWS, seed=1)
    query = vectors[:1]
    live = vectors @ query[0] < np.median(vectors @ query[0])

    rows, _ = make_index(vectors).search(query, K, live)

    assert recall(rows, brute_force(vectors, query, K, live)) >= 0.99
    assert live[rows].all()


def test_fewer_rows_than_k_come_back_padded(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    live = np.zeros(N_ROWS, dtype=np.bool_)
    live[[5, 4_000, N_ROWS - 1]] = True

    for asked in (queries[:1], queries):
        rows, scores = make_index(vectors).search(asked, K, live)

        assert (np.sort(rows[:, :3]) == [5, 4_000, N_ROWS - 1]).all()
        assert (rows[:, 3:] == -1).all()
        assert (scores[:, 3:] == -np.inf).all()


@pytest.mark.parametrize("n_queries", [1, 30])
def test_k_may_exceed_the_number_of_rows(make_index: MakeIndex, n_queries: int) -> None:
    few = clustered(7, seed=4)

    rows, scores = make_index(few).search(clustered(n_queries, seed=5), 12)

    assert (np.sort(rows[:, :7]) == np.arange(7)).all()
    assert (rows[:, 7:] == -1).all()
    assert (scores[:, 7:] == -np.inf).all()


@pytest.mark.parametrize("n_queries", [1, 30])
def test_an_empty_index_and_an_empty_mask_find_nothing(n_queries: int) -> None:
    index = VectorIndex(DIM)
    asked = clustered(n_queries, seed=5)

    assert (index.search(asked, 3)[0] == -1).all()
    index.add(clustered(20, seed=6))
    assert (index.search(asked, 3, np.zeros(20, dtype=np.bool_))[0] == -1).all()
    assert (index.nearest(asked, 1, 0.9, np.zeros(20, dtype=np.bool_))[0] == -1).all()


def noisy_copies(vectors: FloatMatrix, *, seed: int) -> FloatMatrix:
    """Copies whose cosine with their original is 0.90 to 0.92, as reworded duplicates have."""
    drawn = np.random.default_rng(seed).standard_normal(vectors.shape)
    noise = normalised(drawn - (drawn * vectors).sum(axis=1, keepdims=True) * vectors)
    cosines = np.linspace(0.9001, 0.92, len(vectors))[:, None]
    return normalised(cosines * vectors + np.sqrt(1 - cosines**2) * noise)


@pytest.mark.parametrize("n_queries", [1, 500])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_the_nearest_row_is_found_where_it_reaches_the_bound(
    make_index: MakeIndex, n_queries: int, share: float
) -> None:
    vectors = clustered(30_000, 128, seed=19, n_clusters=300)
    copies = noisy_copies(vectors[::60], seed=20)[:n_queries]
    strangers = clustered(n_queries, 128, seed=21)
    live = np.random.default_rng(22).random(len(vectors)) < share
    asked = np.concatenate([copies, strangers])
    index = make_index(vectors)

    found = index.nearest(asked, 1, 0.9, None if share == 1 else live)
    rows, scores = found[0][:, 0], found[1][:, 0]

    best = brute_force(vectors, asked, 1, live if share < 1 else None)[:, 0]
    cosines = np.einsum("qd,qd->q", asked, vectors[best])
    reaching = cosines >= 0.9
    assert 0 < reaching.sum() <= n_queries
    np.testing.assert_array_equal(rows[reaching], best[reaching])
    np.testing.assert_allclose(scores[reaching], cosines[reaching], atol=1e-6)
    assert (scores[~reaching] < 0.9).all()


@pytest.mark.parametrize("n_queries", [1, 30])
def test_below_a_high_bound_the_nearest_row_is_what_a_search_finds(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix, n_queries: int
) -> None:
    index = make_index(vectors)
    asked = queries[:n_queries]
    expected_rows, expected = index.search(asked, 1)
    at_least = float(expected.min())
    assert at_least < 0.9

    rows, scores = index.nearest(asked, 1, at_least)

    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("n_queries", [1, 30])
def test_several_rows_that_reach_the_bound_come_best_first(
    make_index: MakeIndex, vectors: FloatMatrix, n_queries: int
) -> None:
    asked = normalised(vectors[:n_queries])
    copies = [noisy_copies(asked, seed=seed) for seed in (25, 26)]
    index = make_index(np.concatenate([vectors, *copies]))

    rows, scores = index.nearest(asked, 3, 0.9)

    assert rows.shape == scores.shape == (n_queries, 3)
    np.testing.assert_array_equal(rows[:, 0], np.arange(n_queries))
    assert (np.diff(scores, axis=1) <= 0).all()
    copied = np.arange(n_queries)[:, None] + len(vectors) + [0, n_queries]
    np.testing.assert_array_equal(np.sort(rows[:, 1:], axis=1), copied)


def test_a_duplicate_among_thousands_that_look_as_similar_is_found() -> None:
    query = clustered(1, 128, seed=23)
    crowd = clustered(20_000, 128, seed=24)
    crowd = normalised(crowd - (crowd @ query.T) * query)
    cosines = np.full((len(crowd), 1), 0.895, dtype=np.float32)
    cosines[12_345] = 0.901
    index = VectorIndex(128, exact_below=1)
    index.add(normalised(cosines * query + np.sqrt(1 - cosines**2) * crowd))
    index.adopt(index.build_quantised())

    [[row]], [[score]] = index.nearest(query, 1, 0.9)

    assert row == 12_345
    assert score == pytest.approx(0.901, abs=1e-5)


def test_no_queries_get_no_answers(make_index: MakeIndex, vectors: FloatMatrix) -> None:
    rows, scores = make_index(vectors).search(vectors[:0], K)

    assert rows.shape == scores.shape == (0, K)
    assert make_index(vectors).nearest(vectors[:0], 1, 0.9)[0].shape == (0, 1)


@pytest.mark.parametrize("n_queries", [1, 30])
def test_equal_vectors_are_ordered_by_row(make_index: MakeIndex, n_queries: int) -> None:
    vectors = clustered(2_000, seed=7)
    copies = np.array([3, 77, 500, 501, 900, 1_200, 1_999])
    vectors[copies] = vectors[3]

    rows, scores = make_index(vectors).search(np.repeat(vectors[3:4], n_queries, axis=0), 4)

    assert (rows == copies[:4]).all()
    assert (scores == scores[0, 0]).all()


def test_similarities_agree_with_search(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    index = make_index(vectors)
    rows, scores = index.search(queries[:1], K)

    np.testing.assert_array_equal(index.similarities(queries[0], rows[0]), scores[0])
    assert index.similarities(queries[0], rows[0, :0]).shape == (0,)


def test_vectors_come_back_as_they_were_added(make_index: MakeIndex, vectors: FloatMatrix) -> None:
    rows = np.array([N_ROWS - 1, 0, 17])

    copied = make_index(vectors).vectors(rows)

    np.testing.assert_array_equal(copied, vectors[rows])


def test_rows_added_later_are_found_and_old_ones_stay(
    make_index: MakeIndex, vectors: FloatMatrix
) -> None:
    index = make_index(vectors)
    later = clustered(300, seed=8)
    for start in range(0, 300, 7):
        index.add(later[start : start + 7])

    rows, _ = index.search(np.concatenate([later, vectors[:50]]), 1)

    np.testing.assert_array_equal(rows[:300, 0], N_ROWS + np.arange(300))
    np.testing.assert_array_equal(rows[300:, 0], np.arange(50))
    assert index.n_rows == N_ROWS + 300


def test_rows_survive_the_growth_of_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.search.vectors.exact_index._FIRST_CAPACITY_ROWS", 4)
    vectors = clustered(1_000, seed=9)
    index = VectorIndex(DIM)
    for start in range(0, 1_000, 3):
        index.add(vectors[start : start + 3])

    np.testing.assert_array_equal(index.vectors(np.arange(1_000)), vectors)


def test_compaction_keeps_the_kept_rows_in_order(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    index = make_index(vectors)
    keep = np.random.default_rng(10).random(N_ROWS) < 0.6
    before, _ = index.search(queries, K)

    smaller = index.compacted(keep)

    assert smaller.kind == index.kind
    np.testing.assert_array_equal(smaller.vectors(np.arange(smaller.n_rows)), vectors[keep])
    rows, _ = smaller.search(queries, K)
    assert recall(rows, brute_force(vectors[keep], queries, K)) >= 0.99
    np.testing.assert_array_equal(index.search(queries, K)[0], before)


def test_compaction_back_to_a_small_store_is_exact_again() -> None:
    index = VectorIndex(DIM, exact_below=500)
    index.add(clustered(600, seed=11))
    index.adopt(index.build_quantised())

    assert index.compacted(np.arange(600) < 400).kind == "exact"
    assert index.compacted(np.arange(600) < 550).kind == "rabitq"
    assert index.compacted(np.zeros(600, dtype=np.bool_)).n_rows == 0


def test_a_switch_is_due_at_the_threshold_and_again_after_growth() -> None:
    index = VectorIndex(DIM, exact_below=100, retrain_growth=4.0)
    index.add(clustered(99, seed=12))
    assert not index.needs_switch()
    index.add(clustered(1, seed=13))
    assert index.needs_switch()

    index.adopt(index.build_quantised())
    assert index.kind == "rabitq"
    assert not index.needs_switch()
    index.add(clustered(299, seed=14))
    assert not index.needs_switch()
    index.add(clustered(1, seed=15))
    assert index.needs_switch()

    index.adopt(index.build_quantised())
    assert not index.needs_switch()


def test_codes_take_little_beside_the_vectors(vectors: FloatMatrix) -> None:
    index = VectorIndex(DIM, exact_below=1)
    index.add(vectors)
    exact_bytes = index.n_bytes
    index.adopt(index.build_quantised())

    assert exact_bytes == vectors.nbytes
    assert index.n_bytes < 1.1 * exact_bytes


def test_recall_of_ten_is_99_percent_on_clustered_vectors_as_wide_as_the_model_s() -> None:
    vectors = clustered(30_000, 384, seed=16, n_clusters=300)
    queries = clustered(100, 384, seed=17, n_clusters=300)
    index = VectorIndex(384, exact_below=1)
    index.add(vectors)
    truth, _ = index.search(queries, K)
    index.adopt(index.build_quantised())

    found, _ = index.search(queries, K)

    assert recall(found, truth) >= 0.99


def test_the_best_that_are_to_be_sure_are_found_among_many_that_need_not_be() -> None:
    rows, queries = clustered(30_000, 384, seed=2), clustered(40, 384, seed=3)
    index = VectorIndex(384, exact_below=20_000)
    index.add(rows)
    index.adopt(index.build_quantised())

    found, scores = index.search(queries, 100, n_sure=30)

    expected = brute_force(rows, queries, 100)
    assert recall(found[:, :30], expected[:, :30]) >= 0.995
    assert recall(found, expected) >= 0.95
    assert (np.diff(scores, axis=1) <= 0).all()


def test_searches_stay_right_while_rows_are_added_and_codes_adopted(
    vectors: FloatMatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.search.vectors.vector_index._ROWS_PER_CANDIDATE", 1)
    index = VectorIndex(DIM, exact_below=1)
    index.add(vectors[:1_000])
    adding = threading.Lock()
    stop = threading.Event()
    wrong: list[int] = []
    n_searches = [0, 0]

    def search(reader: int) -> None:
        rng = np.random.default_rng(reader)
        while not stop.is_set():
            with adding:
                row = int(rng.integers(0, index.n_rows))
                rows, _ = index.search(vectors[row : row + 1], 1)
            n_searches[reader] += 1
            if rows[0, 0] != row:
                wrong.append(row)

    readers = [threading.Thread(target=search, args=(reader,)) for reader in range(2)]
    for reader in readers:
        reader.start()
    for start in range(1_000, 5_000, 200):
        builder = ThreadPoolExecutor(max_workers=1)
        building = builder.submit(index.build_quantised)
        for tail in range(start, start + 200, 20):
            with adding:
                index.add(vectors[tail : tail + 20])
        index.adopt(building.result())
        builder.shutdown()
    stop.set()
    for reader in readers:
        reader.join()

    assert not wrong
    assert min(n_searches) > 0
    assert index.n_rows == 5_000
    np.testing.assert_array_equal(index.vectors(np.arange(5_000)), vectors[:5_000])


def test_concurrent_searches_do_not_disturb_each_other(
    make_index: MakeIndex, vectors: FloatMatrix
) -> None:
    """faiss once kept a query's factors in the index: two readers then mixed them up."""
    index = make_index(vectors)
    live = np.random.default_rng(18).random(N_ROWS) < 0.5
    masks = (None, live)
    expected = [index.search(vectors[:600], K, mask)[0] for mask in masks]

    with ThreadPoolExecutor(max_workers=3) as pool:
        found = list(
            pool.map(lambda i: index.search(vectors[i : i + 1], K, masks[i % 2])[0], range(600))
        )

    for i, rows in enumerate(found):
        np.testing.assert_array_equal(rows[0], expected[i % 2][i])


@pytest.mark.parametrize(
    "broken",
    [
        np.zeros((2, DIM + 1), dtype=np.float32),
        np.zeros(DIM, dtype=np.float32),
        np.zeros((2, DIM), dtype=np.float64),
        np.full((2, DIM), np.nan, dtype=np.float32),
    ],
    ids=["wrong dim", "one axis", "float64", "not a number"],
)
def test_a_malformed_matrix_is_refused_and_nothing_is_added(
    make_index: MakeIndex, vectors: FloatMatrix, broken: FloatMatrix
) -> None:
    index = make_index(vectors)

    with pytest.raises(ValueError, match="vectors"):
        index.add(broken)
    with pytest.raises(ValueError, match="queries"):
        index.search(broken, K)
    with pytest.raises(ValueError, match="queries"):
        index.nearest(broken, 1, 0.9)
    assert index.n_rows == N_ROWS


def test_a_matrix_that_is_not_contiguous_gives_the_same_answers(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    index = make_index(np.asfortranarray(vectors))

    expected, _ = make_index(vectors).search(queries, K)

    np.testing.assert_array_equal(index.search(np.asfortranarray(queries), K)[0], expected)


def test_a_wrong_mask_row_or_k_is_refused(
    make_index: MakeIndex, vectors: FloatMatrix, queries: FloatMatrix
) -> None:
    index = make_index(vectors)

    with pytest.raises(ValueError, match="live"):
        index.search(queries, K, np.ones(N_ROWS - 1, dtype=np.bool_))
    with pytest.raises(ValueError, match="k must"):
        index.search(queries, 0)
    for row in (-1, N_ROWS):
        with pytest.raises(ValueError, match="rows"):
            index.similarities(queries[0], np.array([0, row]))
        with pytest.raises(ValueError, match="rows"):
            index.vectors(np.array([0, row]))
