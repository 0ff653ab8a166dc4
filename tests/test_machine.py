"""Machines: what is read from /proc and /sys, and what noise is."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lab.errors import UsageError
from lab.machine import Machine, checked_label, describe
from lab.study.stability import Noise, Snapshot, between, snapshot

X86 = "processor\t: 0\nmodel name\t: Fast CPU 9000\nflags\t\t: fpu{}\n\nprocessor\t: 1\nmodel name\t: other\n"
GUEST = X86.format(" hypervisor")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "virtualisation"),
    [
        ({"proc/cpuinfo": X86.format("")}, "none"),
        ({"proc/cpuinfo": GUEST}, "unnamed hypervisor"),
        ({"proc/cpuinfo": X86.format(""), "sys/class/dmi/id/sys_vendor": "Google\n"}, "none"),
        ({"proc/cpuinfo": GUEST, "sys/class/dmi/id/sys_vendor": "QEMU\n"}, "qemu"),
        ({"proc/cpuinfo": GUEST, "sys/class/dmi/id/sys_vendor": "Amazon EC2\n"}, "amazon"),
        (
            {
                "proc/cpuinfo": GUEST,
                "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
                "sys/class/dmi/id/product_name": "Virtual Machine\n",
            },
            "hyper-v",
        ),
        ({"proc/cpuinfo": GUEST, "sys/hypervisor/type": "xen\n"}, "xen"),
        ({"proc/cpuinfo": GUEST, "proc/sys/kernel/osrelease": "5.15-microsoft-standard"}, "wsl"),
        ({"proc/cpuinfo": "processor : 0\nFeatures : fp asimd\n"}, "none"),
        ({"proc/cpuinfo": "Features : fp\n", "sys/class/dmi/id/sys_vendor": "QEMU\n"}, "qemu"),
    ],
)
def test_the_hypervisor_is_named(tmp_path: Path, files: dict[str, str], virtualisation: str) -> None:
    assert describe(tree(tmp_path, files)).virtualisation == virtualisation


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({}, "none"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, "none"),
        ({"proc/1/cgroup": "4:cpu:/docker/0123\n"}, "docker"),
        ({"proc/1/cgroup": "0::/kubepods/besteffort/docker-1\n"}, "kubernetes"),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
    ],
)
def test_the_container_is_named(tmp_path: Path, files: dict[str, str], container: str) -> None:
    assert describe(tree(tmp_path, files)).container == container


def test_the_cpu_its_governor_and_its_quota_are_read(tmp_path: Path) -> None:
    machine = describe(
        tree(
            tmp_path,
            {
                "proc/cpuinfo": GUEST,
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
            },
        )
    )
    assert (machine.cpu_model, machine.governor) == ("Fast CPU 9000", "powersave")
    assert (machine.quota_cpus, machine.available_cpus) == (0.5, 1)


def test_a_board_without_a_model_name_is_known_by_its_device_tree(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": "processor : 0\n", "sys/firmware/devicetree/base/model": "Small Board 4\0"}
    assert describe(tree(tmp_path, files)).cpu_model == "Small Board 4"


def test_this_machine_can_be_described_and_read_back() -> None:
    machine = describe()
    assert Machine.model_validate_json(machine.model_dump_json()) == machine
    assert 1 <= machine.available_cpus <= machine.host_cpus
    assert machine.memory_bytes > 2**20


@pytest.mark.parametrize("label", ["", "rack-3", "Büro (2. Stock)", "a" * 40, "web:1 @home"])
def test_a_machine_may_have_a_name_and_is_the_same_machine_without(label: str) -> None:
    machine, nameless = describe(label=label), describe()
    assert Machine.model_validate_json(machine.model_dump_json()).label == label
    assert str(machine) == (f"{label} ({nameless})" if label else str(nameless))


@pytest.mark.parametrize(
    "label", [" ", "a" * 41, "two\nlines", "\x1b[31m", "<b>", "a|b", "`x`", "-x", "\u202ex", "x "]
)
def test_a_name_that_is_long_or_more_than_text_is_refused(label: str) -> None:
    with pytest.raises(UsageError, match="at most 40 letters") as caught:
        checked_label(label)
    assert "\n" not in str(caught.value)
    kept = describe().model_dump() | {"label": label}
    with pytest.raises(ValidationError, match="at most 40 letters"):
        Machine.model_validate(kept)


def test_what_was_kept_before_machines_had_names_still_reads() -> None:
    kept = describe().model_dump()
    del kept["label"]
    assert Machine.model_validate(kept) == describe()


def at(
    *, total_s: float, idle_s: float, stolen_s: float, own_s: float, wall_s: float, stalled_s: float | None
) -> Snapshot:
    return Snapshot(total_s, idle_s, stolen_s, own_s, wall_s, stalled_s, load1=0.5)


def test_noise_is_what_others_took() -> None:
    before = at(total_s=100, idle_s=60, stolen_s=1, own_s=5, wall_s=50, stalled_s=2)
    after = at(total_s=120, idle_s=64, stolen_s=2, own_s=17, wall_s=60, stalled_s=5)
    # 20 CPU seconds: 4 idle, 1 stolen, so 15 busy, of which 12 are ours; something waited in 3 of 10 seconds.
    # The counters' resolution takes .05 s off what is left for others.
    noise = between(before, after)
    assert noise.others_cpu == pytest.approx(2.95 / 20)
    assert (noise.steal, noise.cpu_pressure, noise.load1) == (0.05, 0.3, 0.5)


def test_clocks_that_tick_apart_leave_shares_within_0_and_1() -> None:
    before = at(total_s=10, idle_s=5, stolen_s=0, own_s=0, wall_s=5, stalled_s=None)
    after = at(total_s=12, idle_s=5, stolen_s=0, own_s=2.01, wall_s=6, stalled_s=None)
    assert between(before, after) == Noise(steal=0, others_cpu=0, cpu_pressure=None, load1=0.5)


@pytest.mark.parametrize(
    ("pressure", "stalled_s"),
    [
        ("some avg10=0.00 avg60=0.04 avg300=0.20 total=8463364\nfull avg10=0.00 total=7\n", 8.463364),
        ("", None),
        ("some nonsense\n", None),
        (None, None),
    ],
)
def test_pressure_is_read_where_the_kernel_has_it(
    tmp_path: Path, pressure: str | None, stalled_s: float | None
) -> None:
    root = tree(tmp_path, {} if pressure is None else {"proc/pressure/cpu": pressure})
    assert snapshot(root).stalled_s == stalled_s


def test_counters_only_grow() -> None:
    before, after = snapshot(), snapshot()
    assert after.total_s >= before.total_s
    assert after.own_s >= before.own_s
    assert after.idle_s <= after.total_s
