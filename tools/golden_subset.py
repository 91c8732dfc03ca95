"""Copy the small golden subset that lies in the repository: `python tools/golden_subset.py FULL`.

FULL is the folder of the full set. One case or two of each kind, so that a plain clone already
proves every part; continuous integration runs the full set.
"""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "tests" / "golden"
CASES = (
    "boxes/boxes",
    "coco_eval/crowd",
    "coco_eval/tied_scores",
    "conditional_detr/loss_more_targets_than_queries",
    "conditional_detr/loss_no_targets",
    "conditional_detr/r50_odd_sizes",
    "deformable_detr/loss_more_targets_than_queries",
    "deformable_detr/loss_two_stage",
    "deformable_detr/r50_refine_odd_sizes",
    "deformable_detr/r50_two_stage",
    "detr/loss_more_targets_than_queries",
    "detr/loss_no_targets",
    "detr/r50_odd_sizes",
    "detr/r50_pre_norm",
    "dino/cdn_2_4_scale1",
    "dino/cdn_3_0_5",
    "dino/cdn_dn60_7_1",
    "dino/criterion_c91",
    "dino/criterion_dn_5_3",
    "dino/criterion_nodn_3_0_2",
    "dino/dino_r50_4scale",
    "dino/postprocess",
    "focus_detr/criterion_nodn_3_2",
    "focus_detr/encoder_rho03",
    "focus_detr/foreground_supervision",
    "functions/conditional_sine_points",
    "functions/deformable",
    "functions/sparse_dam",
    "h_deformable_detr/loss_hybrid_more_targets_than_queries",
    "h_deformable_detr/r50_hybrid_train",
    "lite_detr/encoder_h3l1_2p1_x3",
    "lite_detr/kda_nomask_ref2",
    "lite_detr/kda_sameloc0_projkey0_ref4",
    "lite_detr/kda_sameloc1_projkey1_ref2",
    "lite_detr/lite_dino_r50_h3l1_2p1_x3",
    "ms_deform_attn/d64_one_level_ref2_nomask",
    "ms_deform_attn/d96_two_levels_ref4",
    "ops/edges",
    "ops/far_outside",
    "ops/odd_sizes_d8",
    "ops/one_level_d8",
    "position_encoding/deformable_detr",
    "position_encoding/detr",
    "postprocess/deformable_detr",
    "postprocess/detr",
    "sparse_detr/r50_efficient",
    "sparse_detr/r50_rho_0.3",
)


def main(full: Path) -> None:
    """Copy the cases and the pictures they use."""
    files = {f"{case}.{kind}" for case in CASES for kind in ("json", "safetensors")}
    for case in CASES:
        images = json.loads((full / f"{case}.json").read_text()).get("images")
        if isinstance(images, str):
            files |= {images.split()[0], images.split()[0].replace(".safetensors", ".json")}
    for name in sorted(files):
        if (full / name).exists():
            (HERE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(full / name, HERE / name)
    shutil.copyfile(full / "weights.py", HERE / "weights.py")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected one argument, the folder of the full golden set")
    main(Path(sys.argv[1]))
