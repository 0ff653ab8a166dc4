"""A notebook cell that is run again: in a real kernel, spoken to as JupyterLab and as papermill do."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.clients import PATIENCE_S, gone
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from lab.servers import sockets

CELL = """
import json
from lab.servers import serve
server = serve(workers=1, iterations=1000, port=PORT)
print(json.dumps([server.pid, *server.workers]))
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[BlockingKernelClient]:
    """A kernel on private sockets, killed at the end."""
    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=str(tmp_path / "k.json"))
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def run(kernel: BlockingKernelClient, code: str, cell: str | None) -> str:
    """Run a cell, with its id if there is one, and return what it prints."""
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    request = kernel.session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
    kernel.shell_channel.send(request)
    output = ""
    while True:
        message = kernel.get_iopub_msg(timeout=PATIENCE_S)
        if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
            continue
        kind, said = message["msg_type"], message["content"]
        assert kind != "error", said
        if kind == "stream":
            output += said["text"]
        if kind == "status" and said["execution_state"] == "idle":
            return output


@pytest.mark.parametrize("cell", [None, "a-cell"], ids=["known-by-its-code", "known-by-its-id"])
def test_a_cell_run_again_stops_what_it_started_and_has_the_same_port(
    kernel: BlockingKernelClient, cell: str | None
) -> None:
    with sockets.listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    code = CELL.replace("PORT", str(port))
    first = json.loads(run(kernel, code, cell))
    other = json.loads(run(kernel, CELL.replace("PORT", "0"), "another"))
    second = json.loads(run(kernel, code + "# edited" * bool(cell), cell))
    assert all(gone(pid) for pid in first)
    assert not any(gone(pid) for pid in [*other, *second])
    with socket.create_connection(("127.0.0.1", port)):
        pass


def test_one_run_of_a_cell_may_start_several(kernel: BlockingKernelClient) -> None:
    code = CELL.replace("PORT", "0") * 2
    first, second = run(kernel, code, "a-cell").splitlines()
    assert not any(gone(pid) for pid in json.loads(first) + json.loads(second))
