"""Archives of traces: what is read of them, and what is refused."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from trace_examples import on_cpu

from zerofit.config.errors import UserError
from zerofit.report.trace import archive
from zerofit.report.trace.command import analyse

TRACE = b'{"traceEvents": []}'


@pytest.mark.parametrize("ending", archive.ENDINGS)
def test_the_same_figures_as_of_the_directory(tmp_path: Path, ending: str) -> None:
    traces = on_cpu(tmp_path / "traces")
    packed = tmp_path / f"all{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
            for path in traces.iterdir():
                made.write(path, f"run/profile/{path.name}")
            made.writestr("run/profile/memory-rank-0.pickle", b"not read")
            made.writestr("__MACOSX/run/._rank-0.json", b"nor this")
    else:
        with tarfile.open(packed, "w" if ending == ".tar" else "w:gz") as made_tar:
            made_tar.add(traces, "profile")
    assert analyse(packed).body("") == analyse(traces).body("")


def test_nothing_of_an_archive_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    packed = tar(tmp_path, "profile/rank-0.json")
    with pytest.raises(UserError, match="no operators and no kernels"):
        analyse(packed)
    assert [path.name for path in tmp_path.iterdir()] == [packed.name]


def tar(directory: Path, name: str, change: Callable[[tarfile.TarInfo], None] = lambda member: None) -> Path:
    """A .tar.gz of one member."""
    path = directory / "made.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        member = tarfile.TarInfo(name)
        member.size = len(TRACE)
        change(member)
        made.addfile(member, io.BytesIO(TRACE) if member.isreg() else None)
    return path


def packed_zip(directory: Path, name: str, mode: int = stat.S_IFREG) -> Path:
    path = directory / "made.zip"
    member = zipfile.ZipInfo(name)
    member.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(member, TRACE)
    return path


def refused(path: Path, reason: str) -> None:
    before = sorted(path.parent.parent.rglob("*"))
    with pytest.raises(UserError, match=reason) as caught:
        analyse(path)
    assert str(caught.value).startswith(f"{path} is not unpacked: ")
    assert sorted(path.parent.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["../rank-0.json", "a/../../rank-0.json", "/tmp/rank-0.json", "C:/a.json", "a\\b.json"]
)
@pytest.mark.parametrize("make", [tar, packed_zip])
def test_names_that_lead_out_are_refused(tmp_path: Path, make: Callable[[Path, str], Path], name: str) -> None:
    (tmp_path / "in").mkdir()
    refused(make(tmp_path / "in", name), "leads out of it")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "/etc/hostname", 0

    (tmp_path / "in").mkdir()
    refused(tar(tmp_path / "in", "rank-0.json", change), "is a link or a device")
    refused(packed_zip(tmp_path / "in", "rank-0.json", stat.S_IFLNK), "is a link or a device")


def test_absurd_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(archive, "EACH", 10)
    refused(tar(tmp_path / "in", "rank-0.json"), "rank-0.json unpacks to more than")
    refused(packed_zip(tmp_path / "in", "rank-0.json"), "rank-0.json unpacks to more than")
    monkeypatch.setattr(archive, "EACH", 2**30)
    monkeypatch.setattr(archive, "ALL", 10)
    refused(packed_zip(tmp_path / "in", "rank-0.json"), "it unpacks to more than")
    monkeypatch.setattr(archive, "MEMBERS", 0)
    refused(packed_zip(tmp_path / "in", "rank-0.json"), "more than 0 members")
    refused(tar(tmp_path / "in", "rank-0.json"), "more than 0 members")


def test_headers_that_claim_gigabytes_are_refused(tmp_path: Path) -> None:
    """tarfile would read a pax header of any size into memory, and skip a member of any size."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "made.tar.gz"
    for kind, reason in ((tarfile.XHDTYPE, "absurdly large"), (tarfile.REGTYPE, "more than 1 GiB")):
        header = tarfile.TarInfo("rank-0.json")
        header.type, header.size = kind, 3 * 2**30
        path.write_bytes(gzip.compress(header.tobuf() + b"0" * 2**20))
        refused(path, reason)


@pytest.mark.parametrize("ending", archive.ENDINGS)
def test_what_is_no_archive_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "in" / f"made{ending}"
    path.parent.mkdir()
    path.write_bytes(b"neither the one nor the other" * 100)
    refused(path, "damaged, encrypted, or no archive")


def test_an_archive_without_traces(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no traces"):
        analyse(packed_zip(tmp_path, "readme.md"))
