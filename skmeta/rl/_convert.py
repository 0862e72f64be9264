"""Between environments of skmeta and of gymnasium."""

from __future__ import annotations

from sklearn.utils import check_random_state

from ._env import generator_of


def to_gymnasium(env, n_tasks=None, random_state=None):
    """A tensor environment with the interface of gymnasium.

    Parameters
    ----------
    env : TensorEnv
        Dynamics.
    n_tasks : int, default=None
        Number of tasks to draw; by default a single environment that is another task
        after every ``reset``.
    random_state : int, RandomState instance or None, default=None
        Seed of the tasks that are drawn.

    Returns
    -------
    gymnasium.Env, or list of them
        With a list, each is one task for good.

    Examples
    --------
    >>> from skmeta.rl import PointNavigation, to_gymnasium
    >>> env = to_gymnasium(PointNavigation())
    >>> observation, info = env.reset(seed=0)
    >>> observation.tolist()
    [0.0, 0.0]
    """
    from ._gymnasium import GymnasiumEnv

    if n_tasks is None:
        return GymnasiumEnv(env)
    generator = generator_of(check_random_state(random_state))
    return [GymnasiumEnv(env, task) for task in env.sample_tasks(n_tasks, generator)]


def from_gymnasium(envs, horizon=None):
    """A vector environment of gymnasium as a batch of tasks.

    The verbs of a policy take vector environments as they are; this is for stepping
    them by hand in tensors.

    Parameters
    ----------
    envs : gymnasium.vector.VectorEnv
        Environments, every one a task.
    horizon : int, default=None
        Longest episode; by default the time limit of the environments.

    Returns
    -------
    VectorEnvBatch
        With ``reset()`` and ``step(action)``; actions in a box are in [-1, 1].
    """
    from ._gymnasium import VectorEnvBatch

    return VectorEnvBatch(envs, horizon)
