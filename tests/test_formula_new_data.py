"""Formulas and new data: the same columns again, or an error that says why not."""

import pickle

import numpy as np
import pytest
from tables_of_formulas import CONTRACEPTION, KINDS, make

from jaxglm import formula


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


RICH = "use ~ poly(age, 2) + scale(age) + bs(age, df=4) + I(age^2):urban + livch + C(district) + offset(log(age + 20))"


@pytest.mark.parametrize("of", list(KINDS))
def test_a_spec_makes_the_same_design_of_any_table(kind, of):
    made = make(RICH, KINDS[of](CONTRACEPTION))
    spec = formula.Spec.from_bytes(made.spec.to_bytes())
    new = {name: values[5:17] for name, values in CONTRACEPTION.items() if name != "use"}
    np.testing.assert_allclose(spec.design(kind(new)), made.X[5:17], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(spec.offset(kind(new)), made.offset[5:17])
    one = {name: values[:1] for name, values in new.items()}
    np.testing.assert_allclose(spec.design(kind(one)), made.X[5:6], rtol=1e-12, atol=1e-12)
    assert spec.names == made.names
    assert len(pickle.dumps(spec)) < 20_000


def test_unseen_levels_are_an_error(kind):
    spec = make("use ~ urban + C(district)", kind(CONTRACEPTION)).spec
    with pytest.raises(ValueError, match=r"column 'urban' has levels that the fit has not seen: 'X'\. It saw 'N', 'Y'"):
        spec.design(kind({"urban": ["Y", "X"], "district": [0, 1]}))
    with pytest.raises(ValueError, match=r"levels that are not among its own: .*9"):
        spec.design(kind({"urban": ["Y", "N"], "district": [0, 9]}))
    with pytest.raises(ValueError, match="no column 'district'"):
        spec.design(kind({"urban": ["Y", "N"]}))


def test_numbers_and_text_do_not_stand_in_for_each_other(kind):
    spec = make("use ~ age + livch", kind(CONTRACEPTION)).spec
    with pytest.raises(TypeError, match="column 'age' holds String, not numbers"):
        spec.design(kind({"age": ["old"], "livch": ["0"]}))
    with pytest.raises(ValueError, match="not seen: 0"):
        spec.design(kind({"age": [1.0], "livch": [0]}))


def test_missing_values_make_rows_of_nan(kind):
    spec = make("use ~ age + urban + offset(district)", kind(CONTRACEPTION)).spec
    new = {"age": [1.0, None, 3.0], "urban": ["Y", "Y", None], "district": [1, None, 3]}
    np.testing.assert_array_equal(spec.design(kind(new)), [[1, 1, 1], [np.nan] * 3, [np.nan] * 3])
    np.testing.assert_array_equal(spec.offset(kind(new)), [1, np.nan, 3])
    none = {"age": np.array([np.nan]), "urban": ["Y"], "district": [1]}
    assert np.isnan(spec.design(kind(none))).all()


def test_beyond_the_knots():
    spec = make("use ~ bs(age, df=4)", CONTRACEPTION).spec
    with pytest.raises(ValueError, match="formula 'use ~ bs"):
        spec.design({"age": [99.0]})


def test_bytes_that_are_no_spec():
    with pytest.raises(ValueError, match="not a Spec"):
        formula.Spec.from_bytes(pickle.dumps({}))
