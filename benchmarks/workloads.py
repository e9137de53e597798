"""The named workloads, made from seeds.

| name | fits x rows x coefficients | what it is |
|---|---|---|
| grouped_logistic | 10,000 x 200 x 8 | a model for each group, each with a design of its own |
| grouped_poisson | 100,000 x 50 x 4 | many small groups, with an exposure |
| ragged_logistic | 100,000 groups of 7 to 2,000 rows x 6 | what tables look like: 1% separated, 1% rank-deficient |
| ragged_logistic_clean | the same | the same without these, for libraries that stop at them or wait for them |
| million_gaussian, million_logistic | 1,000,000 x 100 x 4 | as many groups as anyone has published a time for |
| shared_nb, shared_nb_common | 20,000 (GPU: 1,000,000) x 48 x 6 | genes: counts with a theta each, or one for all |
| bootstrap | 10,000 x 1,000 x 10 | replicates: one data set, multinomial weights |
| scan | 20,000 (GPU: 500,000) x 5,000 x 7 | association: one genotype at a time beside five covariates |
| wide | 1,000 x 10,000 x 20 | fewer and larger, gamma with log link |
| single_big | 1 x 2,000,000 (GPU: 10,000,000) x 50 | one large fit |

`scale` makes fewer fits (of single_big: fewer rows) and leaves everything else as it is. Data are made in pieces, each from
a random stream of its own, so that making them needs little more memory than they take. Coefficients are moderate and
bounded, so that no fit is separated by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.problems import MISSING, Problem
from benchmarks.ragged import ragged_logistic

PIECE = 2**22  # numbers made at a time


@dataclass(frozen=True)
class Workload:
    """A named problem. make: from a name, a size and a seed; size: of the full problem on a CPU, in fits (of single_big in
    rows), and `gpu_size` on a GPU; smallest: below which it is not scaled."""

    name: str
    make: Callable[[str, int, int], Problem]
    seed: int
    size: int
    gpu_size: int | None = None
    smallest: int = 8

    def problem(self, scale: float = 1.0, device: str = "cpu") -> Problem:
        """The problem at a fraction of its size."""
        full = self.gpu_size if device == "gpu" and self.gpu_size else self.size
        return self.make(self.name, max(self.smallest, round(full * scale)), self.seed)


def named(names: list[str]) -> list[Workload]:
    """Workloads by name, or by the beginning of names ("million"); all without a name. Raises ValueError for others."""
    chosen = []
    for name in names or [workload.name for workload in WORKLOADS]:
        found = [w for w in WORKLOADS if w.name == name] or [w for w in WORKLOADS if w.name.startswith(f"{name}_")]
        if not found:
            raise ValueError(f"there is no problem {name!r}; there are {', '.join(w.name for w in WORKLOADS)}")
        chosen += found
    return chosen


def respond(rng: np.random.Generator, family: str, eta: np.ndarray, theta: np.ndarray | float | None = None) -> np.ndarray:
    """Responses with this linear predictor."""
    if family == "gaussian":
        return eta + rng.standard_normal(eta.shape)
    if family == "binomial":
        return (rng.random(eta.shape) * (1.0 + np.exp(-eta)) < 1.0).astype(np.float64)
    mu = np.exp(eta)
    if family == "gamma":
        return mu * rng.standard_gamma(2.0, eta.shape) / 2.0
    if family == "negative_binomial":
        assert theta is not None
        mu *= rng.standard_gamma(theta, eta.shape) / theta
    return rng.poisson(mu).astype(np.float64)


def pieces(count: int, each: int, seed: int) -> Iterator[tuple[slice, np.random.Generator]]:
    """Slices of `count` things of `each` numbers, with a random stream for each slice."""
    size = max(1, PIECE // each)
    starts = range(0, count, size)
    for begin, stream in zip(starts, np.random.SeedSequence(seed).spawn(len(starts)), strict=True):
        yield slice(begin, min(begin + size, count)), np.random.default_rng(stream)


def grouped(name: str, family: str, shape: tuple[int, int, int], seed: int, what: str, exposed: bool = False) -> Problem:
    """g fits, each with a design of its own: an intercept and numbers. shape: (g, n, p)."""
    g, n, p = shape
    X, y = np.empty(shape), np.empty((g, n))
    offset = np.empty((g, n)) if exposed else None
    for part, rng in pieces(g, n * p, seed):
        rng.standard_normal(out=X[part])
        X[part, :, 0] = 1.0
        b = rng.uniform(-1.5, 1.5, (part.stop - part.start, p)) / np.sqrt(p)
        eta = np.matmul(X[part], b[:, :, None])[..., 0]
        if offset is not None:
            offset[part] = np.log(rng.uniform(0.5, 2.0, eta.shape))
            eta += offset[part] + 0.5
        y[part] = respond(rng, family, eta)
    return Problem(name, what, "own", family, X, y, offset=offset)


def grouped_logistic(name: str, size: int, seed: int) -> Problem:
    return grouped(name, "binomial", (size, 200, 8), seed, "logistic, 200 rows x 8, own designs")


def grouped_poisson(name: str, size: int, seed: int) -> Problem:
    return grouped(name, "poisson", (size, 50, 4), seed, "Poisson with exposure, 50 rows x 4, own designs", exposed=True)


def million_gaussian(name: str, size: int, seed: int) -> Problem:
    return grouped(name, "gaussian", (size, 100, 4), seed, "gaussian, 100 rows x 4, own designs")


def million_logistic(name: str, size: int, seed: int) -> Problem:
    return grouped(name, "binomial", (size, 100, 4), seed, "logistic, 100 rows x 4, own designs")


def wide(name: str, size: int, seed: int) -> Problem:
    return grouped(name, "gamma", (size, 10_000, 20), seed, "gamma with log link, 10,000 rows x 20, own designs")


def genes(name: str, size: int, seed: int, common: bool = False) -> Problem:
    """Counts of genes in 48 samples: two conditions, three batches, two measured covariates, and library sizes. Genes with
    hardly any counts are left out, as in any analysis; dispersions 1 / theta are around 0.15, or 0.15 for all."""
    rng = np.random.default_rng(seed)
    n = 48
    sample = np.arange(n)
    levels = [sample % 2, sample % 3 == 1, sample % 3 == 2]
    X = np.column_stack([np.ones(n), *levels, rng.standard_normal((n, 2))])
    offset = rng.normal(0.0, 0.3, n)
    theta, y = np.empty(size), np.empty((size, n))
    for part, stream in pieces(size, n, seed + 1):
        count = part.stop - part.start
        theta[part] = 1.0 / 0.15 if common else np.exp(stream.normal(1.9, 0.5, count))
        b = stream.uniform(-0.8, 0.8, (count, X.shape[1]))
        b[:, 0] = np.maximum(1.5, stream.normal(4.0, 1.5, count))
        y[part] = respond(stream, "negative_binomial", b @ X.T + offset, theta[part, None])
    what = f"negative binomial, {'one theta' if common else 'a theta for each'}, offsets, 48 rows x 6, one design"
    return Problem(name, what, "shared", "negative_binomial", X, y, offset=offset, theta=float(theta[0]) if common else theta)


def genes_common(name: str, size: int, seed: int) -> Problem:
    return genes(name, size, seed, common=True)


def bootstrap(name: str, size: int, seed: int) -> Problem:
    """Replicates of one logistic regression: how often each row was drawn is its weight."""
    rng = np.random.default_rng(seed)
    n, p = 1000, 10
    X = np.column_stack([np.ones(n), rng.standard_normal((n, p - 2)), rng.integers(0, 2, n)])
    y = respond(rng, "binomial", X @ (rng.uniform(-1.5, 1.5, p) / np.sqrt(p)))
    weights = np.empty((size, n))
    for part, stream in pieces(size, n, seed + 1):
        weights[part] = stream.multinomial(n, np.full(n, 1.0 / n), part.stop - part.start)
    return Problem(name, "logistic, multinomial weights, 1,000 rows x 10, one design", "shared", "binomial", X, y, weights)


def scan(name: str, size: int, seed: int) -> Problem:
    """Genotypes 0, 1, 2 of 5,000 people in Hardy-Weinberg proportions, one in a hundred missing."""
    rng = np.random.default_rng(seed)
    n = 5000
    X = np.column_stack([np.ones(n), rng.standard_normal((n, 4)), rng.integers(0, 2, n)])
    y = respond(rng, "binomial", X @ np.array([-0.5, 0.5, -0.3, 0.2, 0.1, 0.3]))
    features = np.empty((size, n), np.int8)
    for part, stream in pieces(size, n, seed + 1):
        count = part.stop - part.start
        f = stream.uniform(0.05, 0.5, (count, 1))
        draw = stream.integers(0, 2**16, (count, n), np.uint16)
        none, one = ((2**16 * q).astype(np.uint16) for q in ((1 - f) ** 2, 1 - f**2))
        features[part] = (draw >= none).view(np.int8) + (draw >= one).view(np.int8)
        features[part].reshape(-1)[stream.integers(0, count * n, count * n // 100)] = MISSING
    what = "logistic, 5,000 rows x 7: one of many int8 genotypes beside covariates, 1% missing"
    return Problem(name, what, "scan", "binomial", X, y, features=features)


def single_big(name: str, size: int, seed: int) -> Problem:
    p = 50
    X, y = np.empty((size, p)), np.empty(size)
    b = np.random.default_rng(seed).uniform(-1.5, 1.5, p) / np.sqrt(p)
    for part, rng in pieces(size, p, seed + 1):
        rng.standard_normal(out=X[part])
        X[part, 0] = 1.0
        y[part] = respond(rng, "binomial", X[part] @ b)
    return Problem(name, f"logistic, one fit of {size:,} rows x 50", "single", "binomial", X, y)


def ragged(name: str, size: int, seed: int) -> Problem:
    return ragged_logistic(name, size, seed, flawed=True)


def ragged_clean(name: str, size: int, seed: int) -> Problem:
    return ragged_logistic(name, size, seed, flawed=False)


WORKLOADS = (
    Workload("grouped_logistic", grouped_logistic, 1, 10_000),
    Workload("grouped_poisson", grouped_poisson, 2, 100_000),
    Workload("ragged_logistic", ragged, 3, 100_000, smallest=100),
    Workload("ragged_logistic_clean", ragged_clean, 3, 100_000, smallest=100),
    Workload("million_gaussian", million_gaussian, 4, 1_000_000),
    Workload("million_logistic", million_logistic, 5, 1_000_000),
    Workload("shared_nb", genes, 6, 20_000, gpu_size=1_000_000),
    Workload("shared_nb_common", genes_common, 6, 20_000, gpu_size=1_000_000),
    Workload("bootstrap", bootstrap, 7, 10_000),
    Workload("scan", scan, 8, 20_000, gpu_size=500_000),
    Workload("wide", wide, 9, 1_000, smallest=2),
    Workload("single_big", single_big, 10, 2_000_000, gpu_size=10_000_000, smallest=2_000),
)
