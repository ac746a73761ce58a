import json
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from engine.errors import EmbeddingError
from engine.model.calibration import calibration_texts
from engine.model.onnx_graph import IR_VERSION, OPSET, BertConfig, build_fp32
from engine.model.quantise import build_int8, quantise_weight, smoothing_exponents
from tests.support.tiny_bert import CONFIG, WORDS, Floats, random_weights, reference_embedding

CONFIGURATION = BertConfig.from_json(CONFIG)
WEIGHTS = random_weights()


def token_ids(n_texts: int, n_tokens: int, seed: int = 1) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(4, len(WORDS), (n_texts, n_tokens))


def calibration_batches() -> list[npt.NDArray[np.int64]]:
    return [token_ids(4, n_tokens, seed=n_tokens) for n_tokens in (2, 5, 17, 40)]


def int8_model() -> onnx.ModelProto:
    exponents = smoothing_exponents(WEIGHTS, CONFIGURATION, calibration_batches())
    return build_int8(WEIGHTS, CONFIGURATION, exponents)


def run(model: onnx.ModelProto, ids: npt.NDArray[np.int64]) -> Floats:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(["sentence_embedding"], {"input_ids": ids})[0])


@pytest.mark.parametrize(("n_texts", "n_tokens"), [(1, 2), (1, 300), (3, 17)])
def test_the_fp32_graph_computes_bert(n_texts: int, n_tokens: int) -> None:
    ids = token_ids(n_texts, n_tokens)

    embeddings = run(build_fp32(WEIGHTS, CONFIGURATION), ids)

    expected = np.array([reference_embedding(WEIGHTS, row) for row in ids])
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_the_int8_graph_stays_close_to_bert() -> None:
    ids = token_ids(16, 20)

    embeddings = run(int8_model(), ids)

    expected = np.array([reference_embedding(WEIGHTS, row) for row in ids])
    assert (embeddings * expected).sum(axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_smoothing_brings_the_int8_graph_closer() -> None:
    ids = token_ids(16, 20)
    expected = np.array([reference_embedding(WEIGHTS, row) for row in ids])

    smoothed = (run(int8_model(), ids) * expected).sum(axis=1)
    plain = (run(build_int8(WEIGHTS, CONFIGURATION, {}), ids) * expected).sum(axis=1)

    assert (1 - smoothed).mean() < (1 - plain).mean()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_embedding_does_not_depend_on_its_neighbours(precision: str) -> None:
    model = build_fp32(WEIGHTS, CONFIGURATION) if precision == "fp32" else int8_model()
    ids = token_ids(6, 11)

    together = run(model, ids)

    alone = np.concatenate([run(model, row[None]) for row in ids])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_same_weights_give_the_same_bytes() -> None:
    first, second = (int8_model().SerializeToString(deterministic=True) for _ in range(2))

    assert first == second


def test_graphs_load_on_older_runtimes() -> None:
    model = int8_model()

    assert model.ir_version == IR_VERSION == 9
    assert {o.domain: o.version for o in model.opset_import} == {"": OPSET, "com.microsoft": 1}
    assert OPSET <= 20


def test_quantised_weights_are_within_half_a_step() -> None:
    weight = WEIGHTS["encoder.layer.0.intermediate.dense.weight"].copy()
    weight[3] = 0

    values, scale = quantise_weight(weight)

    assert values.dtype == np.int8
    assert np.abs(values * scale[:, None] - weight).max() <= scale.max() * 0.5001
    assert np.abs(values).max() == 127


def test_large_channels_are_the_ones_that_shrink() -> None:
    exponents = smoothing_exponents(WEIGHTS, CONFIGURATION, calibration_batches())

    assert len(exponents) == 4
    for powers in exponents.values():
        assert powers[:3].min() > powers[3:].mean()


@pytest.mark.parametrize(
    "change",
    [{"model_type": "roberta"}, {"hidden_act": "relu"}, {"position_embedding_type": "relative"}],
)
def test_another_architecture_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EmbeddingError, match=next(iter(change.values()))):
        BertConfig.from_json(json.loads(json.dumps(CONFIG | change)))


def test_calibration_texts_are_many_varied_and_always_the_same() -> None:
    texts = calibration_texts()

    assert texts == calibration_texts()
    assert len(set(texts)) > 300
    assert not any("{" in text or "}" in text for text in texts)
    assert max(len(text.split()) for text in texts) > 60
    assert min(len(text.split()) for text in texts) <= 2
