"""Kernels are compiled once, kept safely, and done without where they cannot be had."""

import multiprocessing
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from cffi import FFI

from penjing.core.errors import PenjingError
from penjing.kernels import build

SOURCE = '#include "kernels.h"\nBEST_FOR(0, 0)\nEXPORTED int answer(void) { return ANSWER; }\n'

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, build.COMPILERS)), reason="no C compiler on Linux"
)


@pytest.fixture
def source(tmp_path):
    place = tmp_path / "sources"
    place.mkdir()
    shutil.copy(build.SOURCES / "kernels.h", place)
    (place / "answer.c").write_text(SOURCE.replace("ANSWER", "41"))
    return place / "answer.c"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(build.SWITCH, raising=False)
    forget()
    yield tmp_path / "cache"
    forget()


def forget():
    for remembered in (build.load, build.switch, build._tell):
        remembered.cache_clear()


def answer(path):
    ffi = FFI()
    ffi.cdef("int answer(void);")
    return ffi.dlopen(str(path)).answer()


def test_a_source_is_compiled_once_and_again_when_it_changes(source, cache, monkeypatch):
    path = build.built(source, build.folder())
    assert answer(path) == 41
    made = path.stat().st_ino
    assert build.built(source, build.folder()).stat().st_ino == made
    source.write_text(SOURCE.replace("ANSWER", "42"))
    assert answer(build.built(source, build.folder())) == 42
    (source.parent / "kernels.h").write_text((source.parent / "kernels.h").read_text() + "\n")
    assert build.built(source, build.folder()) != path
    assert [p.name for p in cache.joinpath("kernels").iterdir() if not p.name.endswith(".so")] == []


def test_a_file_that_is_not_what_its_name_says_is_built_anew(source, cache):
    path = build.built(source, build.folder())
    path.write_bytes(path.read_bytes()[:-100])
    assert answer(build.built(source, build.folder())) == 41


def test_several_processes_build_at_once(source, cache):
    where = build.folder()
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=lambda: os._exit(answer(build.built(source, where)) != 41)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert len(list(where.iterdir())) == 1


def test_the_folder_is_the_users_alone(cache):
    where = build.folder()
    assert where == cache / "kernels"
    assert where.stat().st_mode & 0o777 == cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o770)
    with pytest.raises(build.Unbuilt, match=r"others may write to .*cache: chmod 700"):
        build.folder()
    cache.chmod(0o700)
    where.chmod(0o702)
    with pytest.raises(build.Unbuilt, match=r"others may write to .*kernels"):
        build.folder()


def test_a_folder_of_another_user_is_refused(cache, monkeypatch):
    build.folder()
    monkeypatch.setattr(os, "geteuid", lambda: cache.stat().st_uid + 1)
    with pytest.raises(build.Unbuilt, match=r"belongs to another user: set PENJING_CACHE"):
        build.folder()


def broken_compiler(tmp_path):
    script = tmp_path / "broken-cc"
    script.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'x.c:1: error: no such thing' >&2; exit 3\n")
    script.chmod(0o700)
    return str(script)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no compiler", r"there is no C compiler \(no-such-cc\): install gcc"),
        ("broken compiler", r"broken-cc failed with code 3: x.c:1: error: no such thing"),
        ("a file for a folder", r"File exists"),
        ("Windows", r"kernels are built on Linux only"),
    ],
)
def test_without_a_library_one_remark_says_why(what, said, source, cache, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build, "SOURCES", source.parent)
    if what == "Windows":
        monkeypatch.setattr(sys, "platform", "win32")
    elif what == "a file for a folder":
        cache.write_text("")
    else:
        monkeypatch.setenv("CC", "no-such-cc" if what == "no compiler" else broken_compiler(tmp_path))
    assert build.load("answer", "int answer(void);") is None
    assert build.load("answer", "int answer();") is None
    told = capsys.readouterr().err
    assert told.count("Packed layers run in PyTorch") == 1
    assert re.search(said, told.replace("\n", ""))


def test_the_switch(source, cache, monkeypatch, capsys):
    monkeypatch.setattr(build, "SOURCES", source.parent)
    library = build.load("answer", "int answer(void);")
    assert library.lib.answer() == 41
    assert library.path() == library.path("avx2") == build.PATHS.index("portable")
    with pytest.raises(PenjingError, match=r"There is no path 'avx3' .*Did you mean 'avx2'"):
        library.path("avx3")
    forget()
    monkeypatch.setenv(build.SWITCH, "off")
    assert build.load("answer", "int answer(void);") is None
    forget()
    monkeypatch.setenv(build.SWITCH, "of")
    with pytest.raises(PenjingError, match=r"PENJING_KERNELS=of: .*Did you mean 'off'"):
        build.load("answer", "int answer(void);")
    assert capsys.readouterr().err == ""


def test_the_sources_go_into_the_wheel():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/penjing"]}  # a package whole, C and all: nothing is left out
