"""Makes `import timm` work beside a CPU-only torch.

timm imports torchvision, whose published wheel is built for CUDA: beside a CPU torch its import
fails with `operator torchvision::nms does not exist`, because the compiled operators were not
loaded. timm uses none of them, so declaring the two missing operator schemas is enough. Any other
failure is left alone.
"""

import importlib
import sys

import torch

_SYMPTOM = "operator torchvision::nms does not exist"
_library: torch.library.Library | None = None


def ensure_torchvision_imports() -> None:
    """Leaves torchvision importable or absent; call before timm or transformers is imported."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    global _library  # the schemas live as long as the Library object does
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
