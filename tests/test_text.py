"""Documents to ids and vectors, and learners that read them."""

import pickle
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from _tiny import tiny
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize

from skmeta import (
    DualProtoNetClassifier,
    MAMLClassifier,
    ProtoNetClassifier,
    RidgeHeadClassifier,
    freeze,
)
from skmeta.metric._dual_learner import Centred, DualProtoNet, TfIdf
from skmeta.metric._dual_mixture import learn_mixture
from skmeta.modules import MLP, BagOfEmbeddings, TextCNN, TextRNN
from skmeta.tasks import TaskBatch
from skmeta.text import TokenSequences, Word2VecEmbedding

WORDS = "card lost money account pin fee change top up please my the a new".split()


def documents(n_classes=6, n_texts=8, seed=0):
    """Class c speaks of words 2c and 2c + 1, among others."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for c in range(n_classes):
        for _ in range(n_texts):
            own = [WORDS[2 * c], WORDS[2 * c + 1]]
            texts.append(" ".join(rng.permutation([*own, *rng.choice(WORDS[12:], 2)])))
            labels.append(c)
    return texts, np.array(labels)


# ------------------------------------------------------------------------------ tokens
def test_ids_are_by_frequency():
    tokens = TokenSequences(min_df=2).fit(["b a a", "c b a", "D c c"])
    assert tokens.vocabulary_ == {"a": 2, "c": 3, "b": 4}
    assert tokens.n_tokens_ == 5 and tokens.max_length_ == 3
    ids = tokens.transform(["C a x b b", "", "a"])
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, [[3, 2, 1], [1, 0, 0], [2, 0, 0]])
    assert tokens.inverse_transform(ids) == ["c a <unknown>", "<unknown>", "a"]
    assert TokenSequences(max_features=1).fit(["b a a"]).vocabulary_ == {"a": 2}
    own = TokenSequences(tokenizer=list).fit(["ab"])
    assert set(own.vocabulary_) == {"a", "b"}


def test_new_words_can_be_told_apart():
    tokens = TokenSequences(n_unknown=10_000).fit(["card lost"])
    ids = tokens.transform(["refund card", "card refund", "voucher lost"])
    assert ids[0, 0] == ids[1, 1] >= tokens.n_tokens_ and ids[2, 0] != ids[0, 0]
    backbone = BagOfEmbeddings(tokens.n_tokens_, width=4).eval()
    known = torch.from_numpy(np.where(ids < tokens.n_tokens_, ids, 1))
    torch.testing.assert_close(backbone(torch.from_numpy(ids)), backbone(known))


def test_tokens_bring_their_n_grams():
    tokens = TokenSequences(n_unknown=5, n_grams=(2, 3), n_buckets=10**6)
    ids = tokens.fit(["card pin", "a"]).transform(["pin card a", "spin", "!"])
    whole = clone(tokens).set_params(n_grams=None).fit(["card pin", "a"])
    np.testing.assert_array_equal(
        ids[..., 0], whole.transform(["pin card a", "spin", "!"])
    )
    # <card> is the longest token: five 2-grams and four 3-grams.
    assert ids.shape == (3, 2, 1 + 9) and (ids[2, 0, 1:] == 0).all()
    pin, card = (set(ids[0, i, 1:]) - {0} for i in range(2))
    assert len(pin) == 4 + 3 and len(card) == 9 and not pin & card
    assert min(pin) >= tokens.n_tokens_ + 5
    # "spin" is new, and shares pi, in, n>, pin and in> with "pin".
    assert len(pin & set(ids[1, 0, 1:])) == 5
    assert tokens.inverse_transform(ids) == whole.inverse_transform(ids[..., 0])


def test_n_grams_of_long_tokens_end():
    texts = ["x" * 500, "y"]
    tokens = TokenSequences(n_grams=(3, 3)).fit(texts)
    assert tokens.transform(texts).shape == (2, 1, 1 + 20)
    short = clone(tokens).fit(["pin"])  # three 3-grams; longer tokens have no room
    np.testing.assert_array_equal(
        short.transform(["pint", "pi"]) > 0, [[[1] * 4], [[1] * 3 + [0]]]
    )


@pytest.mark.parametrize("n_grams", [(3,), (0, 2), (4, 3), (2.0, 3.0)])
def test_n_grams_are_checked(n_grams):
    with pytest.raises(ValueError, match="n_grams must be the sizes"):
        TokenSequences(n_grams=n_grams).fit(["a"])


@pytest.mark.parametrize("transformer", [TokenSequences(), Word2VecEmbedding()])
def test_documents_are_checked(transformer):
    with pytest.raises(NotFittedError):
        transformer.transform(["a"])
    with pytest.raises(ValueError, match="single str"):
        transformer.fit("a b c")
    with pytest.raises(TypeError, match="number 1 is float"):
        transformer.fit(["a", np.nan])
    with pytest.raises(ValueError, match="At least one document"):
        transformer.fit([])
    with pytest.raises(ValueError, match="Empty vocabulary"):
        transformer.fit(["", "!"])


# ---------------------------------------------------------------------------- word2vec
def test_word2vec_is_reproducible_and_learns_company():
    pytest.importorskip("gensim")
    texts = ["cat purrs softly", "cat meows softly", "car drives fast"] * 60
    embed = Word2VecEmbedding(width=16, window=2, random_state=0).fit(texts)
    again = clone(embed).fit(texts)
    np.testing.assert_array_equal(embed.vectors_, again.vectors_)
    assert (embed.vectors_[0] == 0).all()
    unit = normalize(embed.vectors_)
    word = embed.tokens_.vocabulary_
    alike = unit[word["purrs"]] @ unit[word["meows"]]
    assert alike > unit[word["purrs"]] @ unit[word["drives"]] + 0.1
    series = embed.transform(["cat drives", "unseen"])
    assert series.shape == (2, 3, 16) and (series[0, 2] == 0).all()
    np.testing.assert_array_equal(series[0, 1], embed.vectors_[word["drives"]])
    np.testing.assert_allclose(series[1, 0], embed.vectors_[2:].mean(0), atol=1e-6)


def test_given_vectors_are_used_as_they_are():
    embed = Word2VecEmbedding({"a": [1, 2], "b": [3, 4]}).fit(["a c", "b"])
    word = embed.tokens_.vocabulary_
    np.testing.assert_array_equal(embed.vectors_[word["a"]], [1, 2])
    np.testing.assert_array_equal(embed.vectors_[word["c"]], [2, 3])
    parts = Word2VecEmbedding(embed.vectors, tokens=TokenSequences(n_grams=(1, 2)))
    texts = ["b a", "new"]
    found = parts.fit(["a c", "b"]).transform(texts)
    np.testing.assert_array_equal(found, embed.transform(texts))
    with pytest.raises(ValueError, match="No word"):
        Word2VecEmbedding({"z": [1.0]}).fit(["a b"])


def test_missing_gensim_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ImportError, match=r"skmeta\[text\]"):
        Word2VecEmbedding().fit(["a b"])


# --------------------------------------------------------------------------- backbones
BACKBONES = {
    "cnn": lambda **p: TextCNN(n_filters=5, **p),
    "rnn": lambda **p: TextRNN(hidden=5, **p),
    "rnn last": lambda **p: TextRNN(hidden=5, pooling="last", cell="lstm", **p),
    "bag": BagOfEmbeddings,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_padding_changes_nothing(name):
    torch.manual_seed(0)
    module = BACKBONES[name](embedding=20, width=6).eval()
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 0, 0, 0]])
    with torch.no_grad():
        together = module(ids)
        padded = module(torch.nn.functional.pad(ids, (0, 5)))
        torch.testing.assert_close(padded, together)
        for row, n in zip(range(3), (4, 2, 1), strict=True):
            torch.testing.assert_close(module(ids[row : row + 1, :n])[0], together[row])
        # Vectors in place of ids, as a pipeline hands them over.
        vectors = module.embed(ids)
        module.embed.table = None
        torch.testing.assert_close(module(vectors), together)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_read_tokens_without_their_n_grams(name):
    torch.manual_seed(0)
    module = BACKBONES[name](embedding=20, width=6).eval()
    ids = torch.tensor([[3, 4, 1], [7, 25, 0], [9, 0, 0]])
    parts = torch.randint(2, 90, (3, 3, 4)) * (ids > 0).unsqueeze(-1)
    with torch.no_grad():
        expected = module(ids)
        found = module(torch.cat([ids.unsqueeze(-1), parts], dim=-1))
    torch.testing.assert_close(found, expected)


def test_cnn_is_the_maximum_over_windows():
    torch.manual_seed(0)
    module = TextCNN(embedding=9, width=4, n_filters=3, sizes=(1, 2)).eval()
    ids = torch.tensor([[2, 5, 7]])
    with torch.no_grad():
        found = module(ids)[0]
        vectors = module.embed.table.weight[ids[0]]
        for k, size in enumerate((1, 2)):
            layer = module.filters[k]
            ends = torch.cat([vectors, torch.zeros(size - 1, 4)])
            values = [
                (layer.weight * ends[i : i + size].T).sum((1, 2)) + layer.bias
                for i in range(3)
            ]
            expected = torch.stack(values).amax(0).relu()
            torch.testing.assert_close(found[3 * k : 3 * k + 3], expected)


def test_given_vectors_frozen_or_tuned():
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    for frozen in (True, False):
        module = BagOfEmbeddings(vectors, frozen=frozen)
        weight = module.embed.table.weight
        assert weight.requires_grad != frozen
        assert (weight[0] == 0).all()
        np.testing.assert_array_equal(weight[1:].detach(), vectors[1:])
    assert vectors[0, 1] == 1  # what was given is not edited


@pytest.mark.parametrize("module", [TextCNN, TextRNN, BagOfEmbeddings])
@pytest.mark.parametrize(
    "estimator", [ProtoNetClassifier, RidgeHeadClassifier, MAMLClassifier]
)
def test_every_learner_reads_text(estimator, module):
    texts, y = documents()
    tokens = TokenSequences().fit(texts)
    X = tokens.transform(texts)
    net = {"module__embedding": tokens.n_tokens_, "max_epochs": 15, "lr": 0.03}
    meta = tiny(estimator, module, net=net, n_ways=3, random_state=0)
    few = freeze(meta.fit(X, y)).fit(X[::2], y[::2])
    assert few.score(X[1::2], y[1::2]) > 0.6
    proba = few.predict_proba(X[:5])
    np.testing.assert_allclose(few.predict_proba(X[2:3]), proba[2:3], rtol=1e-7)


def test_vectors_through_a_pipeline_and_cross_validation():
    """What was learned of words is learned anew in every fold."""
    pytest.importorskip("gensim")
    texts, y = documents(n_texts=10)
    embed = Word2VecEmbedding(width=8, n_epochs=3, random_state=0)
    net = {"max_epochs": 10, "lr": 0.03, "module__n_filters": 8}
    meta = tiny(ProtoNetClassifier, TextCNN, net=net, n_ways=3)
    scores = cross_val_score(make_pipeline(embed, meta), texts, y, cv=2)
    assert scores.mean() > 0.5


# ---------------------------------------------------------------- words and embeddings
def test_tfidf_is_that_of_scikit_learn():
    texts, _ = documents()
    tokens = TokenSequences().fit(texts)
    raw = TfIdf(tokens.n_tokens_)
    raw.learn(torch.from_numpy(tokens.transform(texts)))
    vectoriser = TfidfVectorizer(
        sublinear_tf=True, token_pattern=tokens.token_pattern
    ).fit(texts)
    new = ["card card lost", "my pin"]
    found = raw(torch.from_numpy(tokens.transform(new))).numpy()
    columns = [vectoriser.vocabulary_[t] for t in tokens.vocabulary_]
    expected = vectoriser.transform(new).toarray()[:, columns]
    np.testing.assert_allclose(found[:, 2 : tokens.n_tokens_], expected, atol=1e-6)


def test_tfidf_of_n_grams_is_that_of_scikit_learn():
    """Words and n-grams of a text, as one bag."""
    texts, _ = documents()
    tokens = TokenSequences(n_grams=(3, 4), n_buckets=10**5).fit(texts)
    raw = TfIdf(tokens.n_tokens_ + 10**5)
    raw.learn(torch.from_numpy(tokens.transform(texts)))

    def bag(text):
        words = [f"<{word}>" for word in text.split()]
        grams = [
            w[i : i + n] for w in words for n in (3, 4) for i in range(len(w) - n + 1)
        ]
        return text.split() + [f"part {gram}" for gram in grams]

    vectoriser = TfidfVectorizer(sublinear_tf=True, analyzer=bag).fit(texts)
    found = raw(torch.from_numpy(tokens.transform(texts))).numpy()
    expected = vectoriser.transform(texts).toarray()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_dual_knows_new_words_by_their_parts():
    """Two words that no training text had, each of them only spelled like the other."""
    texts, y = documents(n_texts=12)
    found = []
    for n_grams in (None, (3, 4)):
        tokens = TokenSequences(n_unknown=50, n_grams=n_grams).fit(texts)
        X = tokens.transform(texts)
        net = {"module__embedding": tokens.n_tokens_, "max_epochs": 3}
        meta = tiny(DualProtoNetClassifier, BagOfEmbeddings, net=net, n_ways=3)
        few = freeze(meta.fit(X, y))
        few.fit(tokens.transform(["refunds", "vouchers"]), ["refund", "voucher"])
        new = tokens.transform(["refunded", "refunding", "voucher", "evoucher"])
        found.append(few.predict_proba(new)[:, 0])
        again = pickle.loads(pickle.dumps(few)).predict_proba(new)[:, 0]
        np.testing.assert_array_equal(again, found[-1])
    right = np.array([True, True, False, False])
    assert ((found[1] > 0.6) == right).all() and ((found[1] < 0.4) != right).all()
    assert np.ptp(found[0]) < 1e-6  # whole words tell nothing


@pytest.mark.parametrize("refine", [0, 2])
def test_dual_logits_are_the_weighted_sum(refine):
    """Of both spaces, whose class means query rows join by what both say together."""
    torch.manual_seed(0)
    rows = torch.randn(2, 6, 3).double()
    raw = Centred(3).double()
    raw.learn(rows.flatten(0, 1))
    learner = DualProtoNet(MLP((4,)), 4, raw, refine=refine)
    learner.backbone(torch.zeros(1, 3))
    learner = learner.double().eval()
    learner.mixture.copy_(torch.tensor([0.3, -0.2, 1.0, 0.4]))
    y = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    support = TaskBatch(rows.masked_fill(~mask[..., None], 0), y * mask, mask, 2)
    seen = torch.ones(2, 5, dtype=torch.bool)
    seen[0, 3:] = False
    query = TaskBatch(torch.randn(2, 5, 3).double() * seen[..., None], None, seen)
    logits = learner.predict(learner.adapt(support), query)
    for t, (k, own) in enumerate(((3.0, slice(6)), (2.0, slice(4)))):
        X, labels, X_query = rows[t, own], y[t, own], query.X[t][seen[t]]
        spaces = [(f(X), f(X_query)) for f in (learner.backbone, raw)]
        weights = np.exp([0.3 - 0.2 * np.log(k), 1.0 + 0.4 * np.log(k)])
        shares = torch.zeros(len(X_query), 2).double()
        for _ in range(refine + 1):
            expected = torch.zeros(len(X_query), 2).double()
            for c in range(2):
                own_rows, n_rows = labels == c, (labels == c).sum() + shares[:, c].sum()
                sums = [f[own_rows].sum(0) + shares[:, c] @ q for f, q in spaces]
                mean, direction = sums[0] / n_rows, sums[1] / sums[1].norm()
                learned = 2 * spaces[0][1] @ mean - mean.square().sum()
                cosine = spaces[1][1] @ direction
                expected[:, c] = weights[0] * learned + weights[1] * cosine
            shares = expected.softmax(1)
        torch.testing.assert_close(logits[t][seen[t]], expected)


def test_dual_learns_to_trust_the_space_that_holds():
    """Classes that training has not seen differ in what the rows say alone."""
    rng = np.random.default_rng(0)

    def pool(classes, informative):
        X = rng.normal(size=(20 * len(classes), 12))
        y = np.repeat(classes, 20)
        for c in classes:
            X[y == c] += informative * 2 * rng.normal(size=12)
        return X, y

    weights = []
    for informative in (0.0, 1.0):
        meta = tiny(DualProtoNetClassifier, n_ways=4, n_episodes=40, random_state=0)
        meta.fit(*pool(np.arange(20), informative))
        weights.append(meta.learner_.mixture[2].item())
    assert weights[1] > weights[0] + 0.5


def test_dual_learns_from_tasks_with_fewer_classes_than_ways():
    """Classes that a task lacks tell nothing, and must not stop the learning."""
    rng = np.random.default_rng(0)
    tasks = []
    for t in range(20):
        y = np.repeat(np.arange(2 + t % 2), 10)
        centers = 3 * rng.normal(size=(3, 5))
        tasks.append((centers[y] + rng.normal(size=(len(y), 5)), y))
    meta = tiny(DualProtoNetClassifier, n_ways=3, label_space="per_task").fit(tasks)
    start = torch.tensor([0.0, 0.0, 2.3, 0.0]).double()
    assert (meta.learner_.mixture != start.float()).all()


@pytest.mark.parametrize("raw", [lambda: TfIdf(9), lambda: Centred(4)])
def test_raw_space_of_parts_is_that_of_all(raw):
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.integers(0, 12, size=(40, 4)))
    X[:, 3] = 5  # a feature that is constant
    whole, parts = raw().double(), raw().double()
    whole.learn(X)
    for part in X.split([25, 1, 14]):
        parts.learn(part)
    torch.testing.assert_close(parts(X), whole(X))


def test_dual_prior_of_parts_is_that_of_all():
    rows, y = torch.randn(30, 4).double(), torch.arange(30) % 3
    y[:20] %= 2  # the last class comes later
    whole, parts = (
        DualProtoNet(torch.nn.Identity(), 4, Centred(4), 3).double() for _ in range(2)
    )
    for learner in (whole, parts):
        learner.raw.learn(rows)
        learner.raw.learn = lambda X: None  # the same features throughout
    whole.learn_raw(rows, y)
    for part in (slice(20), slice(20, 30)):
        parts.learn_raw(rows[part], y[part])
    torch.testing.assert_close(parts.raw_prior, whole.raw_prior)
    expected = torch.stack([whole.raw(rows[y == c]).mean(dim=0) for c in range(3)])
    torch.testing.assert_close(whole.raw_prior, expected)


def judged(n, seed):
    """Logits of two spaces, of which the raw one tells the truth more often."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (n, 6), generator=generator)
    truth = torch.nn.functional.one_hot(targets, 3).double()
    noise = torch.randn(2, n, 6, 3, generator=generator).double()
    log_shots = torch.rand(n, generator=generator).double()
    return 0.5 * truth + noise[0], truth + 0.5 * noise[1], log_shots, targets


def test_mixture_of_parts_is_about_that_of_all():
    """What is known of the weights adds up over calls, each task weighing the same."""
    start = DualProtoNet(torch.nn.Identity(), 1, Centred(1)).double()
    whole, parts = deepcopy(start), deepcopy(start)
    episodes = [judged(16, seed) for seed in range(20)]
    learn_mixture(whole, episodes, 20)
    precision = []
    for i in range(0, 20, 5):
        # As many episodes of fewer tasks, so each of them four times.
        learn_mixture(parts, episodes[i : i + 5] * 4 if i else episodes[:5], 5)
        precision.append(torch.linalg.eigvalsh(parts.mixture_precision))
    assert parts.n_judged == whole.n_judged == 20
    assert all((b > a).all() for a, b in zip(precision, precision[1:], strict=False))
    learned = (whole.mixture - start.mixture).norm()
    assert (parts.mixture - whole.mixture).norm() < 0.2 * learned
    # The weights are where the gradient of what they are said to minimise vanishes.
    moved = (whole.mixture - start.mixture).requires_grad_()
    loss = moved.square().sum() / 8
    for learned, raw, log_shots, targets in episodes:
        a, b = (
            (
                start.mixture[i] + moved[i] + (start.mixture[i + 1] + moved[i + 1]) * k
            ).exp()[:, None, None]
            for i, k in ((0, log_shots), (2, log_shots))
        )
        log_proba = (a * learned + b * raw).log_softmax(-1)
        loss = loss - log_proba.gather(-1, targets[..., None]).sum() / 6
    assert torch.autograd.grad(loss, moved)[0].abs().max() < 1e-3


def test_dual_partial_fit_goes_on(monkeypatch):
    """One training, idf of all texts, and weights from what is new alone."""
    texts, y = documents(n_texts=10)
    tokens = TokenSequences(n_unknown=50).fit(texts)
    X = tokens.transform(texts)
    net = {"module__embedding": tokens.n_tokens_, "max_epochs": 3}
    make = DualProtoNetClassifier._make_net
    made = []
    monkeypatch.setattr(
        DualProtoNetClassifier,
        "_make_net",
        lambda self, *args: made.append(1) or make(self, *args),
    )
    meta = tiny(DualProtoNetClassifier, BagOfEmbeddings, net=net, n_ways=2)
    old = y < 3
    meta.fit(X[old], y[old])
    first, n_nets = meta.learner_, len(made)
    meta.partial_fit(X[~old], y[~old])
    assert len(made) == n_nets
    # n_judged is 3 classes more: those that the network had not seen.
    assert meta.learner_.n_judged == first.n_judged + 3
    assert (meta.learner_.mixture != first.mixture).any()
    whole = TfIdf(meta._n_ids)
    whole.learn(torch.from_numpy(np.concatenate([X[old], X[~old]])))
    torch.testing.assert_close(meta.learner_.raw.weight.float(), whole.weight)
    # The same again: nothing is new, and the weights stay.
    again = deepcopy(meta).partial_fit(X[~old], y[~old])
    torch.testing.assert_close(again.learner_.mixture, meta.learner_.mixture)
    few = freeze(pickle.loads(pickle.dumps(meta))).fit(X[~old], y[~old])
    expected = freeze(meta).fit(X[~old], y[~old]).predict_proba(X)
    np.testing.assert_array_equal(few.predict_proba(X), expected)


def test_dual_reads_text():
    texts, y = documents(n_texts=12)
    tokens = TokenSequences(n_unknown=50).fit(texts)
    X = tokens.transform(texts)
    net = {"module__embedding": tokens.n_tokens_, "max_epochs": 5}
    meta = tiny(DualProtoNetClassifier, BagOfEmbeddings, net=net, n_ways=3)
    few = freeze(meta.fit(X, y))
    new = ["refund wanted", "refund now", "voucher code", "code voucher"]
    few.fit(tokens.transform(new[::2]), ["refund", "voucher"])
    # No training text had these words: the embedding sees the unknown token alone.
    found = few.predict(tokens.transform(new[1::2]))
    np.testing.assert_array_equal(found, ["refund", "voucher"])
