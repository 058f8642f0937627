"""Settings: what is refused, the published family, JSON."""

from __future__ import annotations

import dataclasses

import pytest

from rate import RateConfig

DISCRETE = {"observation": "discrete", "observation_shape": ()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segment_length": 0}, "segment_length must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"action_size": 0}, "action_size must be at least 1, got 0"),
        ({"d_model": 2, "num_heads": 4}, "d_head must be at least 1, got 0"),
        ({"d_model": 33, "gate_heads": 0}, "d_model must be even, got 33"),
        ({"num_memory": -1}, "num_memory must be at least 0, got -1"),
        ({"cache_len": -1}, "cache_len must be at least 0, got -1"),
        ({"d_inner": -1}, "d_inner must be at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"attention_dropout": -0.1}, r"attention_dropout must be in \[0, 1\), got -0.1"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\), got nan"),
        ({"return_scale": 0.0}, "return_scale must be positive, got 0.0"),
        ({"action_scale": float("nan")}, "action_scale must be positive, got nan"),
        ({"num_layers": 2.0}, "num_layers must be an integer, got 2.0"),
        ({"num_memory": True}, "num_memory must be an integer, got True"),
        ({"dropout": "0.1"}, "dropout must be a number, got '0.1'"),
        ({"gating": "yes"}, "gating must be True or False, got 'yes'"),
        ({"observation_shape": 4}, "observation_shape must be a tuple of integers, got 4"),
        ({"observation_shape": ("4",)}, r"observation_shape must be a tuple of integers, got \('4',\)"),
        ({"observation": "sound"}, "observation must be one of vector, image, discrete, got 'sound'"),
        ({"action": "none"}, "action must be one of discrete, continuous, got 'none'"),
        ({"block": "post"}, "block must be one of pre_norm, published, got 'post'"),
        ({"shift": "left"}, "shift must be one of signed, transformer_xl, got 'left'"),
        ({"gate_activation": "gelu"}, "gate_activation must be one of .*relu.*, got 'gelu'"),
        ({"gate_heads": 3}, "gate_heads must divide d_model = 128, got 3"),
        ({"gating": True, "d_inner": 0}, "d_inner must be at least 1 with gating, got 0"),
        ({"observation_shape": (3, 64, 64)}, "observation_shape must have 1 numbers for vector observations"),
        (DISCRETE, "num_observations must be at least 1 for discrete observations, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RateConfig(**settings)


def test_head_width_follows_the_model_width():
    assert RateConfig(d_model=96, num_heads=4).d_head == 24
    assert RateConfig(d_model=96, num_heads=4, d_head=10).d_head == 10


def test_family():
    settings = {"segment_length": 7, "num_memory": 4, "gate_heads": 2, "cache_len": 0, "d_model": 32}
    of = {
        name: RateConfig.family(name, segments=3, **settings)
        for name in ("dt", "dt-long", "rmt", "trxl", "gtrxl", "rate", "bc-lstm")
    }
    fields = ("num_memory", "gate_heads", "cache_len", "segment_length", "gating")
    assert {name: tuple(getattr(config, field) for field in fields) for name, config in of.items()} == {
        "dt": (0, 0, 0, 7, False),
        "dt-long": (0, 0, 0, 21, False),
        "rmt": (4, 0, 0, 7, False),
        "trxl": (0, 0, 63, 7, False),
        "gtrxl": (0, 0, 63, 7, True),
        "rate": (4, 2, 0, 7, False),
        "bc-lstm": (0, 0, 0, 7, False),
    }
    assert {name for name, config in of.items() if config.architecture == "lstm"} == {"bc-lstm"}
    assert RateConfig.family("trxl", segments=3, **settings | {"cache_len": 5}).cache_len == 5
    with pytest.raises(
        ValueError, match="family must be one of rate, rmt, trxl, gtrxl, dt, dt-long, bc-lstm, got 'lstm'"
    ):
        RateConfig.family("lstm")


def test_json_round_trip(tmp_path):
    config = RateConfig(
        observation="image", observation_shape=(3, 40, 44), cache_len=9, read_cache=True, return_scale=2.5
    )
    (tmp_path / "config.json").write_text(config.to_json())
    assert RateConfig.load(tmp_path) == RateConfig.load(tmp_path / "config.json") == config
    assert RateConfig.from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid"),
        ("", "config.json is not valid"),
        ('{"d_modal": 8}', "unknown field 'd_modal'; known are action, "),
        ('{"d_model": 0}', "d_model must be at least 1, got 0"),
    ],
)
def test_files_that_are_no_config_are_named(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        RateConfig.load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no config.json at {tmp_path}"):
        RateConfig.load(tmp_path)
