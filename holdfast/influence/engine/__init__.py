"""Exact gradients of single samples and their dot products with given directions, in one batched pass."""

from holdfast.influence.engine.engine import Engine as Engine
from holdfast.influence.engine.engine import Influences as Influences
