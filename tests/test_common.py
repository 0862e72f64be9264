"""The contract: every public estimator, by being listed in `skmeta.__all__`."""

import numpy as np
import pytest
import sklearn
from _tiny import seeded, shortened
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from skmeta import (
    AdaptedClassifier,
    AdaptedRegressor,
    HierarchicalRegressor,
    ProtoNetClassifier,
)
from skmeta.utils.discovery import all_estimators
from skmeta.utils.estimator_checks import (
    check_meta_estimator,
    parametrize_with_meta_checks,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::skmeta.SingleTaskWarning"),
    # Raised inside sklearn's own checks.
    pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix:UserWarning"),
]

# Some of sklearn's checks have features around 100, too large for gradient steps of the
# default size; what they check holds all the same.
unscaled = pytest.mark.filterwarnings("ignore::skmeta.DivergenceWarning")

LEARNERS = [estimator for _, estimator in all_estimators()]


def adapted(estimator):
    is_classifier = estimator in [e for _, e in all_estimators("classifier")]
    wrapper = AdaptedClassifier if is_classifier else AdaptedRegressor
    return wrapper(seeded(estimator))


@pytest.fixture(autouse=True)
def array_api(monkeypatch):
    """Without it sklearn silently skips a check."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


#: Checks that ask for a score: the only ones that need the training of a default fit.
SCORED = ("check_classifiers_train", "check_regressors_train")


# What an estimator accepts and returns does not depend on how long it trains. sklearn's
# own common tests shorten its iterative estimators in the same way.
@unscaled
@parametrize_with_checks([estimator() for estimator in LEARNERS])
def test_sklearn_checks(estimator, check, request):
    if check.func.__name__ not in SCORED:
        request.getfixturevalue("short_training")
        estimator = shortened(estimator)
    check(estimator)


# The wrappers are the same around every learner: two here, all of them under `slow`.
@unscaled
@parametrize_with_checks([adapted(ProtoNetClassifier), adapted(HierarchicalRegressor)])
def test_sklearn_checks_of_adapted(estimator, check):
    check(estimator)


# One item for all checks of an estimator: thousands of items take a minute to collect.
# A check that sklearn skips warns, and a warning is an error.
@pytest.mark.slow
@unscaled
@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("estimator", LEARNERS)
def test_sklearn_checks_in_default_construction(estimator, wrapped, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        check_estimator(adapted(estimator) if wrapped else estimator())


@parametrize_with_meta_checks([seeded(estimator) for estimator in LEARNERS])
@pytest.mark.usefixtures("short_training")
def test_meta_checks(estimator, check):
    check(shortened(estimator))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", LEARNERS)
def test_meta_checks_at_full_length(estimator):
    check_meta_estimator(seeded(estimator))


def test_every_public_name_is_documented():
    import skmeta

    for name in skmeta.__all__:
        doc = getattr(skmeta, name).__doc__
        assert doc and doc.strip(), name


def test_all_estimators_knows_kinds():
    names = {name for name, _ in all_estimators()}
    assert {name for name, _ in all_estimators("classifier")} < names
    assert {name for name, _ in all_estimators("regressor")} < names
    assert np.all([name.endswith(("Classifier", "Regressor")) for name in names])
