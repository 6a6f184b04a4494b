"""Trained weights: safetensors files whose metadata rebuild the module, each with a card (.json) beside it."""

from cortexgen.weights.reading import (
    APPEARANCE,
    FEATURES,
    GENERATE,
    REGISTER,
    load,
    load_appearance,
    load_checkpoint,
    load_features,
    load_generator,
    load_registration,
    load_weights,
    read_checkpoint,
    shipped,
    shipped_names,
    start,
)
from cortexgen.weights.writing import card, save_weights, split_tensors

__all__ = [
    "APPEARANCE",
    "FEATURES",
    "GENERATE",
    "REGISTER",
    "card",
    "load",
    "load_appearance",
    "load_checkpoint",
    "load_features",
    "load_generator",
    "load_registration",
    "load_weights",
    "read_checkpoint",
    "save_weights",
    "shipped",
    "shipped_names",
    "split_tensors",
    "start",
]
