"""Policies that learn new tasks: mean returns, seconds, steps of environments.

Bernoulli bandits, 5 arms and 10 pulls: mean reward of an episode against the exact
optimum of Bayes, 6.6600. Two-dimensional navigation: return after 0 to 3 gradient steps
of MAML on 20 episodes each, and of RL2 in its first and second episode, beside what is
earned by standing still, by geometry, and by knowing the goal. Environments:
steps in a second as tensors, and one by one in gymnasium's SyncVectorEnv.

    python benchmarks/rl.py [--parts bandits strategies maml rl2 speed] [--seeds 1]
"""

import argparse
import time

import numpy as np
import torch
from _ledger import load, record

from skmeta.rl import BernoulliBandits, MAMLPolicy, PointNavigation, RL2Policy

NAVIGATION = {
    "n_batches": 40,
    "n_tasks": 128,
    "n_episodes": 2,
    "lr": 5e-3,
    "gamma": 0.95,
    "entropy": 0.0,
    "n_epochs": 5,
}


def trained(policy, env):
    """Fit; seconds of one core that it took, and steps of environments."""
    start = time.process_time()
    policy.fit(env)
    return {
        "cpu_seconds": round(time.process_time() - start, 1),
        "training_steps": sum(batch["steps"] for batch in policy.history_),
    }


def judged(policy, env, episodes, n_tasks, seed):
    """Mean return of new tasks and its standard error."""
    result = policy.evaluate(
        env, episodes=episodes, n_tasks=n_tasks, random_state=10_000 + seed
    )
    return {
        "return": round(result.mean, 4),
        "standard_error": round(result.standard_error, 4),
        "steps": result.n_steps,
    }


def bandits(seed):
    """RL2 on Bernoulli bandits."""
    env, policy = BernoulliBandits(), RL2Policy(random_state=seed)
    row = trained(policy, env)
    row["first episode"] = judged(policy, env, 0, 20_000, seed)
    return row


def maml(seed):
    """Gradient steps on navigation."""
    env, policy = PointNavigation(), MAMLPolicy(random_state=seed)
    row = trained(policy, env)
    row["0 steps"] = judged(policy, env, 0, 200, seed)
    for steps in (1, 2, 3):
        policy.set_params(adapt_steps=steps)
        row[f"{steps} steps"] = judged(policy, env, 20 * steps, 200, seed)
    return row


def rl2(seed):
    """Memory on navigation."""
    env = PointNavigation()
    policy = RL2Policy(random_state=seed, **NAVIGATION)
    row = trained(policy, env)
    row["first episode"] = judged(policy, env, 0, 1000, seed)
    row["second episode"] = judged(policy, env, 1, 1000, seed)
    row["third episode"] = judged(policy, env, 2, 1000, seed)
    return row


def strategies(seed):
    """What navigation earns without learning; the best that can be hoped for."""
    batch = PointNavigation().make(4000, random_state=10_000 + seed)
    around = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]
    return {
        "stands still": walked(batch, [], lambda *_: torch.zeros_like(batch.tasks)),
        "measures three distances": walked(batch, around, located),
        "knows the goal": walked(batch, [], lambda *_: batch.tasks),
    }


def walked(batch, moves, find):
    """Mean return of some moves, then of walking to where `find` sees the goal."""
    position, seen, rewards = batch.reset(), [], []
    for step in range(batch.horizon):
        if step == len(moves):
            goal = find(seen, rewards)
        if step < len(moves):
            action = torch.tensor(moves[step]).expand(batch.n_tasks, 2)
        else:
            action = (goal - position) / batch.env.step_size
        position, reward, _ = batch.step(action)
        seen.append(position)
        rewards.append(reward)
    return round(float(torch.stack(rewards).sum(0).mean()), 2)


def located(seen, rewards):
    """The goal from three distances: differences of their squares are linear in it."""
    place, squared = torch.stack(seen, dim=1), torch.stack(rewards, dim=1).square()
    excess = place.square().sum(-1) - squared
    return torch.linalg.solve(
        2 * (place[:, 1:] - place[:, :1]), excess[:, 1:] - excess[:, :1]
    )


def speed(seed):
    """Steps in a second of navigation, 4,096 tasks as tensors and 64 in gymnasium."""
    import gymnasium as gym

    from skmeta.rl import to_gymnasium

    env, found = PointNavigation(), {}
    batch = env.make(4096, random_state=seed)
    action = torch.zeros(4096, 2)
    batch.reset()
    start = time.process_time()
    for _ in range(300):
        batch.step(action)
    found["tensors"] = 300 * 4096 / (time.process_time() - start)
    envs = to_gymnasium(env, n_tasks=64, random_state=seed)
    envs = gym.vector.SyncVectorEnv([lambda e=e: e for e in envs])
    envs.reset(seed=seed)
    zeros = np.zeros((64, 2), dtype=np.float32)
    start = time.process_time()
    for _ in range(50):
        envs.step(zeros)
    found["SyncVectorEnv"] = 50 * 64 / (time.process_time() - start)
    found = {name: round(value) for name, value in found.items()}
    return found | {"ratio": round(found["tensors"] / found["SyncVectorEnv"], 1)}


PARTS = {
    "bandits": bandits,
    "strategies": strategies,
    "maml": maml,
    "rl2": rl2,
    "speed": speed,
}


def main():
    """Run, print, write the ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = (load("rl") or {}).get("results", {})
    for part in options.parts:
        results[part] = []
        for seed in range(options.seeds):
            results[part].append(PARTS[part](seed))
            print(part, seed, results[part][-1], flush=True)
        record("rl", exact_optimum_of_bandits=6.66, results=results)


if __name__ == "__main__":
    main()
