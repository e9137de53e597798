"""jaxglm: thousands to millions of generalized linear models in one call, on CPU and GPU, with R's numbers.

`glm` fits from tables with formulas, `fit` and `scan` from arrays; all return a `GLMResults`. `irls`, `families` and
`links` are the pieces, for research. Importing jaxglm changes no configuration of JAX and starts no device.
"""

from typing import TYPE_CHECKING, Any

from jaxglm import datasets, families, irls, links
from jaxglm.arrays import fit, scan
from jaxglm.check import check_family
from jaxglm.comparisons import anova
from jaxglm.discovery import adjust
from jaxglm.irls import IRLS
from jaxglm.penalty import ElasticNet, Ridge
from jaxglm.regularization import regularization_path
from jaxglm.results import GLMResults
from jaxglm.score_scans import score_scan
from jaxglm.status import Status, StatusWarning
from jaxglm.storage import load
from jaxglm.weights import Weights

if TYPE_CHECKING:
    from jaxglm.model import glm

__version__ = "0.1.0"

__all__ = [
    "IRLS",
    "ElasticNet",
    "GLMResults",
    "Ridge",
    "Status",
    "StatusWarning",
    "Weights",
    "adjust",
    "anova",
    "check_family",
    "datasets",
    "families",
    "fit",
    "glm",
    "irls",
    "links",
    "load",
    "regularization_path",
    "scan",
    "score_scan",
]


def __getattr__(name: str) -> Any:
    """`glm` comes when it is first used: tables and formulas are extras, and slow to import."""
    if name == "glm":
        from jaxglm.model import glm

        return glm
    raise AttributeError(f"module 'jaxglm' has no attribute {name!r}")
