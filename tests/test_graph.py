"""The loss graph: names, roles and shapes."""

import pytest

from afd_jax.errors import SettingError
from afd_jax.graph import Graph, Node, all_pairs, cyclic_pairs, make_edges, star

ROLES = Graph(
    (
        Node("a"),
        Node("b"),
        Node("e", "ensemble"),
        Node("a alone", "twin", "a"),
        Node("average of a", "average", "a"),
        Node("last epoch of b", "snapshot", "b"),
        Node("teacher", "teacher"),
    ),
    (("teacher", "a"), ("average of a", "a"), ("e", "b"), ("b", "e")),
)


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
def test_cycle_visits_everybody_once(names):
    edges = cyclic_pairs(names)
    assert edges[0] == (names[0], names[1]) and edges[-1] == (names[-1], names[0])
    node = names[0]
    for _ in names:
        node = dict(edges)[node]
    assert node == names[0] and len(set(edges)) == len(names)


def test_papers_three_networks():
    """AFD, K = 3: D1 takes map 3 for real, D2 map 1, D3 map 2."""
    graph = Graph.of("123", cyclic_pairs("123"))
    assert [graph.sources(k) for k in "123"] == [("3",), ("1",), ("2",)]


def test_other_shapes():
    pairs = all_pairs("abcd")
    assert len(pairs) == 12 and Graph.of("abcd", pairs).sources("c") == ("a", "b", "d")
    assert star("cab") == (("a", "c"), ("b", "c"))
    assert make_edges("cyclic", "ab") == (("a", "b"), ("b", "a"))
    assert make_edges("star", "abc") == (("b", "a"), ("c", "a"))
    assert make_edges([["a", "b"]], "abc", "t") == (("a", "b"),)  # by name, they stand alone
    assert make_edges("(('a', 'b'), ('b', 'a'))", "ab") == (("a", "b"), ("b", "a"))
    assert make_edges("none", "a") == ()


def test_every_teacher_teaches_every_student_whatever_their_shape():
    offline = (("t", "a"), ("t", "b"), ("u", "a"), ("u", "b"))
    assert make_edges("none", "ab", "tu") == offline
    assert make_edges("cyclic", "ab", "tu") == (("a", "b"), ("b", "a"), *offline)


def test_nodes_by_role():
    assert ROLES.students == ("a", "b") and ROLES.learners == ("a", "b", "e")
    assert ROLES.teachers == ("teacher",) and ROLES.with_role("twin") == ("a alone",)
    assert ROLES.beside("a", "average") == "average of a" and ROLES.beside("b", "average") is None
    assert ROLES.beside("a", "twin") == "a alone" and ROLES["a alone"].of == "a"
    assert ROLES.sources("a") == ("teacher", "average of a") and ROLES.sources("e") == ("b",)
    assert ROLES.connected("b") == ("b", "e")
    assert ROLES.connected("a") == ("a", "average of a", "teacher")
    assert ROLES.connected("a alone") == ("a alone",)


def test_drawings():
    assert str(ROLES).splitlines() == [
        "teacher -> a",
        "average of a -> a",
        "e -> b",
        "b -> e",
        "a alone (twin)",
        "last epoch of b (snapshot)",
    ]
    graph = Graph.of(["a", "b", "c < d"], (("a", "b"),))
    assert graph.mermaid().splitlines() == [
        "graph LR",
        '  n0["a"]',
        '  n1["b"]',
        '  n2["c < d"]',
        "  n0 --> n1",
    ]
    picture = graph._repr_svg_()
    assert picture.count("<rect") == 3 and picture.count("marker-end") == 1
    assert "c &lt; d" in picture
    assert '  n0["#quot;a#quot;"]' in Graph.of(['"a"', "b"], ()).mermaid().splitlines()


AB = (Node("a"), Node("b"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cyclic_pairs("a"), r"networks = \('a',\): .*at least two networks; name more"),
        (lambda: all_pairs(""), r"networks = \(\): "),
        (lambda: star("a"), r"networks = \('a',\): "),
        (lambda: Graph(AB, (("b", "b"),)), r"\('b', 'b'\): .*its own source"),
        (lambda: Graph(AB, (("a", "c"),)), r"\('a', 'c'\): there is no node 'c'; nodes are a, b"),
        (lambda: Graph(AB, (("a", "b"), ("a", "b"))), "is given twice"),
        (lambda: Graph(AB, (("a", "b", "a"),)), r"must be \('source', 'target'\)"),
        (lambda: Graph(AB, ("ab",)), r"must be \('source', 'target'\)"),
        (lambda: Graph(AB, make_edges([[0, "b"]], "ab")), r"must be \('source', 'target'\)"),
        (lambda: Graph((*AB, Node("a"))), "graph = 'a': two nodes have this name"),
        (lambda: Graph((Node("a", "techer"),)), "role = 'techer': did you mean 'teacher'"),
        (
            lambda: Graph((Node("a"), Node("t", "teacher")), (("a", "t"),)),
            r"\('a', 't'\): t is a teacher \(frozen\), which learns from nobody",
        ),
        (
            lambda: Graph((Node("a"), Node("w", "twin", "a")), (("a", "w"),)),
            r"w is a twin \(.*\), which learns from nobody",
        ),
        (lambda: make_edges("cycle", "ab"), "graph = 'cycle': did you mean 'cyclic'"),
        (lambda: make_edges("(('a', 'b')", "ab"), r"edges are written \(\('source', 'target'\)"),
        (lambda: make_edges("cyclic", "a"), r"networks = .*at least two"),
    ],
)
def test_bad_graphs_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
