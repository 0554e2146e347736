"""Puts networks, method and optimizers together, and checks that they fit before compiling."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from afd_jax import speedups
from afd_jax.engine import optimizers as papers
from afd_jax.engine.forward import answers_of
from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import PRECISIONS, Network, Plan
from afd_jax.engine.trains import only, who_trains_what
from afd_jax.errors import SettingError, one_of, require_flag, require_number
from afd_jax.graph import Graph, Node
from afd_jax.methods.method import UPDATES, Method, View
from afd_jax.networks.branched import Branched, single
from afd_jax.networks.contract import check_networks
from afd_jax.networks.functional import functional
from afd_jax.networks.outputs import Outputs
from afd_jax.networks.staged import StagedNetwork


def make_plan(
    networks: Mapping[str, Any],
    method: Method,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    graph: Any = "own",
    teachers: Mapping[str, Any] | None = None,
    twins: bool = False,
    averages: bool = False,
    optimizers: Mapping[str, optax.GradientTransformation] | None = None,
    **settings: Any,
) -> Plan:
    """Checks that networks, method and data fit together, and says who trains what.

    Args:
      networks: Linen or NNX modules by name; see `networks.functional`.
      method: the losses of nodes and edges.
      image_shape: (height, width, channels).
      classes: number of classes.
      graph: "own" of the method's paper, a shape or edges, as in `graph.make_edges`.
      teachers: frozen networks by name, whose variables `init_state` takes.
      twins: add one of every network, which starts from the same parameters and has no edges.
      averages: add a moving average of every network; it has no edges unless the method has them.
      optimizers: by update; those that the method does not use may be missing. AFD's if None.
      **settings: further fields of `Plan`.

    Raises:
      SettingError: if the number of networks is not the method's, a network cannot take the images
        or returns no proper logits and feature map, or an optimizer is missing.
    """
    known = {field.name: field.default for field in dataclasses.fields(Plan)}
    for name, value in settings.items():
        if name not in known:
            raise SettingError(name, value, f"unknown; {one_of(name, known)}")
    given = {**known, **settings}
    if given["precision"] not in PRECISIONS:
        remedy = one_of(given["precision"], PRECISIONS)
        raise SettingError("precision", given["precision"], remedy)
    for name, value in (("classes", classes), ("examples", given["examples"] or 1)):
        require_number(name, value, least=1, whole=True)
    for name in ("total_steps", "steps_per_epoch"):
        if given[name] is not None:
            require_number(name, given[name], least=1, whole=True)
    require_number("average_decay", given["average_decay"], least=0, below=1)
    require_number("label_smoothing", given["label_smoothing"], least=0, below=1)
    require_one_smoothing(method, given["label_smoothing"])
    for name in ("second_forward", "own_augmentation"):
        require_flag(name, given[name])
    require_flag("twins", twins)
    require_flag("averages", averages)
    _check_optimizers(optimizers or {})
    with speedups.forms(jax.default_backend()):  # what is traced here is traced again for the step
        plan = _without_heads(
            networks, method, image_shape, classes, graph, teachers or {}, twins, averages, settings
        )
        _require_half_precision(plan)
        plan = dataclasses.replace(plan, networks=_with_heads(plan))
        return _with_optimizers(plan, papers.afd() if optimizers is None else optimizers)


def require_one_smoothing(method: Method, smoothing: float) -> None:
    """Raises SettingError if the labels would be smoothed twice."""
    if smoothing and (already := getattr(method, "label_smoothing", 0)):
        remedy = f"the method smooths labels by {already} already; set one to 0"
        raise SettingError("label_smoothing", smoothing, remedy)


def _check_optimizers(optimizers: Mapping[str, Any]) -> None:
    for name, optimizer in optimizers.items():
        if name not in UPDATES:
            raise SettingError("optimizers", name, f"no such update; {one_of(name, UPDATES)}")
        if not isinstance(optimizer, optax.GradientTransformation):
            remedy = "must be of optax, such as optax.sgd(0.1)"
            raise SettingError(f"optimizers.{name}", optimizer, remedy)


def _without_heads(
    networks: Mapping[str, Any],
    method: Method,
    image_shape: tuple[int, int, int],
    classes: int,
    shape: Any,
    teachers: Mapping[str, Any],
    twins: bool,
    averages: bool,
    settings: Mapping[str, Any],
) -> Plan:
    require_teachers(method, len(teachers), "teachers", tuple(teachers))
    if method.beside == "snapshot" and not settings.get("steps_per_epoch"):
        remedy = f"{type(method).__name__} keeps the network of the last epoch; say how long one is"
        raise SettingError("steps_per_epoch", settings.get("steps_per_epoch"), remedy)
    if getattr(method, "uses_examples", False) and not settings.get("examples"):
        remedy = "say how many the training set has; the method remembers something of each"
        raise SettingError("examples", settings.get("examples"), remedy)
    modules = {
        name: functional(m, f"networks[{k}]") for k, (name, m) in enumerate(networks.items())
    }
    frozen = {name: functional(m, f"teachers[{k}]") for k, (name, m) in enumerate(teachers.items())}
    check_networks("networks", [*modules], [*modules.values()], image_shape, classes)
    check_networks("teachers", [*frozen], [*frozen.values()], image_shape, classes)
    own_augmentation = settings.get("own_augmentation", False)
    members = students(modules, method, classes, own_augmentation)
    if any(len(network.nodes) > 1 for network in members):
        if twins:
            remedy = "the branches share layers, so none has a twin; train the network by itself "
            remedy += "in another run, with config.method.name='independent'"
            raise SettingError("twins", twins, remedy)
        if settings.get("second_forward"):
            remedy = "has no effect on branches, which have no losses on maps; leave it out"
            raise SettingError("second_forward", True, remedy)
    if teachers and own_augmentation and len(members) > 1:
        remedy = "a teacher sees one augmentation of a batch; leave it out, or train one network"
        raise SettingError("own_augmentation", own_augmentation, remedy)
    every = [*members, *beside(members, method, twins, averages)]
    every += [Network(name, m, (name,), role="teacher") for name, m in frozen.items()]
    nodes = Graph(tuple(node for network in every for node in _nodes(network, every)))
    graph = Graph(nodes.nodes, method.edges(nodes, shape), method.edge_labels)
    for name in frozen:
        if not any(source == name for source, _ in graph.edges):
            remedy = "teaches nobody in this graph; add an edge from it, or leave it out"
            raise SettingError("teachers", name, remedy)
    return Plan(
        networks={network.name: network for network in every},
        graph=graph,
        method=method,
        image_shape=image_shape,
        classes=classes,
        **settings,
    )


def require_teachers(method: Method, count: int, field: str, value: Any) -> None:
    """Raises SettingError, for a field and its value, unless a method takes so many teachers."""
    (least, most), name = method.teachers, type(method).__name__
    if count < least:
        remedy = f"{name} needs a frozen teacher: the folder of a finished run, or the name of a "
        raise SettingError(field, value, remedy + "network to train first")
    if most is not None and count > most:
        several = f"at most {most}" if most else "no"
        raise SettingError(field, value, f"{name} takes {several} frozen teachers")


def students(
    modules: Mapping[str, Any], method: Method, classes: int, own_augmentation: bool = False
) -> list[Network]:
    """The networks that train, as they are or in branches; no heads, no optimizers.

    Args:
      modules: as `functional` gives them, by name.
      method: which may cut them into branches.
      classes: number of classes.
      own_augmentation: as in `Plan`.

    Raises:
      SettingError: if a network cannot be branched, or several are to be.
    """
    found = []
    for start, (name, module) in enumerate(modules.items()):
        cut = method.branch(name, module.module, classes)
        if not isinstance(cut, Branched):
            found.append(Network(name, module, (name,), start=start))
            continue
        if len(modules) != 1:
            remedy = f"{type(method).__name__} branches one network; name one"
            raise SettingError("networks", tuple(modules), remedy)
        views = cut.branches if own_augmentation else 1
        found.append(Network(name, functional(cut), cut.nodes, views=views))
    return found


def beside(
    members: Sequence[Network], method: Method, twins: bool, averages: bool = False
) -> list[Network]:
    """Twins, averages and snapshots: copies that start as the students do."""
    wanted = [("twin", "{} alone")] if twins else []
    if averages or method.beside == "average":
        wanted.append(("average", "average of {}"))
    if method.beside == "snapshot":
        wanted.append(("snapshot", "last epoch of {}"))
    return [
        dataclasses.replace(
            network,
            name=words.format(network.name),
            nodes=tuple(words.format(node) for node in network.nodes),
            role=role,
            of=network.name,
        )
        for role, words in wanted
        for network in members
    ]


def _nodes(network: Network, every: Sequence[Network]) -> list[Node]:
    if network.of is not None:
        original = next(other for other in every if other.name == network.of)
        pairs = zip(network.nodes, original.nodes, strict=True)
        return [Node(node, network.role, of) for node, of in pairs]
    module = network.module.module
    count = module.branches if isinstance(module, Branched) else 1
    roles = [network.role] * count + ["ensemble"] * (len(network.nodes) - count)
    return [Node(node, role) for node, role in zip(network.nodes, roles, strict=True)]


def _with_heads(plan: Plan) -> dict[str, Network]:
    """The networks with what the method puts on top of their nodes."""
    outputs: dict[str, Outputs] = {}
    for network in plan.networks.values():
        outputs |= dict(zip(network.nodes, answers_of(plan, network), strict=True))

    def view(node: str) -> View:
        return View(node, plan.graph[node].role, outputs[node])

    def with_sources(node: str) -> View:
        sources = tuple(view(source) for source in plan.graph.sources(node))
        return dataclasses.replace(view(node), sources=sources)

    def heads(node: str) -> dict[str, Any]:
        if plan.graph[node].role not in ("student", "ensemble", "teacher"):
            return {}
        connected = tuple(with_sources(other) for other in plan.graph.connected(node))
        own = dataclasses.replace(with_sources(node), connected=connected)
        return {name: functional(m, f"head {name}") for name, m in plan.method.heads(own).items()}

    return {
        name: dataclasses.replace(
            network, heads={node: own for node in network.nodes if (own := heads(node))}
        )
        for name, network in plan.networks.items()
    }


def _require_half_precision(plan: Plan) -> None:
    for network in plan.networks.values() if plan.precision == "bfloat16" else ():
        module = getattr(network.module.module, "network", network.module.module)  # of branches
        if not network.frozen and not isinstance(module, StagedNetwork):
            remedy = f"{network.name} is no networks.staged.StagedNetwork, whose convolutions "
            remedy += "follow it; set the type in the network itself"
            raise SettingError("precision", plan.precision, remedy)


def _with_optimizers(plan: Plan, optimizers: Mapping[str, optax.GradientTransformation]) -> Plan:
    for network in plan.networks.values():
        if isinstance(network.module.module, Branched):  # each branch must be usable by itself
            params = state_shapes(plan).networks[network.name].params["network"]
            single(network.module.module, {"params": params}, 0)
    networks, trains = {}, who_trains_what(plan)
    for name, network in plan.networks.items():
        for update in trains[name]:
            if update not in optimizers:
                remedy = f"the method updates {name} by its {update} loss; give that optimizer too"
                raise SettingError("optimizers", sorted(optimizers), remedy)
        own = {update: only(optimizers[update], mask) for update, mask in trains[name].items()}
        networks[name] = dataclasses.replace(network, optimizers=own, trains=trains[name])
    if plan.second_forward and not any("feature" in own for own in trains.values()):
        remedy = "has no effect, for the method has no feature losses; leave it out"
        raise SettingError("second_forward", plan.second_forward, remedy)
    return dataclasses.replace(plan, networks=networks)


def numbered(names: Sequence[str]) -> list[str]:
    """Names for networks, each its own; of "package.module:Class" the class.

    >>> numbered(["resnet8", "own.nets:Tiny", "resnet8"])
    ['resnet8', 'Tiny', 'resnet8_1']
    """
    found: list[str] = []
    for name in names:
        short, count = name.rpartition(":")[2], 0
        own = short
        while own in found:
            count += 1
            own = f"{short}_{count}"
        found.append(own)
    return found
