"""What a server can be asked to be, and what is said of what makes no sense."""

import re

import pytest

from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.servers import ServerSpec, serve
from lab.servers.spec import MOST_WORKERS_PER_CPU, DispatchName


def test_workers_default_to_the_cpus_available_here() -> None:
    assert ServerSpec().workers == available_cpus()
    assert ServerSpec(topology="single").workers == 1
    assert ServerSpec(workers=3).count == 3


@pytest.mark.parametrize("dispatch", ["shared", "reuseport", "round-robin"])
def test_connections_are_kept_unless_dispatch_needs_one_for_each_request(dispatch: DispatchName) -> None:
    assert ServerSpec(dispatch=dispatch).keepalive is True
    assert ServerSpec(dispatch="least-busy").keepalive is False
    assert ServerSpec(topology="offload", dispatch="least-busy").keepalive is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology": "star"}, "topology must be 'single', 'cluster' or 'offload', got 'star'"),
        (
            {"dispatch": "random"},
            "dispatch must be 'shared', 'reuseport', 'round-robin' or 'least-busy', got 'random'",
        ),
        ({"kernel": "rust"}, "kernel must be 'python', 'numpy', 'numba' or 'sleep', got 'rust'"),
        ({"pool": "fibre"}, "pool must be 'process' or 'thread', got 'fibre'"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"workers": 1.5}, "workers must be a whole number, got 1.5"),
        ({"workers": True}, "workers must be a number, got True"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"iterations": 2**63}, "iterations must be at most 9.22337e+18, got 9223372036854775808"),
        ({"port": 65536}, "port must be at most 65535, got 65536"),
        ({"port": -1}, "port must be at least 0, got -1"),
        ({"host": ""}, "host must not be empty, got ''"),
        ({"recycle_after": 0}, "recycle_after must be at least 1, got 0"),
        ({"hang_timeout_s": 0}, "hang_timeout_s must be above 0, got 0"),
        ({"drain_s": -1}, "drain_s must be at least 0, got -1"),
        ({"drain_s": 1e300}, "drain_s must be at most 86400, got 1e+300"),
        ({"hang_timeout_s": 1e300}, "hang_timeout_s must be at most 86400, got 1e+300"),
        ({"start_timeout_s": float("inf")}, "start_timeout_s must be finite, got inf"),
        ({"start_timeout_s": "soon"}, "start_timeout_s must be a number, got 'soon'"),
        (
            {"topology": "single", "workers": 2},
            "a single server has one worker, got 2: use topology 'cluster'",
        ),
        (
            {"topology": "offload", "recycle_after": 5},
            "recycle_after is for the workers of a cluster: leave it out for offload",
        ),
        (
            {"topology": "offload", "hang_timeout_s": 5},
            "hang_timeout_s watches event loops, not pools: leave it out for offload",
        ),
        ({"dispatch": "least-busy", "bound": 0}, "bound must be at least 1, got 0"),
        ({"dispatch": "shared", "bound": 2}, "bound is for dispatch least-busy: leave it out for others"),
        (
            {"dispatch": "least-busy", "keepalive": True},
            "least-busy needs one request per connection: leave keepalive out or False",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        serve(**{"topology": "cluster", **options})  # type: ignore[arg-type]


def test_a_misspelt_option_is_named() -> None:
    with pytest.raises(UsageError, match=r"^there is no worker: did you mean workers\?$"):
        serve(worker=2)


def test_more_workers_than_make_sense_are_refused_unless_told() -> None:
    too_many = MOST_WORKERS_PER_CPU * available_cpus() + 1
    with pytest.raises(UsageError, match=f"workers must be at most {too_many - 1} here.*got {too_many}"):
        ServerSpec(workers=too_many)
    assert ServerSpec(workers=too_many, unlimited=True).count == too_many


@pytest.mark.parametrize("option", [{"pin": True}, {"dispatch": "reuseport"}])
def test_what_only_linux_has_is_refused_elsewhere(
    option: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="works on Linux only: leave it out here"):
        ServerSpec(**option)  # type: ignore[arg-type]
