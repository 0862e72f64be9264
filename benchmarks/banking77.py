"""Banking77: intents never seen, from 1 and 5 queries of each.

The five class-disjoint folds of Dopierre et al. (2021): 25 training, 25 validation and
27 test intents. Settings, the same for all folds, were chosen on the validation intents
of the first, from its training intents alone (``--develop``). Then vocabulary, document
frequencies, word vectors and networks are learned on the training and validation
intents of each fold, and its test intents are judged once, every method on the same
episodes.

*Refined* methods see all queries of an episode at once, without their intents: these
join the class means by soft k-means, as `refine` of the learners does. *Uneven*
episodes keep 0 to 10 of the ten queries of each intent, as many as a die says. *Later*
queries are the second five of each intent, one at a time; refined, they are asked after
the first five, which the method has named itself and adapted to as sure as it was.

    python benchmarks/banking77.py
    python benchmarks/banking77.py --folds 0 --methods "TextRNN ProtoNet"  # adds to it
    python benchmarks/banking77.py --develop --folds 0 1

Needs ``banking77.csv.gz`` and its splits in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import csv
import gzip
import json
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from _few_shot import adapted_accuracy, pool_sampler, stacked_episodes
from _ledger import load, record, shared_data
from scipy.special import softmax
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from skmeta import DualProtoNetClassifier, MAMLClassifier, ProtoNetClassifier
from skmeta.augmentation import TokenDropout
from skmeta.modules import BagOfEmbeddings, TextCNN, TextRNN
from skmeta.text import TokenSequences, Word2VecEmbedding

SETTINGS = {"5w1s": (5, 1), "5w5s": (5, 5), "10w1s": (10, 1), "10w5s": (10, 5)}
N_EPISODES, N_QUERIES = 600, 10
# MAML descends anew in every episode: it is judged on the first of them.
N_MAML_EPISODES = 200
N_FOLDS = 5
# The combined learner on words with their n-grams, and on words alone; their parts.
BOTH, BOTH_WORDS = "TextCNN + TF-IDF of n-grams", "TextCNN + TF-IDF of words"
CNN = "TextCNN ProtoNet"
RAW = {BOTH: "TF-IDF of n-grams, centroid", BOTH_WORDS: "TF-IDF of all words, centroid"}
CENTROID = "TF-IDF centroid"
# Judged with the help of other queries too, of all or some of them; the cosine of the
# centroids is worth this much as a logit, as in the fixed mixtures of others.
REFINED, UNEVEN, LATER = ", refined", ", uneven queries", ", later queries"
SCALE = 20.0
# Chosen on validation intents, see `--develop`.
CHOSEN = {"n_steps": 500, "lr": 2e-3, "dropout": 0.2, "n_filters": 64}
REFINE = 4
CANDIDATES = {
    "as chosen": {},
    "dropout 0.4": {"dropout": 0.4},
    "128 filters, dropout 0.4": {"dropout": 0.4, "n_filters": 128},
    "rate 5e-3": {"lr": 5e-3},
}


# ------------------------------------------------------------------------------- data
def load_fold(fold):
    """Queries with their intents, and the intents of each part of a fold."""
    folder = shared_data()
    with gzip.open(folder / "banking77.csv.gz", "rt", encoding="utf-8") as file:
        rows = [(row["text"], row["intent"]) for row in csv.DictReader(file)]
    splits = json.loads((folder / "banking77_fewshot_splits.json").read_text())
    parts = splits["banking77"][sorted(splits["banking77"])[fold]]
    return rows, *(set(parts[name]) for name in ("train", "valid", "test"))


def part_of(rows, intents):
    """Queries of some intents, and their intents as numbers."""
    rows = [row for row in rows if row[1] in intents]
    labels = np.unique([intent for _, intent in rows], return_inverse=True)[1]
    return [text for text, _ in rows], labels


@dataclass
class Fold:
    """Known and new queries as ids of words and of their n-grams.

    Nothing is learned from the new ones.
    """

    X: np.ndarray
    y: np.ndarray
    vectors: np.ndarray
    X_new: np.ndarray
    y_new: np.ndarray
    terms_new: np.ndarray

    @classmethod
    def learned_on(cls, rows, known, new):
        """Vocabulary, word vectors and document frequencies of known intents."""
        texts, y = part_of(rows, known)
        texts_new, y_new = part_of(rows, new)
        tokens = TokenSequences(max_length=24, n_unknown=1000, n_grams=(3, 4))
        embed = Word2VecEmbedding(tokens=tokens, width=64, random_state=0).fit(texts)
        tfidf = TfidfVectorizer(sublinear_tf=True).fit(texts)
        return cls(
            embed.tokens_.transform(texts),
            y,
            embed.vectors_,
            embed.tokens_.transform(texts_new),
            y_new,
            tfidf.transform(texts_new).toarray().astype(np.float32),
        )

    def episodes(self, setting, n_episodes=N_EPISODES):
        """Rows ``(n_episodes, n_ways, n_rows)`` of support and query, by class."""
        n_ways, n_shots = SETTINGS[setting]
        rows = np.arange(len(self.y_new))[:, None]
        sampler = pool_sampler(rows, self.y_new, n_ways, n_shots, N_QUERIES, seed=2026)
        support, _, query, _ = stacked_episodes(sampler, N_EPISODES)
        shape = N_EPISODES, n_ways, -1
        return support.reshape(shape)[:n_episodes], query.reshape(shape)[:n_episodes]


# ---------------------------------------------------------------------------- methods
def net(module, n_steps, lr, **params):
    return NeuralNet(
        module,
        nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=n_steps // 50,
        batch_size=2,
        train_split=None,
        verbose=0,
        callbacks=[LRScheduler(CosineAnnealingLR, T_max=n_steps, step_every="batch")],
        **{f"module__{name}": value for name, value in params.items()},
    )


def methods(vectors, n_steps, lr, dropout, n_filters):
    """Estimator of each name; word vectors start from Word2Vec unless it says not."""
    episode = {
        "n_ways": 15,
        "n_shots": (1, 5),
        "n_queries": 5,
        "n_episodes": 100,
        "label_space": "per_task",
        "augment": TokenDropout(0.1),
        "random_state": 0,
    }
    start = {"embedding": vectors, "dropout": dropout}
    cnn = start | {"n_filters": n_filters}
    random = cnn | {"embedding": len(vectors)}
    both = DualProtoNetClassifier(net(TextCNN, n_steps, lr, **cnn), **episode)
    return {
        BOTH: both,
        BOTH_WORDS: clone(both),
        f"{CNN}, random start": ProtoNetClassifier(
            net(TextCNN, n_steps, lr, **random), **episode
        ),
        "TextRNN ProtoNet": ProtoNetClassifier(
            net(TextRNN, n_steps // 2, lr, **start), **episode
        ),
        "bag of embeddings ProtoNet": ProtoNetClassifier(
            net(BagOfEmbeddings, n_steps, lr, **start), **episode
        ),
        "TextCNN MAML": MAMLClassifier(
            net(TextCNN, n_steps // 5, lr, **cnn),
            **episode | {"n_ways": 5},
            inner_lr=0.1,
            inner_steps=3,
        ),
    }


# ---------------------------------------------------------------------------- judging
def predicted(logits, weights, asked, refine):
    """Logits of some rows of an episode, which join the classes in so many steps."""
    weights = weights.copy()
    for _ in range(refine):
        weights[:, asked] = softmax(logits(weights)[asked], axis=1).T
    return logits(weights)[asked]


def supported(support, rows):
    """Weight of every row of an episode in each class: support rows have one."""
    weights = np.zeros((len(support), len(rows)))
    own = np.repeat(np.eye(len(support)), support.shape[1], axis=1)
    weights[:, : support.size] = own
    return weights


def accuracy(view, support, query, refine=0):
    """Accuracy of each episode.

    `view` maps the rows of an episode to logits of them all, given their weight in each
    class ``(n_ways, n_rows)``. Queries may be -1, which is none. `refine` is the number
    of steps in which queries join the classes.
    """
    found, truth = [], np.repeat(np.arange(query.shape[1]), query.shape[2])
    for s, q in zip(support, query.reshape(len(query), -1), strict=True):
        rows = np.append(s, q[q >= 0])
        asked = np.arange(s.size, len(rows))
        given = predicted(view(rows), supported(s, rows), asked, refine)
        found.append((given.argmax(axis=1) == truth[q >= 0]).mean())
    return np.array(found)


def later_accuracy(view_of, support, earlier, later, refine):
    """Accuracy of later queries of each episode, one at a time.

    Earlier ones, predicted together, are support rows by then: of the class that was
    predicted, with its probability as their weight. `view_of` maps numbers of shots.
    """
    found, truth = [], np.repeat(np.arange(later.shape[1]), later.shape[2])
    for s, e, q in zip(support, earlier, later, strict=True):
        rows = np.concatenate([s, e, q], axis=None)
        known, asked = np.split(np.arange(s.size, len(rows)), [e.size])
        weights = supported(s, rows)
        given = predicted(view_of(s.shape[1])(rows), weights, known, refine)
        shares = softmax(given, axis=1).T
        weights[:, known] = np.where(shares == shares.max(axis=0), shares, 0)
        logits = view_of(weights.sum() / len(s))(rows)
        given = [predicted(logits, weights, [row], refine)[0] for row in asked]
        found.append((np.argmax(given, axis=1) == truth).mean())
    return np.array(found)


def distances(E):
    """Logits of prototypes of embedded rows, up to what all classes share."""
    products = E @ E.T

    def view(rows):
        of_rows = products[np.ix_(rows, rows)]

        def logits(weights):
            shares = weights / weights.sum(axis=1, keepdims=True)
            to_means = of_rows @ shares.T
            return 2 * to_means - (shares.T * to_means).sum(axis=0)

        return logits

    return view


def cosines(R):
    """Cosines of rows of unit length to the mean of those of a class, as logits."""
    products = R @ R.T

    def view(rows):
        of_rows = products[np.ix_(rows, rows)]

        def logits(weights):
            to_sums = of_rows @ weights.T
            lengths = np.sqrt((weights.T * to_sums).sum(axis=0))
            return SCALE * to_sums / lengths.clip(1e-12)

        return logits

    return view


def weighted(learned, raw, mixture, n_shots):
    """Sum of both, by the weights that the learner found for the number of shots."""
    a, b = np.exp(mixture[0::2] + mixture[1::2] * np.log(n_shots))

    def view(rows):
        of_learned, of_raw = learned(rows), raw(rows)
        return lambda weights: a * of_learned(weights) + b / SCALE * of_raw(weights)

    return view


def uneven(query):
    """The queries of each episode without some: 0 to all of each intent stay."""
    rng = np.random.default_rng(2026)
    n_kept = rng.integers(query.shape[2] + 1, size=query.shape[:2])
    n_kept[:, 0] = n_kept[:, 0].clip(1)  # an episode has a query
    return np.where(np.arange(query.shape[2]) < n_kept[..., None], query, -1)


def embedded(module, X):
    """Rows as the module maps them, each of them once."""
    with torch.no_grad():
        parts = [module(part).flatten(1) for part in torch.from_numpy(X).split(512)]
    return torch.cat(parts).float().numpy()


def judged_by(name, meta, X):
    """Views that one fitted metric learner can be judged by, by number of shots."""
    learner = meta.learner_
    learned = distances(embedded(learner.backbone, X))
    if name not in RAW:
        return {name: lambda n_shots: learned}
    raw = cosines(embedded(learner.raw, X))
    both = partial(weighted, learned, raw, learner.mixture.numpy())
    found = {name: both, RAW[name]: lambda n_shots: raw}
    return found | {CNN: lambda n_shots: learned} if name == BOTH else found


def judge(name, view_of, support, query):
    """Accuracies by name: alone, and what the other queries make of it."""
    view = view_of(support.shape[2])
    found = {name: accuracy(view, support, query)}
    if name in (BOTH, CNN, RAW[BOTH], CENTROID):
        found[name + REFINED] = accuracy(view, support, query, REFINE)
    if name == BOTH:
        some = uneven(query)
        found[name + UNEVEN] = accuracy(view, support, some)
        found[name + UNEVEN + REFINED] = accuracy(view, support, some, REFINE)
        halves = np.split(query, 2, axis=2)
        found[name + LATER] = accuracy(view, support, halves[1])
        refined = later_accuracy(view_of, support, *halves, REFINE)
        found[name + LATER + REFINED] = refined
    return found


def judged(name, view_of, data):
    """Accuracies by name and setting."""
    return {
        (of, setting): values
        for setting in SETTINGS
        for of, values in judge(name, view_of, *data.episodes(setting)).items()
    }


def adapted(meta, X, support, query):
    """Accuracy of each episode, adapted as any user would."""
    y, y_query = (
        np.repeat(np.arange(part.shape[1]), part.shape[2]) for part in (support, query)
    )
    n = len(support)
    return adapted_accuracy(
        meta,
        X[support.reshape(n, -1)],
        np.tile(y, (n, 1)),
        X[query.reshape(n, -1)],
        np.tile(y_query, (n, 1)),
        at_a_time=50,
    )


def run(data, names, settings):
    """Accuracies of every episode by (method, setting), and CPU seconds to fit."""
    scores, seconds = {}, {}
    for name, meta in methods(data.vectors, **settings).items():
        if names and name not in names:
            continue
        X, X_new = data.X, data.X_new
        if name != BOTH:  # the others read words, of which the n-grams are not theirs
            X, X_new = X[..., 0], X_new[..., 0]
        start = time.process_time()
        meta.fit(X, data.y)
        seconds[name] = time.process_time() - start
        if isinstance(meta, MAMLClassifier):
            for setting in SETTINGS:
                episodes = data.episodes(setting, N_MAML_EPISODES)
                scores[name, setting] = adapted(meta, X_new, *episodes)
            continue
        for part, view in judged_by(name, meta, X_new).items():
            scores |= judged(part, view, data)
        if name == BOTH:
            seconds[CNN] = seconds[BOTH] / 2
            print("log weights", meta.learner_.mixture.tolist(), flush=True)
    centroid = cosines(data.terms_new)
    return scores | judged(CENTROID, lambda n_shots: centroid, data), seconds


def show(scores, seconds):
    for name in dict.fromkeys(name for name, _ in scores):
        cells = [f"{s} {100 * scores[name, s].mean():.1f}" for s in SETTINGS]
        print(f"{name:32}", *cells, f"{seconds.get(name, 0):.0f} s", flush=True)


# ---------------------------------------------------------------------------- results
def cells(scores, seconds):
    """Mean and deviation of each method and setting, and of what BOTH is better by.

    That is the gain; the refined gain is that of refined BOTH.
    """
    rows = {}
    for (name, setting), values in scores.items():
        trained = name.removesuffix(REFINED).removesuffix(UNEVEN).removesuffix(LATER)
        row = rows.setdefault(name, {"cpu_seconds": seconds.get(trained, 0.0)})
        row[setting] = {"accuracy": _moments(values)}
        queries = next((some for some in (UNEVEN, LATER) if some in name), "")
        for what, refined in (("gain", ""), ("refined gain", REFINED)):
            best = BOTH + queries + refined
            if (best, setting) in scores and name != best:
                gained = scores[best, setting][: len(values)] - values
                row[setting][what] = _moments(gained)
    return rows


def _moments(values):
    return [100 * values.mean(), 100 * values.std(ddof=1), len(values)]


def summary(folds):
    """Mean of the folds; the interval is that of drawing episodes from them."""
    results = {}
    for name in dict.fromkeys(name for fold in folds.values() for name in fold):
        rows = [fold[name] for fold in folds.values() if name in fold]
        results[name] = {"cpu_seconds": np.mean([row["cpu_seconds"] for row in rows])}
        for setting in SETTINGS:
            # What a method gained is known where it ran beside the combined learner.
            for what in rows[0][setting]:
                if not all(what in row[setting] for row in rows):
                    continue
                found = np.array([row[setting][what] for row in rows])
                error = np.sqrt((found[:, 1] ** 2 / found[:, 2]).sum()) / len(found)
                results[name][f"{setting} {what}"] = {
                    "mean": found[:, 0].mean(),
                    "interval": 1.96 * error,
                    "by_fold": found[:, 0].tolist(),
                }
    return results


def develop(folds, names):
    """Candidates on the validation intents of each fold, from its training intents."""
    for fold in folds:
        rows, train, valid, _ = load_fold(fold)
        data = Fold.learned_on(rows, train, valid)
        for candidate in names or CANDIDATES:
            print(f"fold {fold}, {candidate}", flush=True)
            show(*run(data, [BOTH], CHOSEN | CANDIDATES[candidate]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--develop", action="store_true", help="validation intents")
    parser.add_argument("--folds", nargs="+", type=int, default=range(N_FOLDS))
    parser.add_argument("--methods", nargs="+", help="some methods or candidates only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.develop:
        develop(args.folds, args.methods)
        return
    for fold in args.folds:
        rows, train, valid, test = load_fold(fold)
        data = Fold.learned_on(rows, train | valid, test)
        found = run(data, args.methods, CHOSEN)
        print(f"fold {fold}", flush=True)
        show(*found)
        before = (load("banking77") or {"folds": {}})["folds"]
        before[str(fold)] = before.get(str(fold), {}) | cells(*found)
        folds = dict(sorted(before.items()))
        record(
            "banking77",
            protocol=f"class-disjoint folds, 27 test intents each, {N_EPISODES} "
            f"episodes a fold, {N_QUERIES} queries per class",
            settings=CHOSEN | {"refine": REFINE},
            seeds=[0],
            results=summary(folds),
            folds=folds,
        )


if __name__ == "__main__":
    main()
