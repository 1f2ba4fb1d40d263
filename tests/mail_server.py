"""A small mail server for tests, in threads: what RFC 5321, 3207 (STARTTLS) and 4954 (AUTH PLAIN) need of one."""

import base64
import email
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message


class MailServer(socketserver.ThreadingTCPServer):
    """``codes``: how the next mails are answered; then 250. ``tls``: STARTTLS and then ``user`` are asked for."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None, user: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.tls = tls
        self.user = user
        self.codes: list[str] = []
        self.mails: list[Message] = []
        self.recipients: list[list[str]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def setup(self) -> None:
        super().setup()
        self._recipients: list[str] = []
        self._secure = self.server.tls is None
        self._known = self.server.user is None

    def handle(self) -> None:
        try:
            self._talk()
        except OSError:
            return  # the client is gone, or trusts nobody here
        finally:
            self.rfile.close()
            self.connection.close()

    def finish(self) -> None:
        """Nothing: `handle` has closed what there was."""

    def _talk(self) -> None:
        self._say("220 ready")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    self._say("250-hello", "250 STARTTLS" if not self._secure else "250 AUTH PLAIN")
                case "STARTTLS" if self.server.tls is not None:
                    self._say("220 go on")
                    self.request = self.connection = self.server.tls.wrap_socket(self.request, server_side=True)
                    self.rfile = self.connection.makefile("rb")
                    self._secure = True
                case "AUTH" if self._secure:
                    self._authenticate(rest.removeprefix("PLAIN "))
                case "QUIT":
                    self._say("221 bye")
                    return
                case _ if not (self._secure and self._known):
                    self._say("530 not like this")
                case "RCPT":
                    self._recipients.append(rest.partition(":")[2].strip("<>"))
                    self._say("250 yes")
                case "DATA":
                    self._say("354 go on")
                    self._take()
                case _:
                    self._say("250 yes")

    def _authenticate(self, encoded: str) -> None:
        _, user, password = base64.b64decode(encoded).decode().split("\0")
        self._known = (user, password) == self.server.user
        self._say("235 welcome" if self._known else "535 who are you")

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line)
        if self.server.codes:
            self._say(self.server.codes.pop(0))
            return
        self.server.recipients.append(self._recipients)
        self.server.mails.append(email.message_from_bytes(b"".join(lines)))
        self._say("250 taken")

    def _say(self, *lines: str) -> None:
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())


@contextmanager
def serving(tls: ssl.SSLContext | None = None, user: tuple[str, str] | None = None) -> Iterator[MailServer]:
    with MailServer(tls, user) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
