"""Builds the inference graphs of a model directory from its official files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import load_file

from engine.disk.durable_files import replacing
from engine.model.calibration import calibration_texts
from engine.model.files import CONFIG_FILE, WEIGHTS_FILE, Precision, graph_file
from engine.model.onnx_graph import BertConfig, Weights, build_fp32
from engine.model.quantise import build_int8, smoothing_exponents
from engine.model.tokeniser import Tokeniser


def build_graph(model_dir: Path, precision: Precision) -> None:
    """Write one graph beside the official files it is made from. Durable when this returns.

    The same files give the same bytes on the same processor. Takes a second for fp32, several
    for int8, which runs the model over calibration texts.
    """
    weights = load_file(model_dir / WEIGHTS_FILE)
    config = BertConfig.from_json(json.loads((model_dir / CONFIG_FILE).read_bytes()))
    model = (
        build_fp32(weights, config)
        if precision == "fp32"
        else _calibrated_int8(weights, config, Tokeniser(model_dir).encode(calibration_texts()))
    )
    with replacing(model_dir / graph_file(precision)) as file:
        file.write(model.SerializeToString(deterministic=True))


def _calibrated_int8(
    weights: Weights, config: BertConfig, encoded: Sequence[Sequence[int]]
) -> onnx.ModelProto:
    batches = [np.array([ids], np.int64) for ids in encoded]
    return build_int8(weights, config, smoothing_exponents(weights, config, batches))
