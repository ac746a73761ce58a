"""The int8 form of the inference graph, close enough to fp32 to rank alike.

Stock dynamic quantisation has one scale for all activations of a batch: coarse, and a text's
embedding then depends on its neighbours. Here every token has its own scale, every output
channel of a weight too, and the activation channels that are far larger than the others are
shrunk before quantisation, their weights grown to match (SmoothQuant, Xiao et al. 2022,
arXiv:2211.10438). The factors are powers of two, so that this costs no rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from engine.model.onnx_graph import BertConfig, GraphBuilder, Weights, build_fp32

_WEIGHT_MAX = 127
_SIGNED_ZERO = 128
_GELU_ZERO = 24
"""GELU is never below -0.17, so most of the range goes to its positive side."""
_GELU_DEPTH = 0.17

_ACTIVATION_POWER = 0.6
_WEIGHT_POWER = 0.4
"""How much of the spread of activations moves into the weights, measured on this model."""

Exponents = Mapping[str, npt.NDArray[np.int64]]
"""LayerNormalization output to the power of two that each of its channels is divided by."""


class Int8GraphBuilder(GraphBuilder):
    """Multiplies int8 weights with activations quantised token by token."""

    def __init__(self, weights: Weights, config: BertConfig, exponents: Exponents) -> None:
        super().__init__(weights, config)
        self._exponents = exponents
        self._smoothed: dict[str, str] = {}
        self._gelus: set[str] = set()

    def build(self) -> onnx.ModelProto:
        """The whole model."""
        self.constant("one", np.array(1, np.float32))
        self.constant("channel_axis", np.array([1], np.int64))
        self.constant("signed.zero", np.array([_SIGNED_ZERO], np.uint8))
        self.constant("signed.step", np.array(1 / 127, np.float32))
        self.constant("signed.least", np.array(1e-12, np.float32))
        self.constant("gelu.zero", np.array([_GELU_ZERO], np.uint8))
        self.constant("gelu.step", np.array(1 / (255 - _GELU_ZERO), np.float32))
        self.constant("gelu.least", np.array(_GELU_DEPTH / _GELU_ZERO, np.float32))
        return super().build()

    def normalise(self, x: str, prefix: str, output: str) -> str:
        """LayerNormalization whose shrunk form feeds the multiplications."""
        if output not in self._exponents:
            return super().normalise(x, prefix, output)
        factor = np.exp2(self._exponents[output]).astype(np.float32)
        scale = self.constant(f"{output}.scale", self.weights[f"{prefix}.weight"] / factor)
        bias = self.constant(f"{output}.bias", self.weights[f"{prefix}.bias"] / factor)
        shrunk = self.node(
            "LayerNormalization",
            [x, scale, bias],
            f"{output}.shrunk",
            axis=-1,
            epsilon=self.config.layer_norm_eps,
        )
        self._smoothed[output] = shrunk
        return self.node("Mul", [shrunk, self.constant(f"{output}.factor", factor)], output)

    def activate(self, x: str, output: str) -> str:
        """GELU, marked for its own zero point."""
        self._gelus.add(output)
        return super().activate(x, output)

    def linear(
        self, x: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], output: str
    ) -> str:
        """`x @ weight.T + bias` through an integer product."""
        if x in self._smoothed:
            weight = weight * np.exp2(self._exponents[x]).astype(np.float32)
        kind = "gelu" if x in self._gelus else "signed"
        values, scale = self._quantise_tokens(self._smoothed.get(x, x), kind, output)
        weight_int8, weight_scale = quantise_weight(weight)
        product = self.node(
            "MatMulIntegerToFloat",
            [
                values,
                self.constant(f"{output}.weight", weight_int8.T),
                "one",
                self.constant(f"{output}.weight_scale", weight_scale),
                f"{kind}.zero",
            ],
            f"{output}.product",
            domain="com.microsoft",
        )
        scaled = self.node("Mul", [product, scale], f"{output}.scaled")
        return self.node("Add", [scaled, self.constant(f"{output}.bias", bias)], output)

    def _quantise_tokens(self, x: str, kind: str, name: str) -> tuple[str, str]:
        """uint8 values of shape [tokens, width], and their scale per token, [tokens, 1]."""
        # The lower end of GELU is known; elsewhere both ends count.
        size = x if kind == "gelu" else self.node("Abs", [x], f"{name}.abs")
        top = self.node("ReduceMax", [size, "channel_axis"], f"{name}.max", keepdims=0)
        step = self.node("Mul", [top, f"{kind}.step"], f"{name}.step")
        scale = self.node("Max", [step, f"{kind}.least"], f"{name}.token_scale")
        n_tokens = self.node("Shape", [scale], f"{name}.n_tokens")
        zeros = self.node("Expand", [f"{kind}.zero", n_tokens], f"{name}.zeros")
        values = self.node("QuantizeLinear", [x, scale, zeros], f"{name}.values", axis=0)
        return values, self.node("Unsqueeze", [scale, "channel_axis"], f"{name}.column")


def quantise_weight(
    weight: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 weights of shape (n_out, n_in), and their scale per output channel."""
    scale = np.abs(weight).max(axis=1) / _WEIGHT_MAX
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def smoothing_exponents(
    weights: Weights, config: BertConfig, batches: Iterable[npt.NDArray[np.int64]]
) -> Exponents:
    """The power of two to shrink each channel by, from what activations reach on real text.

    Args:
        weights: tensors of a transformers `BertModel`, by name.
        config: its sizes.
        batches: token ids, each of shape (n_texts, n_pieces).
    """
    peaks = _activation_peaks(weights, config, batches)
    exponents = {}
    for layer in range(config.n_layers):
        prefix = f"encoder.layer.{layer}"
        before = f"layer{layer - 1}.feed_forward.norm" if layer else "embedding_norm"
        readers = {
            before: [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")],
            f"layer{layer}.attention.norm": [f"{prefix}.intermediate.dense"],
        }
        for name, linears in readers.items():
            weight_peak = np.max([np.abs(weights[f"{n}.weight"]).max(axis=0) for n in linears], 0)
            exponents[name] = _exponents(peaks[name], weight_peak)
    return exponents


def _exponents(
    activation_peak: npt.NDArray[np.float32], weight_peak: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    # A channel that is always zero needs no shrinking; the tiny addend keeps its log finite.
    activation, weight = np.log2(activation_peak + 1e-9), np.log2(weight_peak + 1e-9)
    wanted = _ACTIVATION_POWER * activation - _WEIGHT_POWER * weight
    exponents: npt.NDArray[np.int64] = np.rint(wanted - wanted.mean()).astype(np.int64)
    return exponents


def _activation_peaks(
    weights: Weights, config: BertConfig, batches: Iterable[npt.NDArray[np.int64]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Largest absolute value of every channel of every LayerNormalization output."""
    model = build_fp32(weights, config)
    names = [n.output[0] for n in model.graph.node if n.op_type == "LayerNormalization"]
    for name in names:
        shape = ["tokens", config.width]
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    peaks = {name: np.zeros(config.width, np.float32) for name in names}
    for batch in batches:
        for name, rows in zip(names, session.run(names, {"input_ids": batch}), strict=True):
            np.maximum(peaks[name], np.abs(rows).max(axis=0), out=peaks[name])
    return peaks


def build_int8(weights: Weights, config: BertConfig, exponents: Exponents) -> onnx.ModelProto:
    """The graph with int8 weights; embeddings, norms and attention itself stay float32."""
    return Int8GraphBuilder(weights, config, exponents).build()
