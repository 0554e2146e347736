"""Quick networks by the names of the quick start's, so that examples can load its run."""

from tests.tiny import Tiny as resnet8  # noqa: F401, N813
from tests.tiny import Wider as resnet14  # noqa: F401, N813
