"""Files that appear complete or not at all, and never through a link."""

import errno
import os
import stat
import threading

import pytest

from spec_store.errors import InputError, RetryError, TableNotFoundError
from spec_store.stores.files import atomic_file


def write(target, content=b"new"):
    with atomic_file(target) as stream:
        stream.write(content)


def test_a_plain_file_is_created_and_replaced_with_its_permissions_kept(tmp_path):
    target = tmp_path / "x.bin"
    write(target)
    umask = os.umask(0o027)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    target.chmod(0o600)
    write(target, b"newer")
    assert target.read_bytes() == b"newer"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["x.bin"]


def test_what_was_there_stays_until_the_end_and_after_an_error(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")

    def fail():
        with atomic_file(target) as stream:
            stream.write(b"half of it")
            assert target.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_only_a_plain_file_is_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("pipe", "a named pipe"),
        ("folder", "a folder"),
    ):
        with pytest.raises(InputError, match=f"{name} is {kind}: only a plain file can be replaced"):
            write(tmp_path / name)
    with pytest.raises(InputError, match="/dev/null is a device"):
        write("/dev/null")
    assert victim.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "folder", "link", "pipe", "victim"]


def test_a_link_that_appears_while_the_file_is_written_is_not_replaced(tmp_path):
    victim, target = tmp_path / "victim", tmp_path / "x.bin"
    victim.write_bytes(b"old")

    def beaten():
        with atomic_file(target) as stream:
            stream.write(b"new")
            target.symlink_to(victim)

    with pytest.raises(InputError, match="is a symbolic link"):
        beaten()
    assert victim.read_bytes() == b"old"
    assert target.is_symlink()


def test_two_threads_that_write_one_target_leave_one_of_their_files(tmp_path):
    contents = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write, args=(tmp_path / "x.bin", c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x.bin").read_bytes() in contents
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TableNotFoundError, match=f"there is no folder {tmp_path}/nothing"):
        write(tmp_path / "nothing" / "x.bin")


def test_a_full_disk_leaves_what_was_there(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")

    def run_out():
        with atomic_file(target) as stream:
            stream.write(b"new")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RetryError, match="was not written: No space left on device"):
        run_out()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]
