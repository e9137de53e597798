"""Pictures: what they show, what they count in their captions, and what they leave alone."""

import importlib
import sys

import numpy as np
import pytest

import jaxglm
from jaxglm import StatusWarning, datasets

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = importlib.import_module("matplotlib.pyplot")
terms = importlib.import_module("jaxglm.pictures.terms")

RNG = np.random.default_rng(5)
TERM_PICTURES = ("plot_forest", "plot_volcano", "plot_funnel")


@pytest.fixture(scope="module")
def districts():
    """Women of 60 districts, of which some separate."""
    with pytest.warns(StatusWarning):
        return jaxglm.glm("use ~ age + urban", datasets.load("contraception"), family="binomial", by="district")


@pytest.fixture(scope="module")
def counts():
    """One Poisson fit with an influential row, named."""
    X = np.column_stack([np.ones(90), np.linspace(-1, 1, 90)])
    y = RNG.poisson(3.0, 90)
    y[0] = 80
    return jaxglm.fit(X, y, family="poisson", names=["one", "x"])


@pytest.fixture(autouse=True)
def closed():
    """No figure stays open, and no setting of matplotlib is changed."""
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def caption(ax):
    """The caption below a picture."""
    return max((text.get_text().replace("\n", " ") for text in ax.texts), key=len)


def legend(ax):
    """What a legend says."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_forest_shows_or_counts_every_group(districts):
    ax = districts.plot_forest("urban[T.Y]")
    solution = districts.solution
    infinite, aliased = np.count_nonzero(solution.infinite[:, 2]), np.count_nonzero(solution.aliased[:, 2])
    drawn = np.isfinite(districts.standard_errors[:, 2]).sum()
    assert infinite > 0
    assert aliased > 0
    assert f"{drawn} of 60 groups" in caption(ax)
    assert f"{infinite} with an infinite estimate (full triangles" in caption(ax)
    assert f"{aliased} aliased" in caption(ax)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == drawn + infinite
    down, *_, up = (districts.groups.tolist().index(int(label)) for label in labels)
    assert districts.infinite[down, 2] == -1
    assert districts.infinite[up, 2] == 1
    assert ax.get_xlabel() == "urban[T.Y], estimate (logit scale)"
    assert ax.get_ylabel() == "district"
    assert legend(ax) == ["precision-weighted mean", "95% interval", "estimate"]
    segments = ax.collections[0].get_segments()
    interval = districts.conf_int()[:, 2]
    assert sorted(segment[0, 0] for segment in segments) == sorted(interval[np.isfinite(interval[:, 0]), 0])
    ax.figure.canvas.draw()


def test_many_groups_have_no_labels():
    y = RNG.poisson(3.0, (3000, 30))
    fit = jaxglm.fit(np.column_stack([np.ones(30), np.linspace(-1, 1, 30)]), y, family="poisson", names=["one", "x"])
    ax = fit.plot_forest("x")
    assert ax.get_yticks().tolist() == []
    assert ax.get_ylabel().endswith(", sorted by estimate")
    assert caption(ax).startswith("3,000 groups")
    ax.figure.canvas.draw()
    ax = fit.plot_funnel("x")
    assert ax.get_ylabel() == "standard error"  # the groups are equally large
    assert ax.yaxis_inverted()
    assert min(ax.get_yticks()) >= 0


def test_volcano_finds_what_benjamini_and_hochberg_find(districts):
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216])
    np.testing.assert_allclose(10 ** terms.discovery_bound(np.log10(p), 0.05), 0.008)
    assert terms.discovery_bound(np.log10(np.array([0.5, np.nan])), 0.05) == -np.inf
    assert terms.discovery_bound(np.array([-400.0, -1.0]), 0.05) == -400.0
    ax = districts.plot_volcano("age", p=0.2)
    found = districts.p_values[:, 1]
    below = (found <= 0.2) & (districts.infinite[:, 1] == 0)
    rising = below & (districts.coefficients[:, 1] > 0)
    assert f"p ≤ 0.2, positive ({rising.sum()})" in legend(ax)
    named = {text.get_text() for text in ax.texts}
    assert str(districts.groups[np.nanargmin(np.where(below, found, np.nan))]) in named
    assert "infinite, without a p-value" in caption(ax)
    assert "none found at a false discovery rate of 1e-09" in caption(districts.plot_volcano("age", q=1e-9))
    for name, value in (("q", 0.0), ("p", 1.5)):
        with pytest.raises(ValueError, match=f"{name} must be between 0 and 1"):
            districts.plot_volcano("age", **{name: value})


def test_labels_do_not_overlap(districts):
    ax = districts.plot_volcano("age", p=0.9)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text().isdigit()]
    assert len(boxes) > 3
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_funnel_and_status(districts):
    ax = districts.plot_funnel("age")
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    sizes = districts.n_obs[np.isfinite(districts.standard_errors[:, 1]) | (districts.infinite[:, 1] != 0)]
    assert low <= sizes.min() < sizes.max() <= high
    assert ax.get_ylabel() == "rows of the district (log scale)"
    ax = districts.plot_status()
    counts = {name.rsplit(" (", 1)[0]: int(name.rsplit(" (", 1)[1][:-1]) for name in legend(ax)}
    assert counts == {"converged": int(districts.converged.sum()), "separated": int((~districts.converged).sum())}
    assert sum(bar.get_height() for bar in ax.patches) == 60
    assert f"{np.sum(districts.verdict == 'ok')} of 60 fits are ok" in caption(ax)
    ax.figure.canvas.draw()


def test_residuals_of_a_group(districts, counts):
    ax = counts.plot_residuals()
    assert ax.get_ylabel() == "quantile residual"
    assert ax.get_xlabel() == "linear predictor (log scale)"
    assert "influential (1)" in legend(ax)
    assert "row 0" in {text.get_text() for text in ax.texts}
    assert caption(ax).startswith("90 rows")
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 1], counts.quantile_residuals())
    ax = counts.plot_residuals(against="normal", seed=4)
    np.testing.assert_allclose(ax.collections[-1].get_offsets()[:, 1], np.sort(counts.quantile_residuals(seed=4)))
    assert counts.plot_residuals(against="x").get_xlabel() == "x"
    group = districts.groups[0]
    assert caption(districts.plot_residuals(group)).startswith(f"Group {group}: 117 rows")
    separated = districts.groups[np.flatnonzero(districts.infinite[:, 2])[0]]
    ax = districts.plot_residuals(separated)
    assert "at their limit are not shown" in caption(ax)
    ax.figure.canvas.draw()


def test_calibration_of_a_group(districts, counts):
    ax = counts.plot_calibration(bins=6)
    points = ax.lines[-1].get_xydata()
    assert len(points) == 6
    np.testing.assert_allclose(points[:, 1].mean(), counts.observations.y.mean())
    assert "90 rows in 6 bins" in caption(ax)
    assert "in 10 bins" in caption(districts.plot_calibration(districts.groups[0]))
    with pytest.raises(ValueError, match="calibration needs at least 2 bins, not 1"):
        counts.plot_calibration(bins=1)


def test_axes_that_are_given_are_used(districts, counts):
    figure = matplotlib.figure.Figure()
    axes = figure.subplots(2, 3).ravel()
    for ax, name in zip(axes, (*TERM_PICTURES, "plot_status"), strict=False):
        arguments = () if name == "plot_status" else ("age",)
        assert getattr(districts, name)(*arguments, ax=ax) is ax
    assert counts.plot_residuals(ax=axes[4]) is axes[4]
    assert counts.plot_calibration(ax=axes[5]) is axes[5]
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


def test_bad_requests_say_what_there_is(districts, counts):
    for name in TERM_PICTURES:
        with pytest.raises(
            ValueError, match=r"there is no term 'agee'\. Did you mean 'age'\? Terms: Intercept, age, urban\[T\.Y\]"
        ):
            getattr(districts, name)("agee")
        with pytest.raises(ValueError, match="this is one fit; a picture of a term over groups needs many"):
            getattr(counts, name)("x")
    for name in ("plot_residuals", "plot_calibration"):
        with pytest.raises(KeyError, match="there is no group 99"):
            getattr(districts, name)(99)
        with pytest.raises(ValueError, match="name the group whose rows to draw, as in group="):
            getattr(districts, name)()
        with pytest.raises(ValueError, match="this is one fit, without groups; there is no group 'a'"):
            getattr(counts, name)("a")
    with pytest.raises(ValueError, match=r"nothing called 'fited' to draw against\. Did you mean 'fitted'"):
        counts.plot_residuals(against="fited")
    assert plt.get_fignums() == []


def test_groups_without_any_estimate():
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(np.ones((5, 1)), np.full((3, 5), np.nan), names=["one"])
    for name in TERM_PICTURES:
        ax = getattr(fit, name)("one")
        assert "0 of 3 groups. Not shown: 3 invalid data" in caption(ax).replace(
            ", none found at a false discovery rate of 0.05", ""
        )
        ax.figure.canvas.draw()
    fit.plot_status().figure.canvas.draw()


def test_without_matplotlib(districts, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name.startswith("jaxglm.pictures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pictures need matplotlib: pip install "jaxglm-batched\[plots\]"'):
        districts.plot_forest("age")
