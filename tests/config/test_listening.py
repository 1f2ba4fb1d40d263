"""Which local servers answer, seen with real sockets."""

import socket
import time

from proxy.config.listening import WAIT_S, accepting, listening, usual_ports
from proxy.terms import ProviderId

OLLAMA, VLLM = ProviderId("ollama"), ProviderId("vllm")


def test_the_usual_ports_are_those_of_the_catalogue() -> None:
    assert usual_ports({}) == {"ollama": 11434, "vllm": 8000, "llama.cpp": 8080, "lmstudio": 1234}


def test_a_server_that_the_environment_moves_is_not_looked_for() -> None:
    assert "ollama" not in usual_ports({"OLLAMA_URL": "http://gpu:11434"})


def test_an_open_port_answers_and_a_closed_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {OLLAMA: server.getsockname()[1], VLLM: closed.getsockname()[1]}
        assert accepting(ports) == {"ollama"}


def test_a_port_that_does_not_answer_costs_a_bounded_wait() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()), socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())  # the backlog is full: a further connection waits
            began = time.monotonic()
            accepting({OLLAMA: full.getsockname()[1]})
            assert time.monotonic() - began < WAIT_S + 0.4


def test_this_machine_can_be_asked() -> None:
    assert listening({}) <= set(usual_ports({}))
