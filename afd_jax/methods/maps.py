"""What methods on feature maps share: bringing the maps to one shape, and measuring them."""

import dataclasses
from collections.abc import Sequence

import jax
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import SettingError
from afd_jax.networks.heads import Transfer, common_shape
from afd_jax.methods.method import PerExample, average
from afd_jax.methods.logits import LogitMethod
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class MapMethod(LogitMethod):
    """A method whose edges compare feature maps, and may carry predictions, too.

    Where shapes differ, a transfer layer on the map brings it to a common shape (AFD, Chung et al.,
    ICML 2020; the form is assumed, see `heads.Transfer`). It trains with its own network's feature
    loss.
    """

    def compares_maps(self) -> bool:
        """Whether any loss looks at the maps; without one there are no transfer layers."""
        raise NotImplementedError

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """A transfer layer where the own map's shape is not the common one of its component."""
        if not self.compares_maps() or k not in self.graph.joined():
            return {}
        common = self._common_shape(k, shapes)
        return {} if shapes[k].features.shape[1:] == common else {"transfer": Transfer(common)}

    def map_distances(self, k: int, outputs: Sequence[Outputs]) -> PerExample:
        """How far the map of k is from its sources', averaged over them: for the log."""
        own = common_map(outputs[k])
        measures = {
            "map_l1": losses.l1_alignment,
            "map_l2": losses.l2_alignment,
            "map_cosine": losses.cosine_distance,
        }
        return {
            name: average([distance(own, common_map(outputs[j])) for j in self.graph.sources(k)])
            for name, distance in measures.items()
        }

    def _common_shape(self, k: int, shapes: Sequence[Outputs]) -> tuple[int, int, int]:
        """Of the maps of all networks connected with k, which meet in one loss or another.

        A network that only teaches has no feature loss to train a transfer layer with, so the
        others come to its shape.
        """
        nodes = self.graph.connected(k)
        teachers = [j for j in nodes if not self.graph.sources(j)]
        fixed = {shapes[j].features.shape[1:] for j in teachers}
        if len(fixed) > 1:
            remedy = f"the networks {teachers} only teach, so no loss trains a transfer layer for "
            remedy += f"them; their maps need one shape, not {sorted(fixed)}"
            raise SettingError("graph", self.graph.edges, remedy)
        return common_shape(list(fixed) or [shapes[j].features.shape[1:] for j in nodes])


def common_map(outputs: Outputs) -> jax.Array:
    """A network's feature map in the common shape, [batch, height, width, channels]."""
    return outputs.extras.get("transfer", outputs.features)
