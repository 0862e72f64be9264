"""Environments, advantages, policies that learn new tasks."""

import copy
import pickle
import sys
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks

from skmeta.rl import (
    BernoulliBandits,
    BoxActions,
    DiscreteActions,
    Episode,
    MAMLPolicy,
    PointNavigation,
    RL2Policy,
    TensorEnv,
    from_gymnasium,
    to_gymnasium,
)
from skmeta.rl._maml_policy_learner import Phase, PolicyActor, PolicyLearner
from skmeta.rl._ppo import clipped_surrogate
from skmeta.rl._returns import (
    discounted_returns,
    generalised_advantages,
    linear_baseline,
    standardised,
)
from skmeta.rl._rl2_learner import RL2Network, inputs_of, run_trial, trial_of
from skmeta.rl._rollout import joined, run_episodes


class Corridor(TensorEnv):
    """Go right; a task is where the corridor ends, and so the length of an episode."""

    n_features = 1
    actions = DiscreteActions(2)
    horizon = 6

    def sample_tasks(self, n_tasks, generator):
        return torch.randint(1, 4, (n_tasks, 1), generator=generator).float()

    def initial_state(self, tasks, generator):
        return torch.zeros_like(tasks)

    def observe(self, state):
        return state

    def step(self, tasks, state, action, generator):
        state = state + action[:, None]
        return state, -torch.ones(len(state)), (state >= tasks)[:, 0]


def tiny(kind, **params):
    if kind is RL2Policy:
        return RL2Policy(hidden=8, n_batches=2, n_tasks=6, random_state=0, **params)
    small = {"hidden": (8,), "n_batches": 2, "n_tasks": 3, "n_episodes": 4}
    return MAMLPolicy(random_state=0, **small, **params)


POLICIES = pytest.mark.parametrize("kind", [RL2Policy, MAMLPolicy])


# ------------------------------------------------------------------- environments
def test_bandits_pay_what_they_promise():
    batch = BernoulliBandits(n_arms=2).make(3, random_state=0)
    wide = batch.repeat(4000)
    wide.reset()
    action = torch.arange(12000) % 2
    _, reward, ended = wide.step(action)
    paid = torch.stack([reward[action == a].view(3, -1).mean(1) for a in (0, 1)], 1)
    assert_allclose(paid, batch.tasks, atol=0.04)
    assert not ended.any()
    assert set(reward.tolist()) == {0.0, 1.0}


def test_navigation_by_hand():
    env = PointNavigation(step_size=0.1)
    batch = env.make(2, random_state=0)
    batch.tasks = torch.tensor([[0.3, 0.4], [0.0, -0.5]])
    batch.reset()
    action = torch.tensor([[1.0, 5.0], [-0.5, -1.0]])
    position, reward, _ = batch.step(action)
    assert_allclose(position, [[0.1, 0.1], [-0.05, -0.1]], atol=1e-7)
    expected = [-np.hypot(0.2, 0.3), -np.hypot(0.05, 0.4)]
    assert_allclose(reward, expected, atol=1e-6)
    goals = env.sample_tasks(5000, torch.Generator().manual_seed(0))
    assert goals.abs().max() <= 0.5
    assert_allclose(goals.square().mean(), 1 / 12, atol=0.003)


def test_seeds_repeat_and_leave_the_global_generator():
    before = torch.random.get_rng_state()
    one, two = (PointNavigation().make(3, random_state=4).tasks for _ in range(2))
    assert torch.equal(one, two)
    tiny(RL2Policy).fit(BernoulliBandits())
    assert torch.equal(torch.random.get_rng_state(), before)


# ----------------------------------------------------------- returns and advantages
def test_advantages_against_a_slow_loop():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 3, 5))
    lengths, gamma, lam = [5, 3, 1], 0.9, 0.6
    mask = np.arange(5) < np.array(lengths)[:, None]
    found = generalised_advantages(
        *map(torch.from_numpy, (reward, value, mask)), gamma, lam
    )
    for i, n in enumerate(lengths):
        later = np.append(value[i, 1:n], 0.0)
        surprise = reward[i, :n] + gamma * later - value[i, :n]
        for t in range(n):
            slow = sum((gamma * lam) ** k * surprise[t + k] for k in range(n - t))
            assert_allclose(found[i, t], slow)
    assert (found[~torch.from_numpy(mask)] == 0).all()


def test_returns_baseline_and_scale():
    reward = torch.tensor([[1.0, 2.0, 4.0]])
    assert discounted_returns(reward, 0.5).tolist() == [[3.0, 4.0, 4.0]]
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(30), rng.normal(size=30)])
    y = X @ [2.0, -1.0]
    mask = np.arange(30) < 20
    y[20:] = 99  # padding
    fit = linear_baseline(*(torch.from_numpy(a)[None] for a in (X, y, mask)))
    assert_allclose(fit[0], X @ [2.0, -1.0], atol=1e-4)
    z = standardised(torch.from_numpy(y)[None], torch.from_numpy(mask)[None], (1,))[0]
    assert_allclose(z[:20].mean(), 0, atol=1e-12)
    assert_allclose(z[:20].std(correction=0), 1)
    assert (z[20:] == 0).all()


def test_clipped_surrogate_by_hand():
    old = torch.zeros(4)
    new = torch.log(torch.tensor([2.0, 2.0, 0.5, 1.1]))
    gain = clipped_surrogate(new, old, torch.tensor([1.0, -1.0, 1.0, 3.0]), 0.2)
    assert_allclose(gain, [1.2, -2.0, 0.5, 3.3], rtol=1e-6)


@pytest.mark.parametrize("actions", [DiscreteActions(3), BoxActions(2)])
def test_distributions_are_those_of_torch(actions):
    g = torch.Generator().manual_seed(0)
    output = torch.randn(7, actions.n_outputs, generator=g)
    free = torch.full((actions.n_free,), 0.3)
    action = actions.sample(output, free, g)
    if isinstance(actions, DiscreteActions):
        known = torch.distributions.Categorical(logits=output)
    else:
        known = torch.distributions.Normal(output, free.exp())
        known = torch.distributions.Independent(known, 1)
    assert_allclose(
        actions.log_prob(output, free, action), known.log_prob(action), atol=1e-6
    )
    assert_allclose(actions.entropy(output, free), known.entropy(), atol=1e-6)
    many = actions.sample(output[:1].expand(20000, -1), free, g)
    if isinstance(actions, DiscreteActions):
        share = torch.bincount(many, minlength=3) / 20000
        assert_allclose(share, known.probs[0], atol=0.015)
    else:
        assert_allclose(many.mean(0), output[0], atol=0.04)
        assert_allclose(many.std(0), np.exp([0.3, 0.3]), atol=0.04)


# ---------------------------------------------------------------------- learners
def test_a_trial_without_gaps_is_what_the_network_saw():
    # Log-probabilities along packed sequences equal those of acting step by step.
    env, g = Corridor(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = RL2Network(1, env.actions, 8)
    torch.nn.init.normal_(network.policy.weight)
    batch = env.make(6, random_state=1)
    episodes, memory = run_trial(network, batch, 3, g)
    trial, start = trial_of(joined(episodes))
    assert trial.n_steps == joined(episodes).n_steps
    assert start.sum() == 18
    with torch.no_grad():
        inputs = inputs_of(env.actions, trial, start)
        for i in range(6):
            n = int(trial.mask[i, 0].sum())
            _, _, hidden = network(inputs[i : i + 1, :n])
            assert_allclose(hidden[0, 0], memory.hidden[0, i], atol=1e-6)
    last = trial.action[range(6), 0, trial.mask[:, 0].sum(1) - 1]
    assert torch.equal(memory.action.argmax(1), last)


def test_changes_are_seen_within_an_episode():
    network = RL2Network(1, DiscreteActions(2), 4)
    # Observation, last action, what it brought, start: two episodes.
    rows = [[7, 0, 0, 0, 1], [3, 1, 0, -2, 0], [4, 0, 1, -5, 0]]
    rows += [[7, 0, 1, -6, 1], [8, 1, 0, -1, 0]]
    inputs = torch.tensor([rows], dtype=torch.float32)
    seen = network._with_changes(inputs, torch.zeros(1, 1, 5))
    assert torch.equal(seen[..., :5], inputs)
    assert seen[0, :, 5].tolist() == [0, -4, 1, 0, 1]
    assert seen[0, :, 6].tolist() == [0, 0, -3, 0, 0]
    network.calibrate(inputs, torch.tensor([[True] * 4 + [False]]))
    known = seen[0, :4]
    for column in (0, 3, 5, 6):
        assert_allclose(network.center[column], known[:, column].mean())
        assert_allclose(network.scale[column], known[:, column].std())
    assert network.center[[1, 2, 4]].tolist() == [0, 0, 0]
    assert network.scale[[1, 2, 4]].tolist() == [1, 1, 1]


def policy_learner():
    torch.manual_seed(0)
    learner = PolicyLearner(2, BoxActions(2), (5,), 0.3, 0.1, 0.9, 1.0)
    torch.nn.init.normal_(learner.network[-1].weight)
    return learner


def phases(learner, n_tasks=2):
    g = torch.Generator().manual_seed(1)
    batch = PointNavigation(n_steps=4).make(n_tasks, random_state=0)
    weights, out = learner.shared(n_tasks), []
    for step in range(2):
        episodes = run_episodes(batch, PolicyActor(learner, weights, g), 3)
        with torch.no_grad():
            old = learner.log_prob(weights, episodes)
        out.append(Phase(episodes, learner.advantages(episodes), old))
        weights = learner.adapt(weights, episodes, step)
    return out


def test_inner_step_is_the_policy_gradient_of_each_task():
    learner = policy_learner()
    (episodes, advantage, _), _ = phases(learner)
    found = learner.adapt(learner.shared(2), episodes, 0)
    later = learner.adapt(learner.shared(2), episodes, 1)
    for task in range(2):
        # log pi times advantage, averaged over the steps of this task alone.
        X, A = episodes.observation[task].flatten(0, 1), episodes.action[task]
        free = learner.free.clone().requires_grad_()
        log_p = learner.actions.log_prob(learner.network(X), free, A.flatten(0, 1))
        gain = (log_p * advantage[task]).mean()
        names = [*dict(learner.network.named_parameters()), "log_std"]
        values = [*learner.network.parameters(), free]
        gradients = torch.autograd.grad(gain, values)
        for name, value, gradient in zip(names, values, gradients, strict=True):
            step = value + 0.3 * gradient
            # Adapted policies spread less.
            step = step + learner.narrowing if name == "log_std" else step
            assert_allclose(found[name][task], step.detach(), atol=1e-6)
            step = value + 0.1 * gradient
            assert_allclose(later[name][task], step.detach(), atol=1e-6)


def test_outer_gradient_goes_through_the_inner_step():
    learner = policy_learner().double()
    known = [
        Phase(
            type(p.episodes)(
                *(
                    f.double() if f.is_floating_point() else f
                    for f in vars(p.episodes).values()
                )
            ),
            p.advantage.double(),
            p.old.double(),
        )
        for p in phases(policy_learner())
    ]
    # Not at the kink of the clipped ratio.
    with torch.no_grad():
        learner.network[0].bias += 1e-3
    learner.outer_loss(known, 0.2, 0.1).backward()
    for values in (learner.network[0].bias, learner.narrowing):
        for i in range(2):
            sides = []
            for change in (1e-6, -1e-6):
                with torch.no_grad():
                    values[i] += change
                sides.append(float(learner.outer_loss(known, 0.2, 0.1).detach()))
                with torch.no_grad():
                    values[i] -= change
            assert_allclose(values.grad[i], (sides[0] - sides[1]) / 2e-6, rtol=1e-4)


# --------------------------------------------------------------------- estimators
@POLICIES
def test_verbs(kind):
    env = PointNavigation(n_steps=5)
    policy = tiny(kind).fit(env)
    assert len(policy.history_) == 2
    phases = 2 if kind is MAMLPolicy else 1
    n_episodes = policy.n_tasks * policy.n_episodes * phases
    assert [batch["steps"] for batch in policy.history_] == [5 * n_episodes] * 2
    before = {k: v.clone() for k, v in policy.learner_.state_dict().items()}
    policy.adapt(env.make(random_state=1), episodes=4)
    assert policy.n_steps_ == 20
    policy.partial_adapt(env.make(random_state=1), episodes=2)
    assert policy.n_steps_ == 30
    action, state = policy.predict(np.zeros(2))
    assert action.shape == (2,)
    assert np.abs(action).max() <= 1
    action, state = policy.predict(np.zeros((3, 2)), deterministic=True)
    assert action.shape == (3, 2)
    again, state = policy.predict(np.ones((3, 2)), state, reward=[0.0, -1.0, 2.0])
    assert again.shape == (3, 2)
    for name, value in policy.learner_.state_dict().items():
        assert torch.equal(value, before[name])


@POLICIES
def test_same_seed_same_policy(kind):
    env = PointNavigation(n_steps=5)
    one, two = (tiny(kind).fit(env) for _ in range(2))
    assert one.history_ == two.history_
    assert one.score(env) == two.score(env)
    other = pickle.loads(pickle.dumps(one))
    assert_array_equal(one.predict(np.zeros(2))[0], other.predict(np.zeros(2))[0])
    fresh = clone(one)
    assert not hasattr(fresh, "learner_")
    name = kind.__name__
    estimator_checks.check_parameters_default_constructible(name, kind())
    estimator_checks.check_no_attributes_set_in_init(name, kind())
    estimator_checks.check_estimator_repr(name, kind())


@POLICIES
def test_copies_adapt_independently(kind):
    env = PointNavigation(n_steps=5)
    policy = tiny(kind).fit(env)
    other = copy.copy(policy).adapt(env.make(random_state=0))
    assert policy.state_ is None
    assert other.state_ is not None


@POLICIES
def test_evaluate(kind):
    env = PointNavigation(n_steps=5)
    result = tiny(kind).fit(env).evaluate(env, episodes=2, n_tasks=7)
    assert result.returns.shape == (7,)
    assert result.n_steps == 7 * 2 * 5
    error = result.returns.std(ddof=1) / np.sqrt(7)
    assert_allclose(result.standard_error, error)


@POLICIES
def test_recorded_episodes(kind):
    env = PointNavigation(n_steps=4)
    policy = tiny(kind).fit(env)
    rng = np.random.default_rng(0)
    episodes = [
        Episode(rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), rng.normal(size=n))
        for n in (4, 3)
    ]
    policy.adapt(episodes)
    assert policy.n_steps_ == 7
    with pytest.raises(ValueError, match="Episode 1: expected observations"):
        policy.adapt([episodes[0], Episode(np.zeros((2, 3)), np.zeros((2, 2)), [0, 0])])


def test_recorded_steps_are_remembered_as_played_ones():
    env = Corridor()
    policy = tiny(RL2Policy).fit(env)
    batch = env.make(1, random_state=3)
    played, memory = run_trial(policy.learner_, batch, 2, policy._generator)
    episodes = []
    for part in played:
        n = part.n_steps
        fields = part.observation, part.action, part.reward
        episodes.append(Episode(*(field[0, 0, :n].numpy() for field in fields)))
    policy.adapt(episodes)
    assert_allclose(policy.state_.hidden, memory.hidden, atol=1e-6)


def test_rl2_needs_rewards_to_go_on():
    policy = tiny(RL2Policy).fit(BernoulliBandits())
    _, state = policy.predict([0.0])
    with pytest.raises(ValueError, match="pass reward="):
        policy.predict([0.0], state)
    with pytest.raises(ValueError, match="rows of 1 features"):
        policy.predict([0.0, 1.0])
    with pytest.raises(ValueError, match="was fitted with 1 features"):
        policy.adapt(PointNavigation())


def test_bad_parameters():
    with pytest.raises(ValueError, match="'lr' parameter"):
        RL2Policy(lr=-1).fit(BernoulliBandits())
    with pytest.raises(ValueError, match="0 tasks"):
        RL2Policy().fit([])


# ---------------------------------------------------------------------- gymnasium
def test_gymnasium_checker_passes():
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    for env in (BernoulliBandits(), PointNavigation()):
        check_env(to_gymnasium(env), skip_render_check=True)


def test_gymnasium_steps_are_those_of_the_tensors():
    pytest.importorskip("gymnasium")
    env = PointNavigation(n_steps=3)
    one = to_gymnasium(env, n_tasks=2, random_state=0)[1]
    one.reset(seed=0)
    goal = one.task.numpy()
    row, reward, ended, cut, _ = one.step(np.array([1.0, 0.0], dtype=np.float32))
    assert_allclose(row, [0.1, 0.0])
    assert_allclose(reward, -np.hypot(*(row - goal)), rtol=1e-6)
    assert not (ended or cut)
    one.step(np.zeros(2))
    assert one.step(np.zeros(2))[3]


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_vector_environments(mode):
    gym = pytest.importorskip("gymnasium")
    mode = getattr(gym.vector.AutoresetMode, mode)
    parts = to_gymnasium(Corridor(), n_tasks=3, random_state=0)
    envs = gym.vector.SyncVectorEnv([lambda e=e: e for e in parts], autoreset_mode=mode)
    batch = from_gymnasium(envs)

    def always_right(observation, alive):
        return torch.ones(3, dtype=torch.long)

    episodes = run_episodes(batch, always_right, 2)
    lengths = [int(part.task[0]) for part in parts]
    assert_array_equal(episodes.mask.sum(-1), [[n, n] for n in lengths])
    assert_array_equal(episodes.returns, [[-n, -n] for n in lengths])


def test_policies_of_foreign_environments():
    gym = pytest.importorskip("gymnasium")
    envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    policy = tiny(RL2Policy, horizon=20).fit(envs)
    assert policy.adapt(envs, episodes=1).n_steps_ > 10
    action, _ = policy.predict(np.zeros((2, 4)))
    assert set(action.tolist()) <= {0, 1}
    envs.close()
    parts = to_gymnasium(PointNavigation(n_steps=3), n_tasks=4, random_state=0)
    scores = cross_val_score(tiny(MAMLPolicy), parts, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    with pytest.raises(TypeError, match="at position 1"):
        tiny(MAMLPolicy).fit([parts[0], 3])


def test_gymnasium_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "skmeta.rl._gymnasium", raising=False)
    with pytest.raises(ImportError, match=r"skmeta\[rl\]"):
        to_gymnasium(PointNavigation())


# ------------------------------------------------------------------------ optimum
def best_reward(n_arms, n_pulls):
    """Bayes-optimal expected reward, by dynamic programming over sorted counts."""

    @cache
    def value(counts, left):
        if not left:
            return 0.0
        best = 0.0
        for i, (won, lost) in enumerate(counts):
            if i and counts[i] == counts[i - 1]:
                continue
            p = (won + 1) / (won + lost + 2)
            rest = counts[:i] + counts[i + 1 :]
            after_win = value(tuple(sorted((*rest, (won + 1, lost)))), left - 1)
            after_loss = value(tuple(sorted((*rest, (won, lost + 1)))), left - 1)
            best = max(best, p * (1 + after_win) + (1 - p) * after_loss)
        return best

    return value(((0, 0),) * n_arms, n_pulls)


def test_dynamic_programming():
    # One arm: half of the pulls pay. Two arms, one pull: the same.
    assert_allclose(best_reward(1, 4), 2.0)
    assert_allclose(best_reward(2, 1), 0.5)
    # Two arms, two pulls: stay after a win (2/3), else change (1/2).
    assert_allclose(best_reward(2, 2), 0.5 * (1 + 2 / 3) + 0.5 * 0.5)


@pytest.mark.slow
def test_rl2_comes_close_to_the_optimum():
    assert_allclose(best_reward(5, 10), 6.6600, atol=5e-5)
    env = BernoulliBandits()
    policy = RL2Policy(random_state=0).fit(env)
    result = policy.evaluate(env, episodes=0, n_tasks=20000)
    assert result.mean >= 6.58


@POLICIES
def test_training_improves_a_policy(kind):
    env = Corridor()
    policy = clone(tiny(kind)).set_params(n_batches=30, n_tasks=32, lr=2e-2)
    untrained = tiny(kind, lr=1e-9).fit(env).evaluate(env, n_tasks=300).mean
    trained = policy.fit(env).evaluate(env, n_tasks=300).mean
    assert untrained < -3.2
    assert trained > -2.4  # always right: -2
