"""What a fresh interpreter loads on the way to the first help text and the first picture.

Times depend on the machine; what is imported does not. `import leandetr` itself is in test_layers.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from leandetr.checkpoints.store import shipped_models

RUN = """
import sys
from leandetr.cli import app
app(sys.argv[1:], standalone_mode=False)
print("modules:", *sys.modules)
"""
NEVER = {
    "accelerate",
    "cv2",
    "faster_coco_eval",
    "huggingface_hub",
    "matplotlib",
    "pycocotools",
    "scipy",
    "supervision",
    "sympy",
    "tensorboard",
    "timm",
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "transformers",
}


def loaded(*words: object) -> set[str]:
    """Modules that a fresh interpreter holds after a command."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("modules:")[2].split())


def test_help_needs_no_torch() -> None:
    modules = loaded("predict", "--help")
    assert "leandetr.cli" in modules
    assert modules & {"torch", "numpy", "PIL", *NEVER} == set()


def test_the_first_picture_needs_little_more_than_torch(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "a.jpg")
    out = tmp_path / "out"
    words = ("predict", shipped_models()[0], tmp_path / "a.jpg", "--out", out, "--threshold", 0)
    modules = loaded(*words, "--device", "cpu")
    assert (out / "pictures" / "a.jpg").exists()
    assert "torch" in modules
    assert modules & NEVER == set()
