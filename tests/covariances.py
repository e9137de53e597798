"""Data and covariances of R's, for tests of robust covariances and of weights."""

import json
from pathlib import Path

import numpy as np

REFERENCE = json.loads((Path(__file__).parent / "reference" / "robust.json").read_text())
DATA = {name: np.array(values) for name, values in REFERENCE["data"].items() if name != "y"}
Y = {name: np.array(values, float) for name, values in REFERENCE["data"]["y"].items()}


def square(lower, p):
    """The reference's lower triangle as a matrix, NaN in the aliased column if p is 4."""
    out = np.full((p, p), np.nan)
    out[:3, :3][np.triu_indices(3)] = lower  # R goes down the columns
    out[:3, :3] = np.where(np.isnan(out[:3, :3]), out[:3, :3].T, out[:3, :3])
    out[:3, :3][np.tril_indices(3)] = out[:3, :3].T[np.tril_indices(3)]
    return out


def assert_covariance(found, reference, p):
    """Relative to the variances."""
    reference = square(reference, p)
    unit = np.sqrt(np.diagonal(reference))
    np.testing.assert_allclose(found / unit / unit[:, None], reference / unit / unit[:, None], rtol=0.0, atol=2e-8)
