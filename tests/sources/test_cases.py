"""Small inputs out of public bug reports, given by the folder ``AHP_CASES``; skipped where it is not at hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ahp_toolkit.cli.main import ahp
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.records import Candidate
from ahp_toolkit.storage import files, parquet

CASES = Path(os.environ.get("AHP_CASES", Path(__file__).parents[2].parent / "shared" / "cases"))
#: case -> (photos, persons read, candidates); None: refused in one line
RIGHT = {
    "cat_several_personlike": (2, 2, 2), "cocoa_cls_as_coco": (2, 2, 2), "enc_bom": (2, 2, 2),
    "ids_all_zero": (2, 4, 4),
    "ids_string_stem": (2, 2, 2), "img_same_file_two_ids": (1, 2, 2), "iscrowd_null": (2, 2, 2), "l_bom": (2, 2, 2),
    "leak_subset_json": (40, 40, 40), "malformed_cars": (2, 1, 1), "names_12digits_folders": (4, 4, 4),
    "names_12digits_two_splits": (4, 4, 4), "names_same_stem": (2, 2, 2), "oi_flags_bool": (2, 2, 1),
    "oi_flags_float": (2, 2, 1), "oi_names_not_mids": (2, 2, 2), "path_absolute": (2, 2, 2), "path_ls_media": (2, 2, 2),
    "path_two_folders": (3, 3, 3), "rle_float_counts": (2, 2, 2), "seg_empty_inner": (2, 2, 2),
    "seg_flat_list": (2, 2, 2), "size_zero": (2, 2, 2), "top_licence_without_id": (2, 2, 2),
    "top_licenses_null": (2, 2, 2), "top_licenses_str": (2, 2, 2), "v_Person_people": (2, 1, 1),
    "v_filename_used": (1, 1, 1), "v_upper_ext": (2, 2, 2), "visdrone_as_coco": None, "link_images_folder": None,
}  # fmt: skip


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not at hand")
@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_case_ends_right(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(CASES / name / "data", data)
    if name == "link_images_folder":  # the link was lost on its way: it led out of the data root
        (data / "train2017").unlink()
        shutil.copytree(CASES / "enc_bom" / "data" / "train2017", tmp_path / "elsewhere")
        (data / "train2017").symlink_to(tmp_path / "elsewhere")
    line = next(x for x in (CASES / name / "case.txt").read_text().splitlines() if x.startswith("ahp build"))
    source = line.split("--source ")[1].split("=")[0]
    args = ["build", "--source", f"{source}={data}", "--out", str(tmp_path / "out"), "--workers", "1", "-q"]
    args += ["--stop-after", "harvest"]
    right = RIGHT[name]
    if right is None:
        with pytest.raises(UserError) as error:
            CliRunner().invoke(ahp, args, catch_exceptions=False, standalone_mode=False)
        assert "2 " in str(error.value) or "1 pedestrian" in str(error.value)
        return
    CliRunner().invoke(ahp, args, catch_exceptions=False, standalone_mode=False)
    folder = tmp_path / "out" / "harvest"
    counts = files.read_json(folder / "stage.json")["counts"]
    kept = list(parquet.read_records(folder, Candidate))
    assert (counts[f"images/{source}"], counts[f"persons/{source}"], len(kept)) == right
    if name == "cocoa_cls_as_coco":
        assert all(c.flags.occluded and c.mask is not None and c.mask.area < 5400 for c in kept)
