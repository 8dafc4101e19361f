import threading
import time

import pytest

from spec_store.stores.streaming import ordered_map, usable_cores


def test_results_come_in_order_whatever_the_threads_do():
    def slow_when_even(x):
        time.sleep(0.002 * (x % 2 == 0))
        return x

    assert list(ordered_map(slow_when_even, range(50), workers=4)) == list(range(50))


def test_no_more_items_are_held_than_workers_and_one():
    taken, done = [], []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    for x in ordered_map(lambda x: x, items(), workers=2, ahead=1):
        done.append(x)
        assert len(taken) - len(done) <= 3


def test_the_first_error_ends_it_and_no_thread_is_left():
    before = threading.active_count()

    def fail_at_five(x):
        if x == 5:
            raise ValueError("five")
        return x

    seen = []
    with pytest.raises(ValueError, match="five"):
        seen.extend(ordered_map(fail_at_five, range(100)))
    assert threading.active_count() == before


def test_an_error_of_the_items_comes_through():
    def items():
        yield 1
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        list(ordered_map(lambda x: x, items()))


def test_stopping_early_leaves_no_thread():
    before = threading.active_count()
    stream = ordered_map(lambda x: x, range(1000))
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before


def fake_root(folder, cgroup, **files):
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 2),
        ("0::/a/b\n", {"cpu.max": "500000 100000\n"}, 5),
        (
            "4:cpu,cpuacct:/docker/x\n1:memory:/docker/x\n",
            {"cpu/cpu.cfs_quota_us": "700000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            7,
        ),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_cores_are_those_that_affinity_and_quotas_allow(tmp_path, monkeypatch, cgroup, files, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert usable_cores(fake_root(tmp_path, cgroup, **files)) == expected


def test_cores_without_control_groups_are_those_of_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert usable_cores(tmp_path) == 3
