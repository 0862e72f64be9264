"""Births per woman, one task per country."""

from __future__ import annotations

import numpy as np
from sklearn.utils._param_validation import validate_params

from ._base import GroupedTable, import_optional

# Rows of the World Bank's table that are not a country.
_AGGREGATES = [
    "Latin America & Caribbean (all income levels)",
    "OECD members",
    "Other small states",
    "Pacific island small states",
    "Sub-Saharan Africa (IFC classification)",
]

_DESCR = """\
Total fertility rate, one task per country
==========================================

Births per woman in {n_countries} countries in each year from 1960 to 2011 (World Bank,
World Development Indicators, series SP.DYN.TFRT.IN, under the terms of use of the World
Bank), as bundled with statsmodels. Regional aggregates, and countries where a year is
missing, are left out. Rows are in order of time within a country.

target   births per woman
year     calendar year
"""


@validate_params(
    {"as_frame": ["boolean"], "return_X_y_groups": ["boolean"]},
    prefer_skip_nested_validation=True,
)
def load_fertility_tasks(*, as_frame=False, return_X_y_groups=False):
    """Load births per woman by country and year, one task per country.

    Each country has its own level and its own decline. A few known years of a new
    country, together with what the others went through, give the rest of its curve.
    The table is read from statsmodels, which must be installed.

    Parameters
    ----------
    as_frame : bool, default=False
        Whether to return pandas objects.
    return_X_y_groups : bool, default=False
        Whether to return ``(data, target, groups)`` instead of a Bunch.

    Returns
    -------
    fertility : :class:`~sklearn.utils.Bunch`
        ``data`` of shape (n_rows, 1), the year; ``target`` of shape (n_rows,);
        ``groups`` of shape (n_rows,), the name of the country; ``frame``, all of them
        in one table, or None; ``feature_names``; ``DESCR``.

    Examples
    --------
    >>> from skmeta.datasets import load_fertility_tasks
    >>> X, y, country = load_fertility_tasks(return_X_y_groups=True)
    >>> X[country == "Kenya"][[0, -1]].ravel(), y[country == "Kenya"][[0, -1]]
    (array([1960., 2011.]), array([7.946, 4.538]))
    """
    fertility = import_optional(
        "statsmodels.datasets.fertility", "load_fertility_tasks", "statsmodels"
    )
    wide = fertility.load_pandas().data.set_index("Country Name")
    years = [str(year) for year in range(1960, 2012)]
    wide = wide.drop(index=_AGGREGATES)[years].dropna()
    table = GroupedTable(
        data=np.tile(np.arange(1960.0, 2012.0), len(wide))[:, np.newaxis],
        target=wide.to_numpy(dtype=float).ravel(),
        groups=np.repeat(wide.index.to_numpy(dtype=str), len(years)),
        feature_names=["year"],
        target_name="births per woman",
        group_name="country",
    )
    return table.deliver(
        "load_fertility_tasks",
        as_frame=as_frame,
        return_X_y_groups=return_X_y_groups,
        DESCR=_DESCR.format(n_countries=len(wide)),
    )
