"""What became of a fit, in a word and in a sentence.

A batch never raises because of what a group holds. Each fit ends with a `Status`, whose message says what happened, why
usually, and what to do.
"""

from __future__ import annotations

import enum

import numpy as np


class StatusWarning(UserWarning):
    """One a call: some fits did not converge. It counts them by status and names the first few."""


class Status(enum.IntEnum):
    """What became of a fit. When several apply: INVALID_DATA, NO_DATA, SEPARATED, STEP_FAILED, MAX_ITERATIONS.

    >>> from jaxglm import Status
    >>> Status.SEPARATED.label
    'separated'
    """

    CONVERGED = 0
    SEPARATED = 1
    MAX_ITERATIONS = 2
    STEP_FAILED = 3
    NO_DATA = 4
    INVALID_DATA = 5

    @property
    def label(self) -> str:
        """The lower-case name, as tables print it."""
        return self.name.lower()

    @property
    def message(self) -> str:
        """What happened, why usually, and what to do."""
        return _MESSAGES[self]


class Method(enum.IntEnum):
    """How the estimates of a fit were made: by maximum likelihood, with a penalty that selects, or with less bias.

    OTHER_START, DAMPED and LBFGS name the rung of `jaxglm.ladder` from which IRLS, having failed at first, reached the optimum.
    BOUNDARY is an optimum on the boundary of the valid means, where the score is not zero and there are no errors.

    >>> from jaxglm.status import Method
    >>> Method.IRLS.label
    'irls'
    """

    IRLS = 0
    ELASTIC_NET = 1
    MEAN_BIAS_REDUCED = 2
    MEDIAN_BIAS_REDUCED = 3
    JEFFREYS = 4
    OTHER_START = 5
    DAMPED = 6
    LBFGS = 7
    BOUNDARY = 8

    @property
    def maximises_likelihood(self) -> bool:
        """Whether the estimates are those of maximum likelihood, or its penalized form, on a boundary the constrained ones."""
        return self in (Method.IRLS, Method.OTHER_START, Method.DAMPED, Method.LBFGS, Method.BOUNDARY)

    @property
    def reduces_bias(self) -> bool:
        """Whether scores were adjusted, so that estimates are finite even where a fit is separated."""
        return self in (Method.MEAN_BIAS_REDUCED, Method.MEDIAN_BIAS_REDUCED, Method.JEFFREYS)

    @property
    def label(self) -> str:
        """The lower-case name, as tables print it."""
        return self.name.lower()


def maximise_likelihood(methods: np.ndarray) -> np.ndarray:
    """Which of many fits maximise the likelihood, flags of the shape of `methods`, codes of `Method`."""
    return np.array([method.maximises_likelihood for method in Method])[methods]


_MESSAGES = {
    Status.CONVERGED: "The estimates are at the optimum.",
    Status.SEPARATED: (
        "Some estimates are infinite: a combination of the covariates predicts some responses perfectly, so that the "
        "likelihood rises without end along it. Usual with few rows, rare events or factor levels in which all responses "
        "are alike. `infinite` marks the diverging terms; the others keep their estimates and errors, and deviance and "
        'fitted values are the limits. With separated="firth" all estimates are finite; or drop or merge the terms that '
        "separate, add a Ridge penalty, or pool such groups."
    ),
    Status.MAX_ITERATIONS: (
        "The iteration was still moving when its steps ran out, and no other way led to an optimum; the last iterate is given, "
        "without errors. Usual where the likelihood is nearly flat or rises for ever, or few steps were allowed. Look at the "
        "data and the link, raise IRLS(max_iterations=...), or give start values."
    ),
    Status.STEP_FAILED: (
        "No valid step lowers the deviance, and no other way led to an optimum. Usual where no coefficients give all rows a "
        "valid mean (identity and inverse links), or where values are so large that arithmetic overflows. Use another link, "
        "give start values, or rescale the columns."
    ),
    Status.NO_DATA: (
        "No row of positive weight is left. Usual where all rows were dropped for missing values or have weight zero. "
        "There is nothing to fit; leave the group out."
    ),
    Status.INVALID_DATA: (
        "Some row of positive weight holds a value that is not finite, a response that the family does not allow (a "
        "negative count, a proportion above one), or a weight is negative or not finite, or an exposure not positive. "
        'Correct the rows; missing="drop" leaves out those with missing values.'
    ),
}
