import socket

import pytest

from raydom.cluster import stopping


@pytest.mark.parametrize(
    ("told_alive", "listens", "is_alive"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_node_is_alive_when_the_head_says_so_and_it_can_be_reached(monkeypatch, told_alive, listens, is_alive):
    with socket.socket() as raylet:
        raylet.bind(("127.0.0.1", 0))
        if listens:
            raylet.listen()
        entry = {"NodeID": "n", "Alive": told_alive, "NodeManagerAddress": "127.0.0.1"}
        port = raylet.getsockname()[1]
        monkeypatch.setattr(stopping.ray, "nodes", lambda: [entry | {"NodeManagerPort": port}])
        assert stopping.node_is_alive("n") is is_alive
        assert not stopping.node_is_alive("another")
