"""Vector sets of any size with realistic hardness, the same on every machine.

Random vectors flatter or punish an index for no reason that real data has. Three kinds bracket the real:

- `siftlike`: 128 d, uint8, Euclidean; skewed clusters on low-dimensional planes, as image descriptors
  have. Kind to inverted lists; at a million rows harder for a graph than SIFT itself.
- `smoothlike`: 128 d, uint8, Euclidean; one smooth manifold without clusters. A graph behaves on it as on
  SIFT; inverted lists find it a little harder.
- `emblike`: 768 d, float16, cosine; normalized, latent dimension 40 and noise, as text embeddings.

Rows come in blocks of 50,000, each with a seed of its own: the first n rows are the same however many are
made. `benchmarks.sets` caches what is made here, with exact truths, below `data-cache/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.datasets.truth import Metric

__all__ = ["BLOCK_ROWS", "KINDS", "Kind", "blocks", "queries"]

BLOCK_ROWS = 50_000
# Queries are a block that no set is long enough to reach.
QUERY_BLOCK = 1_000_000

Float32 = npt.NDArray[np.float32]
# A SIFT descriptor is non-negative, of constant length, and its values are cut.
SIFT_LENGTH = 512
SIFT_VALUE_MAX = 218


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of set: the shape of its rows and how one block of them is made."""

    dimension: int
    dtype: type[np.generic]
    metric: Metric
    block: Callable[[int, int], npt.NDArray[Any]]


def blocks(kind: str, rows: int) -> Iterator[npt.NDArray[Any]]:
    """Make the first `rows` rows of a kind: matrices (at most 50,000, dimension) in row order."""
    for start in range(0, rows, BLOCK_ROWS):
        yield KINDS[kind].block(start // BLOCK_ROWS, min(BLOCK_ROWS, rows - start))


def queries(kind: str, count: int) -> npt.NDArray[Any]:
    """Make `count` queries (at most 50,000) of the same world as the rows, none of them a row."""
    return KINDS[kind].block(QUERY_BLOCK, count)


# Clusters on planes.
CLUSTERS = 2_000
SUPER_CLUSTERS = 40
PLANE_DIMENSION = 28
SIFT_SEED = 11


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Centres that gather around super-centres; the clusters of one super-centre share a plane."""

    owner: npt.NDArray[np.int64]
    centres: Float32
    planes: Float32
    weights: npt.NDArray[np.float64]


@cache
def _clusters() -> _Clusters:
    world = np.random.default_rng(SIFT_SEED)
    super_centres = np.abs(world.normal(0, 1, (SUPER_CLUSTERS, 128))).astype(np.float32) ** 1.5
    owner = world.integers(0, SUPER_CLUSTERS, CLUSTERS)
    spread = np.abs(world.normal(0, 1, (CLUSTERS, 128))).astype(np.float32) ** 1.5
    centres = 0.75 * super_centres[owner] + 0.65 * spread
    planes = world.normal(0, 1, (SUPER_CLUSTERS, PLANE_DIMENSION, 128)).astype(np.float32)
    return _Clusters(owner, centres, planes, _falling_weights(CLUSTERS, 0.6))


def _siftlike(block: int, rows: int) -> npt.NDArray[np.uint8]:
    world = _clusters()
    dice = np.random.default_rng([SIFT_SEED, 1, block])
    cluster = dice.choice(CLUSTERS, rows, p=world.weights)
    axis_scale = (0.42 * 0.955 ** np.arange(PLANE_DIMENSION)).astype(np.float32)
    within = dice.normal(0, 1, (rows, PLANE_DIMENSION)).astype(np.float32) * axis_scale
    within *= dice.choice([0.6, 1, 1.4], (rows, 1)).astype(np.float32)
    vectors = np.empty((rows, 128), np.float32)
    for super_cluster in range(SUPER_CLUSTERS):
        mine = world.owner[cluster] == super_cluster
        vectors[mine] = world.centres[cluster[mine]] + within[mine] @ world.planes[super_cluster]
    vectors += dice.normal(0, 0.17, vectors.shape).astype(np.float32)
    return _as_descriptors(vectors)


# One smooth manifold.
MANIFOLD_SEED = 31
MANIFOLD_DIMENSION = 24
HIDDEN_UNITS = 256


@cache
def _manifold() -> tuple[Float32, Float32, Float32]:
    """Weights and bias of a random network of two layers: its outputs are the manifold."""
    world = np.random.default_rng(MANIFOLD_SEED)
    first = world.normal(0, 1, (MANIFOLD_DIMENSION, HIDDEN_UNITS)).astype(np.float32)
    second = world.normal(0, 1, (HIDDEN_UNITS, 128)).astype(np.float32)
    bias = world.normal(0, 1, HIDDEN_UNITS).astype(np.float32) * 0.3
    return first / np.sqrt(MANIFOLD_DIMENSION), second / np.sqrt(HIDDEN_UNITS), bias


def _smoothlike(block: int, rows: int) -> npt.NDArray[np.uint8]:
    first, second, bias = _manifold()
    dice = np.random.default_rng([MANIFOLD_SEED, 1, block])
    decay = 0.97 ** np.arange(MANIFOLD_DIMENSION)
    latent = dice.normal(0, 1, (rows, MANIFOLD_DIMENSION)) * decay * dice.choice([0.7, 1, 1.3], (rows, 1))
    latent = (latent / np.sqrt((decay**2).mean())).astype(np.float32)
    hidden = np.maximum(latent @ first * 1.6 + bias, 0)
    vectors = np.maximum(hidden @ second * 1.5 - 0.2, 0) ** 1.2
    vectors += dice.normal(0, 0.175, vectors.shape).astype(np.float32) * 0.35
    return _as_descriptors(vectors)


def _as_descriptors(vectors: Float32) -> npt.NDArray[np.uint8]:
    vectors = np.maximum(vectors, 0)
    vectors *= SIFT_LENGTH / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return np.clip(np.rint(vectors), 0, SIFT_VALUE_MAX).astype(np.uint8)


# Embeddings of text.
EMBEDDING_SEED = 23
EMBEDDING_DIMENSION = 768
LATENT_DIMENSION = 40
TOPICS = 1_000


@cache
def _topics() -> tuple[Float32, Float32]:
    """The map from the latent space to the embedding, and the centres of the topics in it."""
    world = np.random.default_rng(EMBEDDING_SEED)
    axes = world.normal(0, 1, (LATENT_DIMENSION, EMBEDDING_DIMENSION))
    axes *= (0.95 ** np.arange(LATENT_DIMENSION))[:, None]
    return axes.astype(np.float32), world.normal(0, 1, (TOPICS, LATENT_DIMENSION)).astype(np.float32)


def _emblike(block: int, rows: int) -> npt.NDArray[np.float16]:
    axes, centres = _topics()
    dice = np.random.default_rng([EMBEDDING_SEED, 1, block])
    topic = dice.choice(TOPICS, rows, p=_falling_weights(TOPICS, 0.5))
    latent = centres[topic] + 0.8 * dice.normal(0, 1, (rows, LATENT_DIMENSION)).astype(np.float32)
    noise = dice.normal(0, 1, (rows, EMBEDDING_DIMENSION)).astype(np.float32)
    vectors = np.tanh(latent @ axes / 8) + 0.12 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halved: npt.NDArray[np.float16] = vectors.astype(np.float16)
    return halved


def _falling_weights(count: int, power: float) -> npt.NDArray[np.float64]:
    """Probabilities that fall with the rank as 1 / rank^power: a few large groups, many small ones."""
    weights: npt.NDArray[np.float64] = 1 / np.arange(1, count + 1, dtype=np.float64) ** power
    weights /= weights.sum()
    return weights


KINDS = {
    "siftlike": Kind(128, np.uint8, "l2", _siftlike),
    "smoothlike": Kind(128, np.uint8, "l2", _smoothlike),
    "emblike": Kind(EMBEDDING_DIMENSION, np.float16, "cosine", _emblike),
}
