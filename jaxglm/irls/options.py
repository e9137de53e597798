"""How the iteration is run."""

from __future__ import annotations

from dataclasses import dataclass

FACTORIZATIONS = ("auto", "cholesky", "orthogonal")
INFORMATION = ("observed", "expected")


@dataclass(frozen=True)
class IRLS:
    """Options of iteratively reweighted least squares.

    tol: how far from the optimum the estimates may be, as a fraction of their standard errors.
    max_iterations: accepted steps before a fit is given up as MAX_ITERATIONS; with fewer than 25 `fit` tries no other way.
    max_halvings: how often one step may be halved before a fit is given up as STEP_FAILED.
    factorization: "cholesky" of the Gram matrix is fast but cannot see dependent columns; a fit in which it cannot be
        trusted is reported as `undecided`. "orthogonal" factors the rows themselves and aliases columns as R does.
        "auto" does the first for all fits and the second for the undecided ones.
    information: with "observed", working weights become those of Newton's method, row by row where these are positive,
        once the step is small, so that the iteration converges quadratically under every link. "expected" is Fisher
        scoring throughout, which is linear under links that are not canonical. The estimates are the same, and standard
        errors come from the expected information either way, as R's do.

    >>> from jaxglm import IRLS
    >>> IRLS(max_iterations=25).tol
    1e-09
    """

    tol: float = 1e-9
    max_iterations: int = 100
    max_halvings: int = 30
    factorization: str = "auto"
    information: str = "observed"

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise ValueError(f"tol must be between 0 and 1, not {self.tol!r}")
        if self.max_iterations < 1 or self.max_halvings < 0:
            raise ValueError("max_iterations must be at least 1 and max_halvings at least 0")
        if self.factorization not in FACTORIZATIONS:
            raise ValueError(f"factorization must be one of {', '.join(FACTORIZATIONS)}, not {self.factorization!r}")
        if self.information not in INFORMATION:
            raise ValueError(f"information must be one of {', '.join(INFORMATION)}, not {self.information!r}")
