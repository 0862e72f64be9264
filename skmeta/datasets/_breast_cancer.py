"""Breast cancer in long format: one task per tumour."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.utils._param_validation import validate_params

from ._base import GroupedTable

_DESCR = """\
Breast cancer, one task per tumour
==================================

The cell nuclei of 569 tumours (Street, Wolberg and Mangasarian 1993, UCI Machine
Learning Repository, CC BY 4.0; :func:`sklearn.datasets.load_breast_cancer`) were
measured in ten ways, each summarised by its mean over the nuclei, its standard error
and its "worst" value, the mean of the three largest. Here a row is one way of measuring
one tumour, and the target is how many times the worst value exceeds the mean:

target          log(worst / mean)
log variation   log(standard error / mean)
one column for each way of measuring but the first, 1 where the row is of that way

Concavity and concave points are left out: 13 tumours have none. What is left are eight
rows for each of 569 tumours, "radius" to "fractal dimension" in their original order.
Radius, perimeter and area say almost the same, so one of them known gives the others.
"""


@validate_params(
    {"as_frame": ["boolean"], "return_X_y_groups": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def load_breast_cancer_tasks(*, as_frame=False, return_X_y_groups=False):
    """Load a grouped regression table with one task per tumour.

    How far the worst nuclei of a tumour lie from its mean is predicted from how much
    the nuclei vary. Tumours differ, and a few measured rows tell how: a real table on
    which adapting pays, bundled with scikit-learn.

    Parameters
    ----------
    as_frame : bool, default=False
        Whether to return pandas objects.
    return_X_y_groups : bool, default=False
        Whether to return ``(data, target, groups)`` instead of a Bunch.

    Returns
    -------
    cancer : :class:`~sklearn.utils.Bunch`
        ``data`` of shape (4552, 8), ``target`` of shape (4552,), ``groups`` of shape
        (4552,), the tumour of each row; ``frame``, all of them in one table, or None;
        ``feature_names``; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import load_breast_cancer_tasks
    >>> X, y, tumour = load_breast_cancer_tasks(return_X_y_groups=True)
    >>> X.shape, len(set(tumour))
    ((4552, 8), 569)
    """
    bunch = load_breast_cancer()
    mean, error, worst = np.split(bunch.data, 3, axis=1)
    kept = (mean > 0).all(axis=0)
    names = [name.removeprefix("mean ") for name in bunch.feature_names[:10][kept]]
    n_tumours, n_ways = len(mean), len(names)
    variation = np.log(error[:, kept] / mean[:, kept]).ravel()
    table = GroupedTable(
        data=np.column_stack(
            [variation, np.tile(np.eye(n_ways)[:, 1:], (n_tumours, 1))]
        ),
        target=np.log(worst[:, kept] / mean[:, kept]).ravel(),
        groups=np.repeat(np.arange(n_tumours), n_ways),
        feature_names=["log variation", *names[1:]],
        target_name="log worst",
        group_name="tumour",
    )
    return table.deliver(
        "load_breast_cancer_tasks",
        as_frame=as_frame,
        return_X_y_groups=return_X_y_groups,
        DESCR=_DESCR,
    )
