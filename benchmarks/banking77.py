"""Banking77: intents never seen, from 1 and 5 queries of each.

The five class-disjoint folds of Dopierre et al. (2021): 25 training, 25 validation and
27 test intents. Vocabulary, document frequencies, word vectors and networks are learned
on the training and validation intents, and the test intents are judged once, every
method on the same episodes. Settings were chosen on the validation intents of the first
fold, from its training intents alone (``--develop``).

    python benchmarks/banking77.py
    python benchmarks/banking77.py --develop

Needs ``banking77.csv.gz`` and its splits in the folder that SKMETA_SHARED_DATA names.
"""

import argparse
import csv
import gzip
import json
import time

import numpy as np
import torch
from _few_shot import adapted_accuracy, pool_sampler, stacked_episodes
from _ledger import record, shared_data
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
N_FOLDS = 5


def load():
    """Queries, their intents, and the intents of each part of each fold."""
    folder = shared_data()
    with gzip.open(folder / "banking77.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    splits = json.loads((folder / "banking77_fewshot_splits.json").read_text())[
        "banking77"
    ]
    return rows, splits


def fold_of(splits, fold):
    """Training, validation and test intents of a fold."""
    part = splits[sorted(splits)[fold]]
    return tuple(part[name] for name in ("train", "valid", "test"))


def net(module, n_steps, **params):
    params = {"module__dropout": 0.2, **params}
    return NeuralNet(
        module,
        nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=n_steps // 50,
        batch_size=2,
        train_split=None,
        verbose=0,
        callbacks=[LRScheduler(CosineAnnealingLR, T_max=n_steps, step_every="batch")],
        **params,
    )


def methods(vectors, n_steps):
    """Name: estimator, or None for what is not trained."""
    episode = {
        "n_ways": 15,
        "n_shots": (1, 5),
        "n_queries": 5,
        "n_episodes": 100,
        "label_space": "per_task",
        "augment": TokenDropout(0.1),
        "random_state": 0,
    }
    start = {"module__embedding": vectors}
    n_tokens = {"module__embedding": len(vectors)}
    rnn = net(TextRNN, n_steps // 2, **start)
    maml = net(TextCNN, n_steps // 4, **start)
    return {
        "TF-IDF centroid + TextCNN": DualProtoNetClassifier(
            net(TextCNN, n_steps, **start), **episode
        ),
        "TextCNN ProtoNet, random start": ProtoNetClassifier(
            net(TextCNN, n_steps, **n_tokens), **episode
        ),
        "bag of embeddings ProtoNet": ProtoNetClassifier(
            net(BagOfEmbeddings, n_steps, **start), **episode
        ),
        "TextRNN ProtoNet": ProtoNetClassifier(rnn, **episode),
        "TextCNN MAML": MAMLClassifier(
            maml, **{**episode, "n_ways": 5}, inner_lr=0.1, inner_steps=3
        ),
    }


def episodes(X, y, n_ways, n_shots):
    """Support and query of every episode, the same for everything compared."""
    sampler = pool_sampler(X, y, n_ways, n_shots, N_QUERIES, seed=2026)
    return stacked_episodes(sampler, N_EPISODES)


def centroid_accuracy(Xs, ys, Xq, yq):
    """Cosine to the mean of the TF-IDF vectors of a class, of scikit-learn's."""
    scores = []
    for S, s, Q, q in zip(Xs, ys, Xq, yq, strict=True):
        means = np.stack([S[s == c].mean(axis=0) for c in range(s.max() + 1)])
        means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
        scores.append(((Q @ means.T).argmax(axis=1) == q).mean())
    return np.array(scores)


def part_of(rows, intents):
    """Queries of some intents, and their intents as numbers."""
    rows = [row for row in rows if row["intent"] in intents]
    labels = np.unique([row["intent"] for row in rows], return_inverse=True)[1]
    return [row["text"] for row in rows], labels


def run_fold(rows, fitted_on, judged_on, n_steps, names):
    """Scores of every method on every setting, and CPU seconds of training."""
    known, y = part_of(rows, fitted_on)
    new, y_new = part_of(rows, judged_on)
    start = time.process_time()
    embed = Word2VecEmbedding(
        tokens=TokenSequences(max_length=24, n_unknown=1000), width=64, random_state=0
    ).fit(known)
    seconds = {"Word2Vec": time.process_time() - start}
    X, X_new = embed.tokens_.transform(known), embed.tokens_.transform(new)
    tfidf = TfidfVectorizer(sublinear_tf=True).fit(known)
    terms = tfidf.transform(new).toarray().astype(np.float32)
    scores, fitted = {}, {}
    for name, meta in methods(embed.vectors_, n_steps).items():
        if names and name not in names:
            continue
        start = time.process_time()
        fitted[name] = meta.fit(X, y)
        seconds[name] = time.process_time() - start
    for setting, (n_ways, n_shots) in SETTINGS.items():
        drawn = episodes(X_new, y_new, n_ways, n_shots)
        for name, meta in fitted.items():
            scores[name, setting] = adapted_accuracy(meta, *drawn, at_a_time=100)
            if isinstance(meta, DualProtoNetClassifier):
                for part, other in (("TextCNN ProtoNet", 2), ("words alone", 0)):
                    learned = meta.learner_.mixture.clone()
                    meta.learner_.mixture[other] = -30.0
                    scores[part, setting] = adapted_accuracy(
                        meta, *drawn, at_a_time=100
                    )
                    meta.learner_.mixture.copy_(learned)
        drawn = episodes(terms, y_new, n_ways, n_shots)
        scores["TF-IDF centroid", setting] = centroid_accuracy(*drawn)
    for meta in fitted.values():
        if isinstance(meta, DualProtoNetClassifier):
            print("mixture", meta.learner_.mixture.tolist(), flush=True)
    return scores, seconds


def show(scores, seconds):
    for name in dict.fromkeys(name for name, _ in scores):
        cells = [f"{s} {100 * scores[name, s].mean():.1f}" for s in SETTINGS]
        print(f"{name:32}", *cells, f"{seconds.get(name, 0):.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--develop", action="store_true", help="validation intents")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--methods", nargs="+", help="some of them only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, splits = load()
    if args.develop:
        train, valid, _ = fold_of(splits, 0)
        show(*run_fold(rows, set(train), set(valid), args.steps, args.methods))
        return
    runs = []
    for fold in range(N_FOLDS):
        train, valid, test = fold_of(splits, fold)
        known = {*train, *valid}
        runs.append(run_fold(rows, known, set(test), args.steps, args.methods))
        show(*runs[-1])
    results = {}
    for name, setting in runs[0][0]:
        values = 100 * np.array([scores[name, setting] for scores, _ in runs])
        row = results.setdefault(name, {})
        row[setting] = {
            "accuracy": values.mean(),
            "interval": 1.96 * values.std(ddof=1, axis=1).mean() / values.size**0.5,
            "by_fold": values.mean(axis=1).tolist(),
        }
        row["cpu_seconds"] = np.mean([s.get(name, 0.0) for _, s in runs])
    record(
        "banking77",
        protocol=f"five class-disjoint folds, 27 test intents each, {N_EPISODES} "
        f"episodes a fold, {N_QUERIES} queries per class, {args.steps} steps",
        seeds=[0],
        results=results,
    )


if __name__ == "__main__":
    main()
