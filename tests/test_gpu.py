"""The contract on a CUDA device, through skorch's own ``device``."""

import pickle

import numpy as np
import pytest
from sklearn.base import is_classifier
from skorch import NeuralNet
from torch import nn

from skmeta.base import NeuralMetaEstimator
from skmeta.modules import MLP, Conv4
from skmeta.utils.discovery import all_estimators
from skmeta.utils.estimator_checks import ragged_tasks, to_long

pytestmark = pytest.mark.gpu

NEURAL = [e for _, e in all_estimators() if issubclass(e, NeuralMetaEstimator)]


def fitted(estimator, device, module=MLP, tasks=None):
    criterion = nn.CrossEntropyLoss if is_classifier(estimator()) else nn.MSELoss
    net = NeuralNet(
        module, criterion, max_epochs=2, train_split=None, verbose=0, device=device
    )
    meta = estimator(net, random_state=0)
    return meta.fit(ragged_tasks(meta) if tasks is None else tasks)


@pytest.mark.parametrize("estimator", NEURAL)
def test_device_gives_what_the_cpu_gives(estimator):
    meta = fitted(estimator, "cuda")
    assert meta.learner_.backbone[1].weight.device.type == "cuda"
    X, y, groups = to_long(ragged_tasks(meta, seed=1))
    on_device = meta.adapt(X, y, groups=groups).predict(X, groups=groups)
    assert isinstance(on_device, np.ndarray)

    meta.net_.set_params(device="cpu")
    meta.learner_ = meta._frozen_learner(meta.net_.module_.learner.cpu())
    meta.states_ = meta.states_.unsolved()
    on_cpu = meta.adapt(X, y, groups=groups).predict(X, groups=groups)
    if is_classifier(meta):
        assert np.mean(on_device == on_cpu) > 0.95
    else:
        np.testing.assert_allclose(on_device, on_cpu, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("estimator", NEURAL)
def test_pickle_is_free_of_the_device(estimator):
    meta = fitted(estimator, "cuda")
    other = pickle.loads(pickle.dumps(meta))
    X, _, groups = to_long(ragged_tasks(meta))
    np.testing.assert_allclose(
        other.predict(X, groups=groups) == meta.predict(X, groups=groups), True
    )


@pytest.mark.parametrize("estimator", [e for e in NEURAL if is_classifier(e())])
def test_convolutions(estimator):
    rng = np.random.default_rng(0)
    tasks = [(rng.random((12, 16, 16)), np.arange(12) % 3) for _ in range(4)]
    meta = fitted(estimator, "cuda", Conv4, tasks)
    assert np.isfinite(meta.adapt(*tasks[0]).predict_proba(tasks[1][0])).all()
