"""Collections of tasks: generated, bundled with other libraries, and downloaded."""

from ._banking77 import fetch_banking77
from ._breast_cancer import load_breast_cancer_tasks
from ._digits import load_digits_tasks
from ._fertility import load_fertility_tasks
from ._generators import make_regression_tasks, make_sinusoid_tasks
from ._iris import load_iris_tasks
from ._omniglot import fetch_omniglot
from ._parkinsons import fetch_parkinsons
from ._remote import get_data_home
from ._wisdm import fetch_wisdm

__all__ = [
    "fetch_banking77",
    "fetch_omniglot",
    "fetch_parkinsons",
    "fetch_wisdm",
    "get_data_home",
    "load_breast_cancer_tasks",
    "load_digits_tasks",
    "load_fertility_tasks",
    "load_iris_tasks",
    "make_regression_tasks",
    "make_sinusoid_tasks",
]
