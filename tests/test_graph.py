import pytest

from afd_jax.errors import SettingError
from afd_jax.graph import Graph, all_pairs, cyclic_pairs, make_graph, star


@pytest.mark.parametrize("count", [2, 3, 5])
def test_cycle_visits_everybody_once(count):
    edges = cyclic_pairs(count)
    assert edges[0] == (0, 1) and edges[-1] == (count - 1, 0)
    node = 0
    for _ in range(count):
        node = dict(edges)[node]
    assert node == 0 and len(set(edges)) == count


def test_papers_three_networks():
    """AFD, K = 3: D1 takes map 3 for real, D2 map 1, D3 map 2."""
    graph = Graph(3, cyclic_pairs(3))
    assert [graph.sources(k) for k in range(3)] == [(2,), (0,), (1,)]


def test_other_shapes():
    assert len(all_pairs(4)) == 12 and Graph(4, all_pairs(4)).sources(2) == (0, 1, 3)
    assert star(4, center=1) == ((0, 1), (2, 1), (3, 1))
    assert make_graph("cyclic", 2) == Graph(2, ((0, 1), (1, 0)))
    assert make_graph([[0, 1]], 3) == Graph(3, ((0, 1),))
    assert make_graph("none", 1) == Graph(1, ())


def test_drawings():
    graph = Graph(3, ((0, 1),))
    assert graph.text(["a", "b", "c"]).splitlines() == ["0 a -> 1 b", "2 c (outside the graph)"]
    assert graph.mermaid(["a", "b", "c"]).splitlines() == [
        "graph LR",
        '  n0["0: a"]',
        '  n1["1: b"]',
        '  n2["2: c"]',
        "  n0 --> n1",
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cyclic_pairs(1), "count = 1.*at least 2"),
        (lambda: cyclic_pairs(2.0), "count = 2.0"),
        (lambda: all_pairs(0), "count = 0"),
        (lambda: star(3, center=3), "center = 3.*0 to 2"),
        (lambda: Graph(2, ((1, 1),)), r"\(1, 1\).*its own source"),
        (lambda: Graph(2, ((0, 2),)), r"\(0, 2\).*node 2 does not exist; nodes are 0 to 1"),
        (lambda: Graph(2, ((0, -1),)), "node -1 does not exist"),
        (lambda: Graph(2, ((0, 1), (0, 1))), "stands twice"),
        (lambda: Graph(2, ((0, 1, 2),)), r"must be \(source, target\)"),
        (lambda: Graph(2, ("01",)), r"must be \(source, target\)"),
        (lambda: make_graph([[0, "x"]], 2), r"must be \(source, target\)"),
        (lambda: make_graph("cycle", 2), "did you mean 'cyclic'"),
    ],
)
def test_bad_graphs_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
