"""Which local servers answer, seen with real sockets."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from proxy.config.listening import ANSWER_S, WAIT_S, accepting, listening, lists_models, usual_ports
from proxy.terms import ProviderId
from tests.stopwatch import Stopwatch

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
            watch = Stopwatch.patient()
            accepting({OLLAMA: full.getsockname()[1]})
            assert watch.spent_s < WAIT_S + 0.4


def test_this_machine_can_be_asked() -> None:
    assert listening({}) <= set(usual_ports({}))


class Answering(BaseHTTPRequestHandler):
    """Answers every GET with the server's own status and body."""

    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined] # set by the test
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"object":"list","data":[{"id":"llama3.2:3b"}]}', True),
        (200, b'{"object":"list","data":null}', True),  # Ollama without a model
        (401, b'{"error":{"message":"no key"}}', True),  # vLLM with --api-key
        (200, b"<html>some other program</html>", False),
        (404, b'{"detail":"Not Found"}', False),
        (200, b"[]", False),
    ],
)
def test_only_what_lists_models_is_taken_for_a_model_server(status: int, body: bytes, found: bool) -> None:
    with ThreadingHTTPServer(("localhost", 0), Answering) as server:
        server.answer = (status, body)  # type: ignore[attr-defined] # read by the handler
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert lists_models(server.server_address[1]) is found
        server.shutdown()
        thread.join()


def test_a_port_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch = Stopwatch.patient()
        assert not lists_models(server.getsockname()[1])
        assert watch.spent_s < ANSWER_S + 0.5
