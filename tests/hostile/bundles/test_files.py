"""Files of a bundle that are damaged, missing, or links out of it; and paths that are none."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

RUNTIME_READS = ("tokenizer.json", "graphs/packed.onnx")
VERIFY_READS = (*RUNTIME_READS, "certificate.json", "reference/texts.json", "reference/vectors.npy")

Opener = Callable[[Path], object]
Refuse = Callable[[Opener, Path], str]

# Each file, with everything that reads it.
readers = pytest.mark.parametrize(
    ("open_bundle", "name"),
    [
        *(("runtime", name) for name in RUNTIME_READS),
        *(("verify", name) for name in VERIFY_READS),
    ],
    indirect=["open_bundle"],
)


def test_the_healthy_bundle_opens(bundle: Path, open_bundle: Opener) -> None:
    open_bundle(bundle)


@readers
def test_a_changed_byte(bundle: Path, open_bundle: Opener, name: str, refuse: Refuse) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert path.name in refuse(open_bundle, bundle)


@readers
def test_a_missing_file(bundle: Path, open_bundle: Opener, name: str, refuse: Refuse) -> None:
    (bundle / name).unlink()
    assert "No such file" in refuse(open_bundle, bundle)


@readers
@pytest.mark.parametrize("keep", [0, 5])
def test_a_file_cut_short(
    bundle: Path, open_bundle: Opener, name: str, keep: int, refuse: Refuse
) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:keep])
    assert Path(name).name in refuse(open_bundle, bundle)


@readers
def test_a_folder_in_place_of_a_file(
    bundle: Path, open_bundle: Opener, name: str, refuse: Refuse
) -> None:
    (bundle / name).unlink()
    (bundle / name).mkdir()
    assert Path(name).name in refuse(open_bundle, bundle)


@pytest.mark.parametrize("name", RUNTIME_READS)
def test_a_link_out_of_the_bundle(
    bundle: Path, open_bundle: Opener, name: str, tmp_path: Path, refuse: Refuse
) -> None:
    outside = tmp_path / "outside"
    shutil.move(bundle / name, outside)
    (bundle / name).symlink_to(outside)
    assert "leads out of the bundle" in refuse(open_bundle, bundle)


@readers
def test_a_link_to_itself(bundle: Path, open_bundle: Opener, name: str, refuse: Refuse) -> None:
    (bundle / name).unlink()
    (bundle / name).symlink_to(bundle / name)
    assert Path(name).name in refuse(open_bundle, bundle)


def test_a_folder_linked_out_of_the_bundle(
    bundle: Path, open_bundle: Opener, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.move(bundle / "graphs", tmp_path / "graphs")
    (bundle / "graphs").symlink_to(tmp_path / "graphs")
    assert "leads out of the bundle" in refuse(open_bundle, bundle)


def test_a_bundle_behind_a_link_opens(bundle: Path, open_bundle: Opener, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(bundle)
    open_bundle(link)


def test_an_empty_folder(tmp_path: Path, open_bundle: Opener, refuse: Refuse) -> None:
    (tmp_path / "empty").mkdir()
    assert "not a bundle" in refuse(open_bundle, tmp_path / "empty")


def test_nothing_at_all(tmp_path: Path, open_bundle: Opener, refuse: Refuse) -> None:
    assert "no such file or folder" in refuse(open_bundle, tmp_path / "nothing")


def test_a_lone_plan(tmp_path: Path, open_bundle: Opener, refuse: Refuse) -> None:
    (tmp_path / "model.plan").write_bytes(b"who knows what")
    assert "in no bundle" in refuse(open_bundle, tmp_path / "model.plan")
