"""The quick start on all digits and with one seed, for tests that train."""

import ml_collections

from afd_jax.runs.overrides import read_config


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Settings, but for what each test overrides."""
    config = read_config(f"digits_afd:{argument}")
    config.seeds = 1
    config.data.labels = None
    config.eval_every = config.checkpoint_every = "1 epochs"
    config.optimizers.logit.learning_rate = 0.05
    config.optimizers.logit.weight_decay = 5e-4
    return config
