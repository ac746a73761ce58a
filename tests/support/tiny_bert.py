"""A BERT of two layers with random weights, and the same model once more in plain numpy."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing

from engine.disk.durable_files import sha256_of
from engine.model.files import CONFIG_FILE, TOKENISER_FILE, WEIGHTS_FILE, ModelSpec

N_LAYERS, N_HEADS, WIDTH, INNER, N_POSITIONS, EPS = 2, 4, 32, 64, 300, 1e-12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "memory", "lamp", "##s"]

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": N_HEADS,
    "num_hidden_layers": N_LAYERS,
    "layer_norm_eps": EPS,
}

Floats = npt.NDArray[np.float32]


def random_weights(seed: int = 0) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.15) -> Floats:
        return rng.normal(0, scale, shape).astype(np.float32)

    def norm(name: str) -> dict[str, Floats]:
        # A few channels are far larger than the rest, as in trained models.
        gain = 1 + normal(WIDTH)
        gain[:3] *= 12
        return {f"{name}.weight": gain, f"{name}.bias": normal(WIDTH)}

    def dense(name: str, n_out: int, n_in: int) -> dict[str, Floats]:
        return {f"{name}.weight": normal(n_out, n_in), f"{name}.bias": normal(n_out)}

    weights = {
        "embeddings.word_embeddings.weight": normal(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": normal(N_POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
        **norm("embeddings.LayerNorm"),
    }
    for layer in range(N_LAYERS):
        prefix = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            weights |= dense(f"{prefix}.attention.self.{part}", WIDTH, WIDTH)
        weights |= dense(f"{prefix}.attention.output.dense", WIDTH, WIDTH)
        weights |= norm(f"{prefix}.attention.output.LayerNorm")
        weights |= dense(f"{prefix}.intermediate.dense", INNER, WIDTH)
        weights |= dense(f"{prefix}.output.dense", WIDTH, INNER)
        weights |= norm(f"{prefix}.output.LayerNorm")
    return weights


def reference_embedding(weights: dict[str, Floats], ids: npt.NDArray[np.int64]) -> Floats:
    """One text's embedding, from the definition of BERT, in float64."""

    def dense(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], np.float64)

    def norm(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        centred = x - x.mean(axis=1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPS)
        return np.asarray(unit * weights[f"{name}.weight"] + weights[f"{name}.bias"], np.float64)

    hidden = norm(
        weights["embeddings.word_embeddings.weight"][ids].astype(np.float64)
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0],
        "embeddings.LayerNorm",
    )
    for layer in range(N_LAYERS):
        prefix = f"encoder.layer.{layer}"
        q, k, v = (
            dense(hidden, f"{prefix}.attention.self.{part}")
            .reshape(len(ids), N_HEADS, -1)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        logits = q @ k.transpose(0, 2, 1) / math.sqrt(WIDTH // N_HEADS)
        attention = np.exp(logits - logits.max(axis=2, keepdims=True))
        attention /= attention.sum(axis=2, keepdims=True)
        context = (attention @ v).transpose(1, 0, 2).reshape(len(ids), WIDTH)
        out = dense(context, f"{prefix}.attention.output.dense")
        hidden = norm(hidden + out, f"{prefix}.attention.output.LayerNorm")
        inner = dense(hidden, f"{prefix}.intermediate.dense")
        gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        out = dense(gelu, f"{prefix}.output.dense")
        hidden = norm(hidden + out, f"{prefix}.output.LayerNorm")
    mean = hidden.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def write_official_files(directory: Path) -> ModelSpec:
    """The model as a hub would hold it; returns the spec with its hashes."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(random_weights(), directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_text(json.dumps(CONFIG))
    tokeniser = Tokenizer(WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokeniser.normalizer = BertNormalizer(lowercase=True)
    tokeniser.pre_tokenizer = BertPreTokenizer()
    tokeniser.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokeniser.save(str(directory / TOKENISER_FILE))
    names = (WEIGHTS_FILE, TOKENISER_FILE, CONFIG_FILE)
    return ModelSpec(
        name="tiny-bert",
        sha256={name: sha256_of(directory / name) for name in names},
        n_bytes=sum((directory / name).stat().st_size for name in names),
    )
