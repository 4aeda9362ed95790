"""A file is written whole or not at all."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from groundwork.atomic import obstacle, replace_whole


def test_the_new_content_replaces_the_old(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replace_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("bug")])
def test_whatever_goes_wrong_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half():
        with replace_whole(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, replace_whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")


def test_the_file_has_the_mode_that_any_new_file_gets(tmp_path):
    before = os.umask(0o027)
    try:
        with replace_whole(tmp_path / "file") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o604)
    with replace_whole(path) as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder"), (make_socket, "a socket")]
)
@pytest.mark.parametrize("linked", [False, True])
def test_only_a_regular_file_is_ever_replaced(tmp_path, monkeypatch, make, kind, linked):
    monkeypatch.chdir(tmp_path)  # a socket's name may have 107 bytes only
    make("special")
    name = "special"
    if linked:
        name = "link"
        Path(name).symlink_to("special")
    before, there = os.lstat("special"), sorted(Path().iterdir())
    with pytest.raises(OSError, match=f"cannot replace {kind}; name a regular file") as caught:
        write(name)
    assert caught.value.filename == name
    assert os.path.samestat(before, os.lstat("special"))
    assert sorted(Path().iterdir()) == there


def test_a_device_is_told_from_a_file(monkeypatch, tmp_path):
    device = os.stat_result((stat.S_IFCHR | 0o666, 1, 1, 1, 0, 0, 0, 0, 0, 0))
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.stat", lambda *_, **__: device)
        assert obstacle(tmp_path / "full") == "a device"
    assert obstacle(tmp_path / "nothing") is None


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(tmp_path, there):
    target = tmp_path / "disk" / "target"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to("disk/target")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_links_in_a_circle_are_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"):
        write(link)
    assert link.is_symlink()


def write(path):
    with replace_whole(Path(path)) as temporary:
        temporary.write_text("new")


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("ü" * 127)  # 254 bytes
    with replace_whole(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_takes_no_file_is_told_by_the_name_asked_for():
    with pytest.raises(OSError, match=r"'/proc/none'") as caught, replace_whole(Path("/proc/none")):
        pass
    assert caught.value.filename == "/proc/none"
