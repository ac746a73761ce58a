"""The inference graph of a BERT-family sentence transformer, built from its weights.

Only `onnx` and numpy are needed, no torch. The graph takes token ids of equally long texts, so
it has no mask: `input_ids` [batch, sequence] int64 → `sentence_embedding` [batch, dim] float32,
mean-pooled and L2-normalised, and `hidden_rows` [batch, sequence, dim], what was pooled.
Everything but attention works on [tokens, width] matrices.

Shapes that were measured and are meant: one Gemm for queries, keys and values; plain Add and
LayerNormalization (the fused SkipLayerNormalization is several times slower on CPUs); the sum
over tokens instead of their mean, which L2 normalisation makes equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.errors import EmbeddingError

OPSET = 20
IR_VERSION = 9
"""Old enough for onnxruntime 1.18."""

Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    """The sizes that a BERT `config.json` gives."""

    n_layers: int
    n_heads: int
    width: int
    layer_norm_eps: float

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read a transformers `config.json`.

        Raises:
            EmbeddingError: another architecture, whose graph would be wrong.
        """
        kind = (
            config.get("model_type"),
            config.get("hidden_act"),
            config.get("position_embedding_type", "absolute"),
        )
        if kind != ("bert", "gelu", "absolute"):
            raise EmbeddingError(f"expected a BERT model with GELU, got {kind}")
        return cls(
            n_layers=config["num_hidden_layers"],
            n_heads=config["num_attention_heads"],
            width=config["hidden_size"],
            layer_norm_eps=config["layer_norm_eps"],
        )


class GraphBuilder:
    """Collects nodes and initializers; `linear` and `normalise` are what a precision changes."""

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        self.weights = weights
        self.config = config
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add an initializer; returns its name."""
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(
        self, op_type: str, inputs: Sequence[str], output: str, *, domain: str = "", **attrs: float
    ) -> str:
        """Add a node with one output; returns its name."""
        self._nodes.append(helper.make_node(op_type, inputs, [output], domain=domain, **attrs))
        return output

    def linear(
        self, x: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], output: str
    ) -> str:
        """`x @ weight.T + bias` for a weight of shape (n_out, n_in)."""
        names = (
            self.constant(f"{output}.weight", weight.T),
            self.constant(f"{output}.bias", bias),
        )
        return self.node("Gemm", [x, *names], output)

    def activate(self, x: str, output: str) -> str:
        """GELU, the exact form with erf."""
        return self.node("Gelu", [x], output)

    def normalise(self, x: str, prefix: str, output: str) -> str:
        """LayerNormalization over the last axis with the weights at `prefix`."""
        scale = self.constant(f"{output}.scale", self.weights[f"{prefix}.weight"])
        bias = self.constant(f"{output}.bias", self.weights[f"{prefix}.bias"])
        eps = self.config.layer_norm_eps
        return self.node("LayerNormalization", [x, scale, bias], output, axis=-1, epsilon=eps)

    def build(self) -> onnx.ModelProto:
        """The whole model, checked."""
        hidden = self._embeddings()
        for layer in range(self.config.n_layers):
            hidden = self._attention_block(hidden, layer)
            hidden = self._feed_forward_block(hidden, layer)
        self._pool(hidden)
        return self._model()

    def _embeddings(self) -> str:
        words = self.weights["embeddings.word_embeddings.weight"]
        # Every text is of segment 0, so its embedding joins the positions' for good.
        positions = (
            self.weights["embeddings.position_embeddings.weight"]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        self.constant("words", words)
        self.constant("positions", positions)
        self.constant("zero", np.array([0], np.int64))
        self.constant("tokens_shape", np.array([-1, self.config.width], np.int64))
        self.node("Shape", ["input_ids"], "n_tokens", start=1, end=2)
        self.node("Slice", ["positions", "zero", "n_tokens"], "position_rows")
        self.node("Gather", ["words", "input_ids"], "word_rows")
        self.node("Add", ["word_rows", "position_rows"], "embedded")
        self.node("Shape", ["embedded"], "sentence_shape")
        tokens = self.node("Reshape", ["embedded", "tokens_shape"], "embedded_tokens")
        return self.normalise(tokens, "embeddings.LayerNorm", "embedding_norm")

    def _attention_block(self, hidden: str, layer: int) -> str:
        prefix, name = f"encoder.layer.{layer}.attention", f"layer{layer}.attention"
        parts = [f"{prefix}.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self.weights[f"{part}.weight"] for part in parts])
        bias = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        qkv = self.linear(hidden, weight, bias, f"{name}.qkv")
        outputs = [f"{name}.{part}" for part in "qkv"]
        self._nodes.append(helper.make_node("Split", [qkv], outputs, axis=1, num_outputs=3))
        heads = [self.node("Reshape", [o, "sentence_shape"], f"{o}.rows") for o in outputs]
        context = self.node(
            "MultiHeadAttention",
            heads,
            f"{name}.context",
            domain="com.microsoft",
            num_heads=self.config.n_heads,
        )
        rows = self.node("Reshape", [context, "tokens_shape"], f"{name}.context_rows")
        return self._residual(hidden, rows, f"{prefix}.output", name)

    def _feed_forward_block(self, hidden: str, layer: int) -> str:
        prefix, name = f"encoder.layer.{layer}", f"layer{layer}.feed_forward"
        weight = self.weights[f"{prefix}.intermediate.dense.weight"]
        bias = self.weights[f"{prefix}.intermediate.dense.bias"]
        inner = self.linear(hidden, weight, bias, f"{name}.inner")
        active = self.activate(inner, f"{name}.gelu")
        return self._residual(hidden, active, f"{prefix}.output", name)

    def _residual(self, hidden: str, rows: str, prefix: str, name: str) -> str:
        weight = self.weights[f"{prefix}.dense.weight"]
        bias = self.weights[f"{prefix}.dense.bias"]
        out = self.linear(rows, weight, bias, f"{name}.out")
        total = self.node("Add", [out, hidden], f"{name}.sum")
        return self.normalise(total, f"{prefix}.LayerNorm", f"{name}.norm")

    def _pool(self, hidden: str) -> None:
        rows = self.node("Reshape", [hidden, "sentence_shape"], "hidden_rows")
        self.constant("token_axis", np.array([1], np.int64))
        self.node("ReduceSum", [rows, "token_axis"], "pooled", keepdims=0)
        self.node("LpNormalization", ["pooled"], "sentence_embedding", axis=1, p=2)

    def _model(self) -> onnx.ModelProto:
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
        embedding = helper.make_tensor_value_info(
            "sentence_embedding", TensorProto.FLOAT, ["batch", self.config.width]
        )
        rows = helper.make_tensor_value_info(
            "hidden_rows", TensorProto.FLOAT, ["batch", "sequence", self.config.width]
        )
        graph = helper.make_graph(self._nodes, "bert", [ids], [embedding, rows], self._initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="faiss-memory"
        )


def build_fp32(weights: Weights, config: BertConfig) -> onnx.ModelProto:
    """The graph with float32 weights and activations.

    Args:
        weights: the tensors of a transformers `BertModel`, by their names there.
        config: its sizes.
    """
    return GraphBuilder(weights, config).build()
