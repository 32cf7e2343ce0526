"""Cores by affinity and by quota, with folders of control groups as both versions of Linux's have them."""

import os
import subprocess
import sys

import pytest

from llava_sam2.cores import usable_cores


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(64)))


@pytest.fixture
def groups(tmp_path):
    """Write /proc/self/cgroup and files of the groups; gives the arguments of usable_cores."""

    def write(listed: str, **files: str):
        (tmp_path / 'cgroup').write_text(listed)
        for name, text in files.items():
            file = tmp_path / 'mount' / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path / 'cgroup', tmp_path / 'mount'

    return write


@pytest.mark.parametrize('text, cores', [('max 100000\n', 64), ('200000 100000\n', 2), ('150000 100000\n', 2),
                                         ('5000 100000\n', 1), ('9900000 100000\n', 64)])
def test_a_container_of_version_2(groups, text, cores):
    assert usable_cores(*groups('0::/\n', **{'cpu.max': text})) == cores


def test_the_least_of_all_groups_above(groups):
    files = {'a/cpu.max': '300000 100000', 'a/b/cpu.max': 'max 100000', 'a/b/c/cpu.max': '800000 100000',
             'other/cpu.max': '100000 100000'}
    assert usable_cores(*groups('0::/a/b/c\n', **files)) == 3


def test_version_1(groups):
    files = {'cpu,cpuacct/job/cpu.cfs_quota_us': '400000\n', 'cpu,cpuacct/job/cpu.cfs_period_us': '100000\n',
             'cpu,cpuacct/cpu.cfs_quota_us': '-1\n', 'cpu,cpuacct/cpu.cfs_period_us': '100000\n'}
    assert usable_cores(*groups('5:cpuset:/\n4:cpu,cpuacct:/job\n0::/\n', **files)) == 4


def test_version_1_in_a_container_that_does_not_see_its_path(groups):
    files = {'cpu/cpu.cfs_quota_us': '600000', 'cpu/cpu.cfs_period_us': '100000'}
    assert usable_cores(*groups('4:cpu:/docker/1234\n', **files)) == 6


def test_affinity_alone(groups, monkeypatch, tmp_path):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {3, 5})
    assert usable_cores(*groups('0::/\n', **{'cpu.max': '400000 100000'})) == 2
    assert usable_cores(tmp_path / 'none', tmp_path / 'none') == 2


def test_of_this_machine():
    found = subprocess.run([sys.executable, '-c', 'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n'
                            'from llava_sam2.cores import usable_cores; print(usable_cores())'],
                           capture_output=True, text=True)
    assert found.stdout == '1\n', found.stderr
