"""Training on few labels: as many of each class as can be, and the rest of the set as it was."""

import numpy as np
import pytest

from afd_jax.data import load
from afd_jax.data.examples import even_order
from afd_jax.errors import SettingError
from afd_jax.runs.overrides import read_config
from afd_jax.runs.trainer import train


def test_any_first_rows_hold_as_many_of_each_class_as_can_be():
    labels = np.random.default_rng(1).choice(4, 60, p=(0.5, 0.3, 0.15, 0.05))
    order = even_order(labels, 0)
    assert sorted(order) == list(range(60))
    every = np.bincount(labels, minlength=4)
    for count in range(61):
        found = np.bincount(labels[order[:count]], minlength=4)
        # A class is behind another only if it is used up.
        behind = found < found.max() - 1
        assert (found[behind] == every[behind]).all() and found.sum() == count
    assert (even_order(labels, 0) == order).all() and (even_order(labels, 1) != order).any()


def test_few_labels_leave_the_held_out_and_test_parts_whole():
    whole, few = (load("digits", heldout=0.2, labels=labels) for labels in (None, 50))
    assert len(few.train) == 50 and (np.bincount(few.train.labels) == 5).all()
    for part in ("heldout", "test"):
        assert getattr(few, part).digest == getattr(whole, part).digest
    rows = {image.tobytes() for image in whole.train.images}
    assert all(image.tobytes() in rows for image in few.train.images)


@pytest.mark.parametrize("labels", [0, 1438, 2.5])
def test_numbers_that_cannot_be(labels):
    with pytest.raises(SettingError, match=r"data\.labels = "):
        load("digits", labels=labels)


def test_a_streamed_set_takes_no_number_of_labels(tmp_path):
    config = read_config("imagenet_afd:resnet8,resnet8,smoke")
    config.data.labels = 10
    with pytest.raises(SettingError, match=r"data\.labels = 10: .*leave it None"):
        train(config, tmp_path)
