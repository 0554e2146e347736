"""Two small networks of somebody's own, one in Linen and one in NNX."""

from flax import linen as nn
from flax import nnx


class InLinen(nn.Module):
    """Two convolutions, BatchNorm, classifier."""

    classes: int
    axis_name: str | None = None  # for BatchNorm on several devices

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(images))
        x = nn.BatchNorm(not train, axis_name=self.axis_name)(nn.Conv(64, (3, 3), strides=2)(x))
        features = nn.relu(x)
        return nn.Dense(self.classes)(features.mean((1, 2))), features


class InNNX(nnx.Module):
    """Convolution, BatchNorm, Dropout, classifier."""

    def __init__(self, classes, *, rngs):
        self.conv = nnx.Conv(3, 64, (3, 3), strides=4, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.classifier = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, images):
        features = nnx.relu(self.norm(self.conv(images)))
        return self.classifier(self.dropout(features.mean((1, 2)))), features
