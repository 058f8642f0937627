"""Many T-Mazes at once do what one does; the scripted expert solves them."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import rate.envs
from rate.envs import TMaze, TMazeExpert, TMazeVector

LENGTHS = np.array([1, 1, 2, 3, 5, 8])


def episode_of(env, seed, steps=40):
    """Observations and rewards of random actions that depend on the environment's number alone."""
    streams = [np.random.default_rng(number) for number in range(env.num_envs)]
    observations, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        step = env.step(np.array([stream.choice([0, 0, 1, 2, 3]) for stream in streams]))
        observations.append(step[0])
        rewards.append(step[1])
    return np.array(observations), np.array(rewards)


@pytest.mark.parametrize("hint_steps, penalty, goal_reward", [(1, 0.0, 1.0), (3, -0.25, 2.0)])
def test_equals_single_environments_under_random_actions(hint_steps, penalty, goal_reward):
    settings = {"noise": False, "penalty": penalty, "hint_steps": hint_steps, "goal_reward": goal_reward}
    count = len(LENGTHS)
    vector = TMazeVector(count, LENGTHS, **settings)
    singles = [TMaze(int(length), **settings) for length in LENGTHS]
    observations, info = vector.reset(seed=0)
    expected = [env.reset(options={"goal": goal}) for env, goal in zip(singles, info["goal"], strict=True)]
    assert np.array_equal(observations, [observation for observation, _ in expected])
    ended, ends, successes = np.zeros(count, bool), 0, 0
    rng = np.random.default_rng(1)
    for _ in range(300):
        actions = rng.choice([0, 0, 0, 1, 2, 3], count)
        observations, rewards, terminated, truncated, info = vector.step(actions)
        for i, env in enumerate(singles):
            if ended[i]:  # the vector environment resets in the step after an end, and ignores the action
                observation, single = env.reset(options={"goal": info["goal"][i]})
                result = (0.0, False, False)
            else:
                observation, *result, single = env.step(actions[i])
            assert np.array_equal(observations[i], observation)
            assert (rewards[i], terminated[i], truncated[i]) == tuple(result)
            assert all(info[f"_{key}"][i] and info[key][i] == value for key, value in single.items())
            assert ("success" in single) == bool(info.get("_success", np.zeros(count))[i])
            ended[i] = terminated[i] or truncated[i]
            ends += ended[i]
            successes += single.get("success", False)
    assert ends > 100 and 0 < successes < ends


def test_a_seed_gives_the_same_run_and_another_gives_another():
    env = TMazeVector(6, LENGTHS)
    first, again, other = episode_of(env, 5), episode_of(env, 5), episode_of(env, 6)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_an_environment_depends_on_its_own_seed_alone():
    together, _ = episode_of(TMazeVector(6, LENGTHS), [7, 8, 9, 10, 11, 12])
    fewer, _ = episode_of(TMazeVector(3, LENGTHS[:3]), 7)
    assert np.array_equal(together[:, :3], fewer)


def test_goals_and_noise_are_drawn_evenly():
    env = TMazeVector(3000, 1)
    observations, info = env.reset(seed=0)
    assert abs(info["goal"].mean()) < 0.1 and abs(observations[:, 3].mean()) < 0.1
    assert np.allclose([(observations[:, 3] == v).mean() for v in (-1, 0, 1)], 1 / 3, atol=0.05)
    noise = [env.step(np.zeros(3000, int))[0][:, 3], observations[:, 3]]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1


def test_balanced_goals_alternate_over_environments_and_episodes():
    env = TMazeVector(5, 1, balanced_goals=True)
    expert = TMazeExpert(5)
    observations, info = env.reset(seed=0)
    goals = [info["goal"]]
    for _ in range(6):  # two steps and one reset, twice
        observations, *_, info = env.step(expert.act(observations))
        goals.append(info["goal"])
    assert goals[0].tolist() == [1, -1, 1, -1, 1]
    assert goals[2].tolist() == goals[0].tolist() and goals[3].tolist() == [-1, 1, -1, 1, -1]
    assert goals[6].tolist() == goals[0].tolist()
    assert env.reset(seed=4)[1]["goal"].tolist() == goals[0].tolist()


def test_without_autoreset_ended_environments_wait_for_their_reset():
    env = TMazeVector(3, [1, 1, 4], autoreset_mode=AutoresetMode.DISABLED)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.reset(seed=0, options={"goal": np.array([1, -1, 1])})
    env.step(np.zeros(3, int))
    *_, terminated, _, info = env.step(np.array([1, 1, 0]))
    assert terminated.tolist() == [True, True, False] and info["success"].tolist() == [True, False, False]
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[0, 1\] have ended"):
        env.step(np.zeros(3, int))
    observations, info = env.reset(options={"reset_mask": terminated, "goal": 1})
    assert info["_x"].tolist() == [True, True, False] and info["x"].tolist() == [0, 0, 2]
    assert observations[:, 1].tolist() == [1, 1, 0]
    assert env.step(np.zeros(3, int))[-1]["x"].tolist() == [1, 1, 3]


def test_what_was_handed_out_does_not_change_later():
    env = TMazeVector(2, 1)
    observations, info = env.reset(seed=0)
    kept = observations.copy(), info["x"].copy(), info["goal"].copy()
    for _ in range(5):
        env.step(np.array([0, 1]))
    assert np.array_equal(observations, kept[0])
    assert np.array_equal(info["x"], kept[1]) and np.array_equal(info["goal"], kept[2])


def test_gymnasium_makes_both_kinds_and_its_wrappers_work():
    single = gymnasium.make(rate.envs.TMAZE_ID, corridor_length=4)
    assert isinstance(single.unwrapped, TMaze) and single.unwrapped.corridor_length == 4
    env = gymnasium.make_vec(rate.envs.TMAZE_ID, num_envs=8, corridor_length=4)
    assert isinstance(env, TMazeVector) and env.num_envs == 8
    recorded = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    expert = TMazeExpert(8)
    observations, _ = recorded.reset(seed=0)
    for _ in range(5):
        observations, *_, info = recorded.step(expert.act(observations))
    assert info["episode"]["r"].tolist() == [1.0] * 8 and info["episode"]["l"].tolist() == [5] * 8


@pytest.mark.parametrize("corridor", [1, 9, 89])
def test_the_expert_always_succeeds(corridor):
    env, expert = TMazeVector(50, corridor), TMazeExpert()
    expert.reset(50)
    observations, _ = env.reset(seed=corridor)
    for _ in range(2):  # the second episode follows an automatic reset that the expert is not told of
        for _ in range(corridor + 1):
            observations, rewards, terminated, _, info = env.step(expert.act(observations))
        assert terminated.all() and info["success"].all() and (rewards == 1).all()
        observations = env.step(np.zeros(50, int))[0]


def test_the_expert_forgets_only_what_it_is_told_to():
    expert = TMazeExpert(3)
    expert.act(np.array([[0, 1, 0, 0]] * 3, np.float32))
    expert.reset(env_ids=[1])
    assert expert.act(np.array([[0, 0, 1, 0]] * 3, np.float32)).tolist() == [1, 3, 1]
    with pytest.raises(ValueError, match=r"^num_envs must be 3 when only some are reset, got 2$"):
        expert.reset(2, env_ids=[0])
    with pytest.raises(ValueError, match=r"^observation must have shape \(3, 4\), got \(2, 4\)$"):
        expert.act(np.zeros((2, 4)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: TMazeVector(0), "num_envs must be at least 1, got 0"),
        (lambda: TMazeVector(2, [3, 0]), "corridor_length must be at least 1, got 0"),
        (lambda: TMazeVector(2, [3, 3, 3]), "corridor_length must be an integer or have shape"),
        (
            lambda: TMazeVector(2, autoreset_mode="SameStep"),
            "autoreset_mode must be one of 'NextStep', 'Disabled'",
        ),
        (lambda: TMazeVector(2).reset(seed=[1]), "seed must be an int or 2 of them, got 1"),
        (lambda: TMazeVector(2).reset(seed=[1, -1]), "seed must not be negative, got -1"),
        (
            lambda: TMazeVector(2).reset(options={"goal": [1, 1, 1]}),
            r"options\['goal'\] must be \+1, -1 or 2 of them",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_steps_check_actions_and_masks():
    env = TMazeVector(2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, int))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"got 4 for environment 1$"):
        env.step(np.array([0, 4]))
    with pytest.raises(
        ValueError, match=r"^actions must be integers of shape \(2,\), got float64 of shape \(2,\)$"
    ):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match=r"^options\['reset_mask'\] must be bool"):
        env.reset(options={"reset_mask": np.array([1, 0])})
    with pytest.raises(ValueError, match="select at least one"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})


def test_a_masked_reset_leaves_the_others_as_they_are():
    env, untouched = (TMazeVector(8, corridor_length=9) for _ in range(2))
    first, _ = env.reset(seed=5)
    untouched.reset(seed=5)
    mask = np.arange(8) < 3
    observations, _ = env.reset(options={"reset_mask": mask})
    assert np.array_equal(observations[~mask], first[~mask])
    after, *_ = env.step(np.zeros(8, np.int64))
    expected, *_ = untouched.step(np.zeros(8, np.int64))
    assert np.array_equal(after[~mask], expected[~mask])
