"""What a server can be asked to be, and what is said of what makes no sense."""

import re

import pytest

from lab.errors import UsageError
from lab.machine import available_cpus
from lab.servers import ServerSpec, serve


def test_workers_default_to_the_cpus_available_here() -> None:
    assert ServerSpec().workers == available_cpus()
    assert ServerSpec(topology="single").workers == 1
    assert ServerSpec(workers=3).count == 3


@pytest.mark.parametrize("dispatch", ["shared", "reuseport", "round-robin"])
def test_connections_are_kept_unless_dispatch_needs_one_for_each_request(dispatch: str) -> None:
    assert ServerSpec(dispatch=dispatch).keepalive is True
    assert ServerSpec(dispatch="least-busy").keepalive is False
    assert ServerSpec(topology="offload", dispatch="least-busy").keepalive is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology": "star"}, "unknown topology 'star': choose one of single, cluster, offload"),
        (
            {"dispatch": "random"},
            "unknown dispatch 'random': choose one of shared, reuseport, round-robin, least-busy",
        ),
        ({"kernel": "rust"}, "unknown kernel 'rust': choose one of python, numpy, numba"),
        ({"pool": "fibre"}, "unknown pool 'fibre': choose one of process, thread"),
        ({"workers": 0}, "workers is at least 1, not 0"),
        ({"workers": -2}, "workers is at least 1, not -2"),
        ({"workers": 1.5}, "workers is a whole number, not 1.5"),
        ({"workers": True}, "workers is a whole number, not True"),
        ({"workers": "2"}, "workers is a whole number, not '2'"),
        ({"iterations": -1}, "iterations is at least 0, not -1"),
        ({"port": 65536}, "port is from 0 to 65535, not 65536"),
        ({"port": -1}, "port is from 0 to 65535, not -1"),
        ({"host": ""}, "host is a name or an address to listen on, not ''"),
        ({"recycle_after": 0}, "recycle_after is at least 1, not 0"),
        ({"hang_timeout_s": 0}, "hang_timeout_s is above 0 and finite, not 0"),
        ({"hang_timeout_s": float("nan")}, "hang_timeout_s is above 0 and finite, not nan"),
        ({"drain_s": -1}, "drain_s is at least 0 and finite, not -1"),
        ({"start_timeout_s": "soon"}, "start_timeout_s is a number of seconds, not 'soon'"),
        (
            {"topology": "single", "workers": 2},
            "a single server has one worker, not 2: use topology 'cluster'",
        ),
        (
            {"topology": "offload", "recycle_after": 5},
            "recycle_after is for the workers of a cluster: leave it out for offload",
        ),
        (
            {"topology": "offload", "hang_timeout_s": 5},
            "hang_timeout_s watches event loops, and no pool: leave it out for offload",
        ),
        (
            {"dispatch": "least-busy", "keepalive": True},
            "least-busy needs one request per connection: leave keepalive out, or False",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        serve(**{"topology": "cluster", **options})  # type: ignore[arg-type]


def test_a_misspelt_option_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"^a server has no option worker: it has topology, workers, dispatch, "
    ):
        serve(worker=2)


@pytest.mark.parametrize("option", [{"pin": True}, {"dispatch": "reuseport"}])
def test_what_only_linux_has_is_refused_elsewhere(
    option: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="works on Linux only: leave it out here"):
        ServerSpec(**option)  # type: ignore[arg-type]
