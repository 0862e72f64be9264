"""Backbones: values, and what must not change them."""

import numpy as np
import pytest
import torch
from _tiny import tiny
from sklearn.base import is_classifier
from torch import nn

from skmeta import MAMLClassifier, ProtoNetClassifier, RidgeHeadRegressor
from skmeta.modules import Conv4, Recurrent, ResNet12, TemporalConv
from skmeta.modules._sequence import real_steps

POOLINGS = ["last", "mean", "max", "attention"]
SERIES = {
    **{
        f"{cell} {pooling}{' both ways' if both else ''}": (
            lambda cell=cell, pooling=pooling, both=both: Recurrent(
                5, cell, n_layers=2, bidirectional=both, pooling=pooling
            )
        )
        for cell in ("gru", "lstm", "rnn")
        for pooling in POOLINGS
        for both in (False, True)
    },
    **{
        f"tcn {pooling}": lambda pooling=pooling: TemporalConv(5, pooling=pooling)
        for pooling in POOLINGS
    },
}


def built(module, *shape):
    torch.manual_seed(0)
    module = module().eval()
    with torch.no_grad():
        module(torch.zeros(1, *shape))
    return module.double()


def series(n=4, length=9, channels=2):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, length, channels, generator=generator).double()
    lengths = [length, 1, 5, 3]
    for i, end in enumerate(lengths):
        X[i, end:] = 0
    return X, lengths


def conv4_as_published(module, X):
    """Convolution, batch norm, ReLU, pooling, in this order and the usual layout."""
    X = X.unsqueeze(1) if X.ndim == 3 else X
    for conv, norm in module.blocks:
        X = nn.functional.conv2d(X, conv.weight, conv.bias, padding=1)
        X = nn.functional.batch_norm(
            X, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
        ).relu()
        X = nn.functional.max_pool2d(X, 2) if min(X.shape[-2:]) > 1 else X
    return X.flatten(1)


@pytest.mark.parametrize("shape", [(12, 12), (1, 12, 12), (3, 9, 16)])
def test_conv4_computes_what_was_published(shape):
    """Layout in memory and order of pooling and ReLU change speed alone."""
    module = built(lambda: Conv4(width=6), *shape).train()
    for _, norm in module.blocks:
        nn.init.uniform_(norm.weight, -1.0, 1.0)
    X = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    weights = [X, *module.parameters()]
    ours, reference = module(X), conv4_as_published(module, X)
    torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)
    pairs = (
        torch.autograd.grad(out.square().sum(), weights) for out in (ours, reference)
    )
    for got, expected in zip(*pairs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SERIES)
def test_padding_changes_nothing(name):
    """A padded series is the short series, and batching is a loop."""
    module = built(SERIES[name], 9, 2)
    X, lengths = series()
    together = module(X)
    padded = module(torch.cat([X, torch.zeros(4, 6, 2).double()], dim=1))
    torch.testing.assert_close(padded, together)
    for i, end in enumerate(lengths):
        torch.testing.assert_close(module(X[i : i + 1, :end])[0], together[i])
    assert together.shape == (4, 10 if "both" in name else 5)


def test_real_steps():
    X = torch.tensor([[1, 0, 2, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 3]])[..., None]
    assert real_steps(X).sum(dim=1).tolist() == [3, 1, 5]


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_both_ways_are_those_of_torch(cell):
    """The last states of a packed bidirectional layer of Torch's own."""
    module = built(lambda: Recurrent(5, cell, bidirectional=True), 9, 2)
    X, lengths = series()
    kinds = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
    torch_layer = kinds[cell](5, 5, batch_first=True, bidirectional=True).double()
    weights = dict(module.forwards[0].named_parameters())
    weights |= {f"{k}_reverse": v for k, v in module.backwards[0].named_parameters()}
    torch_layer.load_state_dict(weights)
    packed = nn.utils.rnn.pack_padded_sequence(
        module.project(X), lengths, batch_first=True, enforce_sorted=False
    )
    state = torch_layer(packed)[1]
    last = state[0] if cell == "lstm" else state
    torch.testing.assert_close(module(X), torch.cat([*last], dim=1))


def test_temporal_conv_sees_what_it_says():
    """1 + 2 (3 - 1) (2**2 - 1) = 13 steps back, and nothing ahead."""
    module = built(lambda: TemporalConv(32, n_blocks=2, pooling="last"), 20, 1)
    X = torch.randn(1, 20, 1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(module(X).sum(), X)
    assert 20 - int(gradient[0, :, 0].nonzero()[0]) == 13


def test_resnet12_has_the_published_number_of_weights():
    """12.4 million, as the papers that compare backbones give it."""
    module = ResNet12().eval()
    with torch.no_grad():
        assert module(torch.zeros(1, 3, 84, 84)).shape == (1, 640)
    n_weights = sum(p.numel() for p in module.parameters())
    assert round(n_weights / 1e6, 1) == 12.4


def test_resnet12_takes_images_of_any_size():
    for shape in ((2, 8, 8), (2, 3, 5, 5), (2, 1, 33, 20)):
        assert ResNet12((2, 2, 3))(torch.zeros(shape)).shape == (2, 3)


@pytest.mark.parametrize("module", [Recurrent, TemporalConv])
@pytest.mark.parametrize(
    "estimator", [ProtoNetClassifier, RidgeHeadRegressor, MAMLClassifier]
)
def test_series_of_different_lengths(estimator, module):
    """Rows of a task are judged alike whatever the padding, second order included."""
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(8):
        X = rng.normal(size=(10, 6, 2))
        for i in range(10):
            X[i, 2 + i % 5 :] = 0
        total = X[:, :, 0].sum(axis=1)
        tasks.append((X, total > np.median(total)))
        if not is_classifier(estimator()):
            tasks[-1] = (X, total)
    net = {"module__pooling": "mean"}
    meta = tiny(estimator, module, net=net, n_episodes=4).fit(tasks)
    X, y = tasks[0]
    method = "predict_proba" if is_classifier(meta) else "predict"
    expected = getattr(meta.adapt(X, y), method)(X)
    rows = X[3:4]
    np.testing.assert_allclose(
        getattr(meta, method)(rows), expected[3:4], rtol=1e-7, atol=1e-12
    )


def test_unknown_kinds():
    with pytest.raises(ValueError, match="cell must be one of"):
        Recurrent(cell="gated")
    with pytest.raises(ValueError, match="pooling must be"):
        TemporalConv(pooling="first")


def test_resnet12_in_the_inner_loop():
    """Its batch norms take the statistics of each task's support rows."""
    rng = np.random.default_rng(0)
    tasks = [(rng.normal(size=(8, 6, 6)), np.arange(8) % 2) for _ in range(4)]
    net = {"module__widths": (2, 3)}
    meta = tiny(MAMLClassifier, ResNet12, net=net, n_episodes=4).fit(tasks)
    X, y = tasks[0]
    proba = meta.adapt(X, y).predict_proba(X)
    np.testing.assert_allclose(meta.predict_proba(X[2:3]), proba[2:3], rtol=1e-7)
