"""A server like gunicorn's sync workers, from the standard library: processes that accept from one socket."""

import os
import sys
from importlib import import_module
from wsgiref.simple_server import WSGIServer, make_server


class _Backlog(WSGIServer):
    request_queue_size = 1024


if __name__ == "__main__":
    host, port, workers = sys.argv[1:]
    application = import_module("apps").wsgi  # found beside this file
    server = make_server(host, int(port), application, server_class=_Backlog)
    for _ in range(int(workers)):
        if os.fork() == 0:
            server.serve_forever()
    os.wait()
