"""Weights that papers, and those who trained or converted their models, have published.

Addresses are those of the READMEs and model zoos named under `page`, read and not fetched. Hashes
are the beginnings that stand in the file names (facebookresearch/detr) or what model cards that
pin the same revision repeat; most publishers state none.
"""

from dataclasses import dataclass

DETR = "https://github.com/facebookresearch/detr"
CONDITIONAL = "https://github.com/Atten4Vis/ConditionalDETR"
DEFORMABLE = "https://github.com/fundamentalvision/Deformable-DETR"
H_DETR = "https://github.com/HDETR/H-Deformable-DETR"
LITE = "https://github.com/IDEA-Research/Lite-DETR"
SPARSE = "https://github.com/kakaobrain/sparse-detr"
ZOO = "https://github.com/IDEA-Research/detrex/blob/main/docs/source/tutorials/Model_Zoo.md"
FOCUS = "https://github.com/IDEA-Research/detrex/tree/main/projects/focus_detr"
HUB = "https://huggingface.co/"
DETREX = "https://github.com/IDEA-Research/detrex-storage/releases/download/"
DINO_FILES = "https://drive.google.com/drive/folders/1qD5m1NmK0kjE5hh-G17XUX751WsEG-h_"


@dataclass(frozen=True)
class Released:
    """One file of weights, and the COCO val2017 `ap` that its publisher states for it.

    `sha256` is the known beginning of its hash or None, `note` what sets it apart from the weights
    that the preset's paper reports, `differs` the settings that it has otherwise than the preset:
    the detector gets those of the weights.
    """

    url: str
    page: str
    ap: float
    sha256: str | None = None
    note: str = ""
    differs: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Its name in the cache; many repositories of the hub have a `model.safetensors`."""
        parts = self.url.removeprefix(HUB).split("/")
        return f"{parts[1]}.safetensors" if self.url.startswith(HUB) else parts[-1]


def _detr(file: str, ap: float) -> Released:
    url = f"https://dl.fbaipublicfiles.com/detr/{file}"
    return Released(url, DETR, ap, sha256=file.removesuffix(".pth").rsplit("-", 1)[-1])


def _hub(repository: str, revision: str, ap: float, sha256: str | None = None) -> Released:
    url = f"{HUB}{repository}/resolve/{revision}/model.safetensors"
    note = "the paper's own weights in the layout of transformers"
    return Released(url, HUB + repository, ap, sha256, note)


def _detrex(path: str, ap: float) -> Released:
    note = "the paper's own weights in the layout of detrex"
    return Released(DETREX + path, ZOO, ap, note=note)


def _dino(path: str, ap: float, note: str) -> Released:
    """Detrex embeds positions as Deformable DETR does, and has a class and box head a layer."""
    differs = ("neck.offset", "neck.temperature", "shared_heads")
    return Released(DETREX + path, ZOO, ap, note=f"trained by detrex; {note}", differs=differs)


def _h_detr(backbone: str, ap: float) -> Released:
    file = (
        f"{backbone}_hybrid_branch_lambda1_group6_t1500_dp0_mqs_lft_deformable_detr_plus_iterative_"
        "bbox_refinement_plus_plus_two_stage_12eps.pth"
    )
    return Released(f"{H_DETR}/releases/download/v0.1/{file}", H_DETR, ap)


def _lite(file: str, ap: float) -> Released:
    return Released(f"{LITE}/releases/download/litedetr/{file}", LITE, ap)


def _sparse(file: str, ap: float) -> Released:
    return Released(f"https://arena.kakaocdn.net/brainrepo/sparse_detr/{file}.pth", SPARSE, ap)


def _focus(file: str, ap: float, note: str = "") -> Released:
    folder = "https://github.com/linxid/Focus-DETR-mindspore/releases/download/Focus-DETR/"
    return Released(folder + file, FOCUS, ap, note=note)


RELEASED: dict[str, Released] = {
    "detr-r50": _detr("detr-r50-e632da11.pth", 42.0),
    "detr-r50-dc5": _detr("detr-r50-dc5-f0fb7ef5.pth", 43.3),
    "detr-r101": _detr("detr-r101-2c7b67e5.pth", 43.5),
    "detr-r101-dc5": _detr("detr-r101-dc5-a2e86def.pth", 44.9),
    "conditional-detr-r50": _hub(
        "microsoft/conditional-detr-resnet-50", "8f8795fb7c319c7862d4f4cd699e76bb09cf2593", 41.0
    ),
    "conditional-detr-r50-dc5": _detrex("v0.3.0/converted_conditional_detr_r50_dc5.pth", 43.8),
    "conditional-detr-r101": _detrex("v0.1.0/converted_conditional_detr_r101_50ep.pth", 43.0),
    "conditional-detr-r101-dc5": _detrex("v0.3.0/converted_conditional_detr_r101_dc5.pth", 45.1),
    "deformable-detr-r50-single-scale": _hub(
        "SenseTime/deformable-detr-single-scale",
        "e880a4ca7bbe47b33d37ed90e2948efbbdad0d44",
        39.4,
        "82eeb57bbcdd02408afc53d5f5c874e3a7f27b5034194ae2c4475d06fceaa59b",
    ),
    "deformable-detr-r50-single-scale-dc5": _hub(
        "SenseTime/deformable-detr-single-scale-dc5",
        "c23332913d0ae1a8c98725e308eccba65a5933cc",
        41.5,
        "e71afa5f5900e2e769275156494195508efcadaab4275b0cd4c80f10369dc090",
    ),
    "deformable-detr-r50": _hub(
        "SenseTime/deformable-detr",
        "83ecd26945199939cb82806f988debdb71e6f43e",
        44.5,
        "caf1e3e61283c6ce35cd2d9adaa7033cf40997d4dfe434003bcdb9085cc8cf9b",
    ),
    "deformable-detr-r50-refine": _hub(
        "SenseTime/deformable-detr-with-box-refine",
        "2e9e461623a8fdc296e19666c46c8a4389a3a6fe",
        46.2,
        "4113700fe8aade398808424b7c5c1304cfbf886adc6450a6ca5d50a702be3373",
    ),
    "deformable-detr-r50-two-stage": _hub(
        "SenseTime/deformable-detr-with-box-refine-two-stage",
        "e74bff70d69f3e825f6cefaf179bfba707f92054",
        46.9,
        "411bb4238a834d40fff651b1b5b7d6dd80c2dd28be1747eec7b6918674e85de6",
    ),
    "h-detr-r50": _h_detr("r50", 48.7),
    "h-detr-swin-t": _h_detr("swin_tiny", 50.6),
    "h-detr-swin-l": _h_detr("swin_large", 55.9),
    "dino-r50": _dino(
        "v0.2.0/dino_r50_4scale_12ep_49_2AP.pth",
        49.2,
        f"the paper's own file is checkpoint0011_4scale.pth at {DINO_FILES}",
    ),
    "dino-r50-5scale": _dino(
        "v0.2.1/dino_r50_5scale_12ep.pth",
        49.6,
        f"the paper's own file is checkpoint0011_5scale.pth at {DINO_FILES}",
    ),
    "dino-swin-t": _dino(
        "v0.1.1/dino_swin_tiny_224_4scale_12ep.pth",
        51.3,
        "12 epochs; no weights of 36 epochs are published",
    ),
    "lite-dino-r50-h2l2-2p1x3": _lite("r50_s2ex3_49.9.pth", 49.9),
    "lite-dino-r50-h3l1-6p1x1": _lite("r50_s3ex1_50.2.pth", 50.2),
    "lite-dino-r50-h3l1-2p1x3": _lite("r50_s3ex3_50.4.pth", 50.4),
    **{
        f"sparse-detr-{ours}-rho{rho}": _sparse(f"sparse_detr_{theirs}_{rho}", ap)
        for ours, theirs, aps in (
            ("r50", "r50", (45.3, 45.6, 46.0, 46.2, 46.3)),
            ("swin-t", "swint", (48.2, 48.8, 49.1, 49.2, 49.3)),
        )
        for rho, ap in zip((10, 20, 30, 40, 50), aps, strict=True)
    },
    "focus-detr-r50": _focus("focus_detr_r50_4scale_36ep_v3.zip", 50.4),
    "focus-detr-r101": _focus("focus_detr_r101_4scale_36ep_v2.zip", 51.4),
    "focus-detr-swin-t": _focus(
        "focus_detr_swin_tiny_224_4scale_24ep.zip",
        51.2,
        "trained for 24 epochs; the link to the weights of 36 epochs leads elsewhere",
    ),
    "focus-detr-swin-b": _focus("focus_detr_swin_base_384_4scale_22k_36ep.pth", 56.2),
}
"""Preset -> its weights. Of the other presets nobody has published any that we know of."""
