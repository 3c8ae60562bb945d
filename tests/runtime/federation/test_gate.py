"""Who may ask a SuperLink or SuperNode for what, over real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from learngene.errors import InputError
from runtime.federation import gate
from runtime.federation.__main__ import main
from runtime.federation.gate import FLEET, HEALTH, SOCKETS, Gate, owner

pytestmark = pytest.mark.skipif(not SOCKETS[0].exists(), reason="/proc/net/tcp is Linux's")


@contextmanager
def served(host: str = "127.0.0.1", **options: Any) -> Iterator[str]:
    """A server behind the gate; gives its address."""

    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse("answered")

    app = Starlette(routes=[Route("/{path:path}", answer)])
    app.add_middleware(Gate, open=(FLEET, HEALTH), **options)
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.bind((host, 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", forwarded_allow_ips=""))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield str(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def codes(host: str, port: str, **more: Any) -> dict[str, int]:
    paths = ("/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/pull-messages")
    with httpx.Client(trust_env=False) as client:
        return {
            path.split("/")[2]: client.get(f"http://{host}:{port}{path}", **more).status_code
            for path in paths
        }


ALL = {"control": 200, "runtime": 200, "fleet": 200}
NODES = {"control": 403, "runtime": 403, "fleet": 200}


def own_address() -> str:
    """An address of this machine that other machines would use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        try:
            some.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(some.getsockname()[0])


def test_this_user_may_all() -> None:
    with served() as port:
        assert codes("127.0.0.1", port) == ALL


@pytest.mark.skipif(os.getuid() == 0, reason="root may all: the next test asks as another user")
def test_another_user_of_this_machine_reaches_what_is_signed() -> None:
    with served(user=os.getuid() + 1) as port:
        assert codes("127.0.0.1", port) == NODES


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused() -> None:
    with served() as port:
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.setuid(65534)
            with socket.create_connection(("127.0.0.1", int(port))) as peer:
                peer.sendall(b"GET /v1/control/start-run HTTP/1.1\r\nHost: x\r\n\r\n")
                os.write(write, peer.recv(12))
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 12) == b"HTTP/1.1 403"


def test_a_header_says_nothing_of_who_asks() -> None:
    with served() as port:
        assert codes("127.0.0.1", port, headers={"X-Forwarded-For": "10.0.0.1"}) == ALL


def test_the_own_address_is_this_machine_and_another_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = own_address()
    with served("0.0.0.0") as port:
        assert codes(here, port) == ALL  # a SuperLink's own programs call it so
        monkeypatch.setattr(Gate, "__call__", as_if_from(Gate.__call__, "192.0.2.55"))
        assert codes(here, port) == NODES


def as_if_from(call: Any, host: str) -> Any:
    async def called(self: Gate, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["client"] = (host, scope["client"][1])
        await call(self, scope, receive, send)

    return called


def test_a_socket_that_is_closed_has_no_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        mine, there = peer.getsockname(), server.getsockname()
        pair = (ip_address(mine[0]), mine[1]), (ip_address(there[0]), there[1])
        assert owner(*pair) == os.getuid()
        peer.close()
        assert owner(*pair) is None


def test_a_superlink_that_would_take_anybody_for_a_node_does_not_start(monkeypatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(gate, "_run", lambda name, main, arguments: started.append(arguments))
    monkeypatch.setattr("flwr.superlink.main.create_app", lambda: None)  # as it was, afterwards
    with pytest.raises(InputError, match=r"could be a node\. Add --enable-supernode-auth"):
        gate.run_superlink(["--host", "0.0.0.0"])
    monkeypatch.setattr("sys.argv", ["federation", "superlink", "--host", "0.0.0.0"])
    assert main() == 2 and started == []
    for flag in ("--enable-supernode-auth", "--simulation", "--help"):
        gate.run_superlink([flag])
    assert [flag for (flag,) in started] == ["--enable-supernode-auth", "--simulation", "--help"]


def test_a_supernode_whose_images_are_not_there_does_not_start(monkeypatch, tmp_path) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(gate, "_run", lambda name, main, arguments: started.append(arguments))
    monkeypatch.setattr("flwr.supernode.main.create_app", lambda: None)  # as it was, afterwards
    config = f'partition-id=0 data-root="{tmp_path}"'
    for wrong, said in {
        f'data-root="{tmp_path}/none"': "data-root=.*/none: there is no such folder. Name one",
        config.replace("data-root", "dataroot"): "there is no such key. Write data-root",
        "data-root=/their/images": "Flower cannot read this. Write words in quotes",
    }.items():
        with pytest.raises(InputError, match=said):
            gate.run_supernode(["--insecure", "--node-config", wrong])
    for due in (["--help"], ["--node-config", config], [f"--node-config={config}"]):
        gate.run_supernode(due)
    assert len(started) == 3


def test_ipv6() -> None:
    try:
        with served("::1") as port:
            assert codes("[::1]", port) == ALL
    except OSError:
        pytest.skip("no IPv6 here")
