"""Never worse than the model of today: pooled, local or in between, by evidence."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from ..base import MetaClassifierMixin, MetaEstimator, MetaRegressorMixin
from ..base._checks import warn_single_task
from ..baselines import (
    LocalClassifier,
    LocalRegressor,
    PooledClassifier,
    PooledRegressor,
)
from ..hierarchical import HierarchicalClassifier, HierarchicalRegressor
from ..tasks._sampler import encode_classes
from ..tasks._table import append_rows, join_tables, table_from_codes
from ._curves import summary as mean_and_interval
from ._episodes import episodes, task_folds
from ._guard_rule import (
    likeliest_mixture,
    safe_and_rich,
    simplex_least_squares,
    task_means,
    trust,
)
from ._rows import HeldOut, TaskRows

#: Numbers of support rows at which candidates are compared by default.
SHOTS = (0, 1, 2, 5, 10, 20, 40, 80, 160)


#: What people have today. Other candidates must prove better.
_SIMPLE = (LocalClassifier, LocalRegressor, PooledClassifier, PooledRegressor)


class _Guarded(MetaEstimator, _BaseComposition):
    """Mixture of fitted candidates, with weights for each number of support rows."""

    _parameter_constraints: dict = {
        "base_estimator": [HasMethods(["fit", "predict"]), None],
        "estimators": [list, None],
        "shots": ["array-like"],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "n_shots": [Interval(Integral, 0, None, closed="left")],
        "support": [StrOptions({"random", "first"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "group_column": [str, Integral, None],
    }

    def __init__(
        self,
        base_estimator=None,
        *,
        estimators=None,
        shots=SHOTS,
        cv=5,
        n_draws=3,
        n_shots=5,
        support="random",
        n_jobs=None,
        random_state=0,
        group_column=None,
    ):
        self.base_estimator = base_estimator
        self.estimators = estimators
        self.shots = shots
        self.cv = cv
        self.n_draws = n_draws
        self.n_shots = n_shots
        self.support = support
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.group_column = group_column

    def get_params(self, deep=True):
        """Parameters, those of named candidates as ``name__parameter``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the candidates and their parameters.

        Returns
        -------
        params : dict
            Parameter names mapped to their values.
        """
        return self._get_params("estimators", deep)

    def set_params(self, **params):
        """Set parameters, those of named candidates as ``name__parameter``.

        Parameters
        ----------
        **params : dict
            Parameters.

        Returns
        -------
        self : object
            The estimator.
        """
        return self._set_params("estimators", **params)

    def _candidates(self):
        """Names and fresh clones of the candidates."""
        given = self.estimators
        if given is None:
            given = self._default_candidates()
        if not given or not all(isinstance(pair, tuple) for pair in given):
            raise ValueError(
                "estimators must be a list of (name, meta-learner) pairs; got "
                f"{given!r}."
            )
        self._validate_names([name for name, _ in given])
        found = {}
        for name, estimator in given:
            if (
                not isinstance(estimator, MetaEstimator)
                or estimator._is_classifier != self._is_classifier
            ):
                kind = "classifier" if self._is_classifier else "regressor"
                raise TypeError(
                    f"estimators must be meta-learners of skmeta that are {kind}s; "
                    f"{name!r} is {estimator!r}. PooledClassifier and PooledRegressor "
                    "of skmeta.baselines take any estimator of scikit-learn."
                )
            found[name] = estimator = clone(estimator)
            if "label_space" in estimator.get_params(deep=False):
                estimator.set_params(label_space="shared")
            estimator.set_params(group_column=None)
        return found

    # ------------------------------------------------------------------------ hooks
    def _meta_fit(self, table, *, resume, classes=None):
        if not resume:
            warn_single_task(table)
            if self._is_classifier:
                self._decide_classes(table, classes)
        table = summary = self._encode(table)
        if resume:
            table = self._with_known(summary)
        candidates = self._candidates()
        rows = TaskRows(table.X, table.y, table.codes, list(range(table.n_tasks)))
        self.shots_, self.losses_, self.weights_ = self._compare(candidates, rows)
        self.estimators_ = {
            name: self._fitted(estimator, rows)
            for name, estimator in candidates.items()
        }
        self._training = table
        return summary

    def _with_known(self, table):
        new = set(table.ids)
        kept = [i for i, task in enumerate(self._training.ids) if task not in new]
        known = self._extended(table, self.states_).support
        return join_tables([self._training.take(kept), known])

    _combine = staticmethod(append_rows)
    _join = staticmethod(join_tables)

    def _prior_summary(self, ids):
        shape = (0, *self._training.X.shape[1:])
        none = np.zeros(0, dtype=np.intp)
        return table_from_codes(np.zeros(shape), none, none, ids)

    def _solve(self, summary):
        state = {"weights": self._weights_at(summary.counts)}
        for m, estimator in enumerate(self.estimators_.values()):
            if len(summary.X):
                part = estimator._solve(estimator._summarize(summary))
            else:
                part = estimator._solve(estimator._prior(summary.ids))
            state.update((f"{m} {key}", value) for key, value in part.items())
        return state

    def _forward(self, state, table):
        weights = state["weights"][table.codes]
        total = 0.0
        for m, estimator in enumerate(self.estimators_.values()):
            prefix = f"{m} "
            part = {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }
            output = self._output_of(estimator, estimator._forward(part, table))
            total = total + (weights[:, m] * output.T).T
        return total

    def _weights_at(self, counts):
        """Weights for numbers of support rows, interpolated in their logarithm."""
        at, known = np.log1p(counts), np.log1p(self.shots_)
        columns = [np.interp(at, known, column) for column in self.weights_.T]
        return np.column_stack(columns)

    # -------------------------------------------------------------------- comparison
    def _compare(self, candidates, rows):
        """Shots, losses of candidates and of their mixture, and its weights."""
        plan = episodes(
            self._useful_shots(rows),
            self.n_draws,
            self.support,
            False,
            self.random_state,
            self,
            rows,
        )
        shots = np.array(plan.shots)
        if rows.n_tasks < 2:
            even = np.full((1, len(candidates)), 1 / len(candidates))
            return shots[:1], np.full((1, 0, len(candidates) + 1), np.nan), even
        folds = task_folds(min(self.cv, rows.n_tasks), rows.n_tasks, plan.seed)
        masks = list(plan.masks(rows))
        jobs = [
            delayed(_held_out_outputs)(self, estimator, rows, train, test, masks)
            for train, test in folds
            for estimator in candidates.values()
        ]
        done = iter(Parallel(n_jobs=self.n_jobs)(jobs))
        fold_of = np.empty(rows.n_tasks, dtype=int)
        pieces = []
        for f, (_, test) in enumerate(folds):
            fold_of[test] = f
            pieces.append([next(done) for _ in candidates])
        simple = [
            i for i, e in enumerate(candidates.values()) if isinstance(e, _SIMPLE)
        ]
        losses, weights = [], []
        for i in range(len(shots)):
            parts = [
                self._episode_parts(rows, folds, pieces, masks, j, shots[i])
                for j, (shot, _, _) in enumerate(masks)
                if shot == i
            ]
            loss, weight = self._choose(parts, fold_of, simple or [0])
            losses.append(loss)
            weights.append(weight)
        return shots, np.stack(losses), np.stack(weights)

    def _useful_shots(self, rows):
        """Shots for which at least a quarter of the tasks have a row to spare."""
        counts = np.bincount(rows.codes)
        limit = np.quantile(counts, 0.75) - 1
        shots = [int(k) for k in self.shots]
        return [k for k in shots if k <= limit] or shots[:1]

    def _episode_parts(self, rows, folds, pieces, masks, j, n_shots):
        """Outputs of all candidates for the query rows of one episode of each task.

        Small tasks say nothing of numbers of rows that they do not have.
        """
        outputs, index = [], []
        for (_, test), piece in zip(folds, pieces, strict=True):
            kept = rows.positions(test)
            index.append(kept[~masks[j][2][kept]])
            outputs.append(np.stack([candidate[j] for candidate in piece], axis=1))
        index = np.concatenate(index)
        large = np.bincount(rows.codes)[rows.codes[index]] > n_shots
        keep = large if large.any() else slice(None)
        index = index[keep]
        return np.concatenate(outputs)[keep], rows.y[index], rows.codes[index]

    def _choose(self, parts, fold_of, simple):
        """Losses of shape (n_tasks, n_candidates + 1), the mixture last, and weights.

        The simple candidates are what people have. Whatever is more is believed as far
        as its gain over them, in tasks that had no part in choosing either, stands out
        from the differences between tasks.
        """
        n_tasks = len(fold_of)
        folds = [fold_of == fold for fold in np.unique(fold_of)]
        mixtures = [self._mixture(parts, n_tasks, ~fold) for fold in folds]
        mixed = np.full(n_tasks, np.nan)
        for fold, mixture in zip(folds, mixtures, strict=True):
            mixed[fold] = self._mixed_losses(parts, n_tasks, mixture)[fold]
        losses = np.column_stack([self._single_losses(parts, n_tasks), mixed])
        gain = np.full(n_tasks, np.nan)
        for fold, mixture in zip(folds, mixtures, strict=True):
            safe, rich = safe_and_rich(losses[~fold], mixture, simple)
            loss = self._mixed_losses(parts, n_tasks, safe)
            loss = loss - self._mixed_losses(parts, n_tasks, rich)
            gain[fold] = loss[fold]
        every = self._mixture(parts, n_tasks, np.ones(n_tasks, dtype=bool))
        safe, rich = safe_and_rich(losses, every, simple)
        return losses, safe + trust(gain) * (rich - safe)

    def _single_losses(self, parts, n_tasks):
        n_candidates = parts[0][0].shape[1]
        columns = [
            self._mixed_losses(parts, n_tasks, weight)
            for weight in np.eye(n_candidates)
        ]
        return np.column_stack(columns)

    def _mixed_losses(self, parts, n_tasks, weight):
        """Loss of each task, averaged over draws; NaN without query rows."""
        total, count = np.zeros(n_tasks), np.zeros(n_tasks)
        for outputs, y, codes in parts:
            loss = self._row_loss(np.tensordot(outputs, weight, (1, 0)), y)
            total += task_means(loss, codes, n_tasks)
            count += np.bincount(codes, minlength=n_tasks) > 0
        return np.divide(total, count, np.full(n_tasks, np.nan), where=count > 0)

    def report(self):
        """What the choice rests on.

        Returns
        -------
        pandas.DataFrame
            One row for each number of shots and candidate, and for their mixture:
            weight, cross-validated loss (mean over training tasks), and its difference
            to the first candidate with a 95 % interval over tasks. Negative is better.
        """
        import pandas as pd

        check_is_fitted(self)
        names = [*self.estimators_, "mixture"]
        rows = []
        for k, losses, weights in zip(
            self.shots_, self.losses_, self.weights_, strict=True
        ):
            for m, name in enumerate(names):
                gap = mean_and_interval(losses[:, m] - losses[:, 0])
                rows.append(
                    {
                        "n_shots": int(k),
                        "candidate": name,
                        "weight": weights[m] if m < len(weights) else np.nan,
                        "loss": mean_and_interval(losses[:, m])["mean"],
                        "difference": gap["mean"],
                        "low": gap["low"],
                        "high": gap["high"],
                    }
                )
        return pd.DataFrame(rows)


def _held_out_outputs(guard, estimator, rows, train, test, masks):
    """Outputs for the query rows of held-out tasks, one array for each episode."""
    fitted = guard._fitted(estimator, rows.take(train))
    held_out, kept = HeldOut(fitted, rows.take(test)), rows.positions(test)
    outputs = []
    for _, _, mask in masks:
        meta = held_out.adapted(mask[kept])
        X, _, codes = held_out.take(~mask[kept])
        outputs.append(guard._public_output(meta, X, codes))
    return outputs


_COMMON = """
    Parameters
    ----------
    base_estimator : estimator, default=None
        The pooled model of today: any {kind} of scikit-learn, fitted on the rows of all
        tasks. By default histogram gradient boosting.
    estimators : list of (name, meta-learner) tuples, default=None
        Candidates. By default the pooled model, a {local} model of the task alone, and
        two hierarchical models, one of which has the pooled model inside. With a list
        `base_estimator` is not used.
    shots : sequence of int, default=(0, 1, 2, 5, 10, 20, 40, 80, 160)
        Numbers of support rows of a task at which candidates are compared, as far as
        training tasks have rows. In between, weights are interpolated.
    cv : int, default=5
        Folds over training tasks.
    n_draws : int, default=3
        Random supports of each held-out task and number of shots.
    n_shots : int, default=5
        Support rows{per_class} of a new task in `score`.
    support : {{"random", "first"}}, default="random"
        Which rows of a task are its support: a random draw, or the first in row order.
        Where support rows will be the first of a new task, say "first": what pays is
        then judged on later rows.
    n_jobs : int, default=None
        Jobs of joblib for the comparison.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and draws.
    group_column : str or int, default=None
        Column, index level or position of the task id inside `X`, so that no
        ``groups`` need be passed.

    Attributes
    ----------
    estimators_ : dict of str to meta-learner
        Candidates, fitted on all training tasks.
    shots_ : ndarray of shape (n_grid,)
        Numbers of support rows that were compared.
    weights_ : ndarray of shape (n_grid, n_candidates)
        Weights of the candidates.
    losses_ : ndarray of shape (n_grid, n_tasks, n_candidates + 1)
        Cross-validated loss of every training task, of the mixture last.
    states_ : TaskStates
        Support and state of every known task."""


class GuardedRegressor(MetaRegressorMixin, _Guarded):
    __doc__ = (
        """Pooled, local, or in between, by what worked on tasks with as many rows.

    Adapting does not always pay: with few or misleading rows the pooled model is
    better, with many rows a model of the task alone. Candidates are compared by
    cross-validation over the training tasks, for each number of support rows, and
    mixed where a mixture is better (stacked generalisation [1]_). The safe choice is
    between the pooled and the local model; whatever is more is believed as far as its
    gain, in tasks that had no part in the choice, is beyond chance. `report` says by
    how much candidates differ, and how sure that is. With few training tasks the choice
    can be wrong.
"""
        + _COMMON.format(
            kind="regressor",
            local="ridge",
            per_class="",
        )
        + """
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    compare : The same comparison as a table, for any estimators.

    References
    ----------
    .. [1] Wolpert. "Stacked generalization", Neural Networks 5, 1992.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import GuardedRegressor
    >>> tasks = make_regression_tasks(30, 12, random_state=0)
    >>> meta = GuardedRegressor(Ridge(), shots=[0, 2, 5], n_draws=1)
    >>> X, y = tasks[-1]
    >>> meta.fit(tasks[:-1]).adapt(X[:5], y[:5]).predict(X[5:]).shape
    (7,)
    >>> meta.weights_.shape
    (3, 4)
    """
    )

    def _default_candidates(self):
        base = self.base_estimator
        if base is None:
            base = HistGradientBoostingRegressor(random_state=0)
        return [
            ("pooled", PooledRegressor(base)),
            ("local", LocalRegressor()),
            ("hierarchical", HierarchicalRegressor(support=self.support)),
            ("both", HierarchicalRegressor(base, support=self.support)),
        ]

    def _fitted(self, estimator, rows):
        return rows.fit(estimator)

    def _output_of(self, estimator, output):
        return output

    def _public_output(self, meta, X, codes):
        return meta.predict(X, groups=codes)

    def _row_loss(self, predicted, y):
        return np.square(predicted - y)

    def _mixture(self, parts, n_tasks, chosen):
        """Least squares on the simplex; every task counts the same."""
        gram = 0.0
        for outputs, y, codes in parts:
            keep = chosen[codes]
            error = outputs[keep] - y[keep, None]
            size = np.bincount(codes[keep], minlength=n_tasks)[codes[keep]]
            gram = gram + error.T @ (error / size[:, None])
        return simplex_least_squares(gram)


class GuardedClassifier(MetaClassifierMixin, _Guarded):
    __doc__ = (
        """Pooled, local, or in between, by what worked on tasks with as many rows.

    Adapting does not always pay: with few or misleading rows the pooled model is
    better, with many rows a model of the task alone. Candidates are compared by
    cross-validation over the training tasks, for each number of support rows, and
    their probabilities are mixed where a mixture is better (stacked generalisation
    [1]_). The safe choice is between the pooled and the local model; whatever is more
    is believed as far as its gain, in tasks that had no part in the choice, is beyond
    chance. `report` says by how much candidates differ, and how sure that is. With few
    training tasks the choice can be wrong. Classes mean the same in every task.
"""
        + _COMMON.format(
            kind="classifier",
            local="logistic",
            per_class=" per class",
        )
        + """
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of features, where `X` has names that are all strings.

    See Also
    --------
    compare : The same comparison as a table, for any estimators.

    References
    ----------
    .. [1] Wolpert. "Stacked generalization", Neural Networks 5, 1992.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmeta.datasets import make_regression_tasks
    >>> from skmeta.model_selection import GuardedClassifier
    >>> tasks = make_regression_tasks(30, 12, random_state=0)
    >>> tasks = [(X, y > 0) for X, y in tasks]
    >>> meta = GuardedClassifier(LogisticRegression(), shots=[0, 5], cv=2, n_draws=1)
    >>> X, y = tasks[-1]
    >>> meta.fit(tasks[:-1]).adapt(X[:5], y[:5]).predict_proba(X[5:]).shape
    (7, 2)
    """
    )

    #: Pooled models need classes that mean the same in every task.
    label_space = "shared"

    def _default_candidates(self):
        base = self.base_estimator
        if base is None:
            base = HistGradientBoostingClassifier(random_state=0)
        return [
            ("pooled", PooledClassifier(base)),
            ("local", LocalClassifier()),
            ("hierarchical", HierarchicalClassifier(support=self.support)),
            ("both", HierarchicalClassifier(base, support=self.support)),
        ]

    def _decide_classes(self, table, classes):
        n_labels = np.diff(encode_classes(table.codes, table.y)[2])
        several = table.n_tasks > 1 and n_labels.min() > 1
        if several and n_labels.sum() == len(table.labels):
            raise ValueError(
                f"{type(self).__name__} needs classes that mean the same in every "
                "task, but no label is found in two of them. Where labels belong to "
                "their task, use a learner that takes label_space='per_task', such as "
                "ProtoNetClassifier."
            )
        self._learn_classes(table, classes)

    def _fitted(self, estimator, rows):
        """A fitted clone that knows of all classes, which a fold may not show."""
        groups = np.array(rows.ids)[rows.codes]
        return clone(estimator).partial_fit(
            rows.X, rows.y, groups=groups, classes=np.arange(len(self.classes_))
        )

    def _output_of(self, estimator, output):
        return estimator._to_proba(output)

    def _public_output(self, meta, X, codes):
        return meta.predict_proba(X, groups=codes)

    def _row_loss(self, proba, y):
        """Errors; probabilities break ties of candidates with as many of them."""
        own = proba[np.arange(len(y)), y]
        return (proba.argmax(axis=1) != y) + 1e-3 * np.square(1 - own)

    def _mixture(self, parts, n_tasks, chosen):
        """Weights of the highest likelihood; every task counts the same."""
        own, size = [], []
        for outputs, y, codes in parts:
            keep = chosen[codes]
            own.append(outputs[keep, :, y[keep]])
            size.append(np.bincount(codes[keep], minlength=n_tasks)[codes[keep]])
        return likeliest_mixture(np.concatenate(own), 1 / np.concatenate(size))

    def _to_proba(self, output):
        return output
