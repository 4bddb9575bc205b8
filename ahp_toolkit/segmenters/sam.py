"""Segment Anything (SAM or SAM 2, transformers) prompted with the box; of its three masks the one it trusts most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.nets import checkpoints, devices, tensors
from ahp_toolkit.segmenters.base import Prompt, Segmentation

NEEDS_PIXELS = True
TRAINABLE = False
DEFAULT = "facebook/sam-vit-base"
WEIGHTS = f"{DEFAULT} from the Hugging Face hub, or a model's folder with --segmenter-weights"
LICENCE = "code and weights Apache-2.0 (Meta; transformers)"


class Sam:
    """A ready SAM: ``processor`` is transformers' own, ``net`` a SamModel or Sam2Model."""

    def __init__(self, net: Any, processor: Any, name: str, device: torch.device, batch_size: int, precision: str):
        self.name = name
        self.net = net.eval().to(device)
        self._processor, self._device, self._batch = processor, device, batch_size
        self._dtype = devices.compute_dtype(device, precision)

    def __call__(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """The object of each box; the score is the network's own prediction of its IoU."""
        return [f for part in tensors.batches(prompts, self._batch) for f in self._batch_of(part)]

    def _batch_of(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        boxes = [[[float(v) for v in a.box]] for a in prompts]
        inputs = self._processor(images=[a.pixels for a in prompts], input_boxes=boxes, return_tensors="pt")
        sizes = {k: inputs[k] for k in ("original_sizes", "reshaped_input_sizes") if k in inputs}
        with devices.steady(self._device, self._dtype):
            pixels, corners = (inputs[k].to(self._device).float() for k in ("pixel_values", "input_boxes"))
            out = self.net(pixel_values=pixels, input_boxes=corners, multimask_output=True)
            logits = self._processor.post_process_masks(out.pred_masks.float().cpu(), binarize=False, **sizes)
        iou = out.iou_scores.float().cpu()[:, 0]
        best = iou.argmax(dim=1).tolist()
        return [
            Segmentation((m[0, b] > 0).numpy(), round(min(1.0, max(0.0, float(iou[i, b]))), 4))
            for i, (m, b) in enumerate(zip(logits, best, strict=True))
        ]


def build(weights: str | None = None, device: str = "auto", batch_size: int = 8, precision: str = "fp32") -> Sam:
    """A SAM by the hub's name (None: facebook/sam-vit-base) or from a folder of ``save_pretrained``.

    ``random`` is a tiny untrained one, for tests. SAM 2 is recognised by the folder's configuration.

    Raises:
        UserError: when the weights cannot be had.
    """
    where = devices.pick_device(device)
    if weights == "random":
        net, processor = _random()
        return Sam(net, processor, "sam@random", where, batch_size, precision)
    net, processor = _loaded(weights or DEFAULT)
    name = checkpoints.short_name("sam", checkpoints.state_digest(net.state_dict()))
    return Sam(net, processor, name, where, batch_size, precision)


def _loaded(weights: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, Sam2Model, Sam2Processor, SamModel, SamProcessor
    from transformers.utils import logging

    kinds = {
        "sam": (SamModel, SamProcessor),
        "sam2": (Sam2Model, Sam2Processor),
        "sam2_video": (Sam2Model, Sam2Processor),
    }
    logging.disable_progress_bar()
    try:
        # the user names the model, so no revision of it is pinned; its digest goes into every record
        kind = AutoConfig.from_pretrained(weights, trust_remote_code=False).model_type  # nosec B615
        model, processor = kinds.get(kind, (None, None))
        if model is not None:  # safetensors only: a folder from somebody else may bring a pickle or code of its own
            net = model.from_pretrained(weights, use_safetensors=True, trust_remote_code=False)
            return net, processor.from_pretrained(weights, trust_remote_code=False)
    except (OSError, RuntimeError, ValueError) as e:  # nothing there, no network, no model's folder, a damaged file
        line = str(e).splitlines()[0]
        way = "" if Path(weights).exists() else "; fetch the model elsewhere, give its folder with --segmenter-weights"
        raise UserError(f"sam: {weights} cannot be loaded ({line}){way}") from e
    raise UserError(f"sam: {weights}: expected a SAM or SAM 2 model, got {kind!r}")


def _random() -> tuple[Any, Any]:
    """A SAM of 64 px and two narrow layers with seeded random weights, and its processor."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    side = {"image_size": 64, "patch_size": 8}
    vision: dict[str, Any] = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 32,
    }
    vision |= {**side, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 8}
    prompt = {"hidden_size": 16, **side, "image_embedding_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "iou_head_hidden_dim": 16,
    }
    with devices.seeded(0):
        net = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    size, pad = {"longest_edge": 64}, {"height": 64, "width": 64}
    return net, SamProcessor(SamImageProcessor(size=size, pad_size=pad, mask_size={"longest_edge": 16}))
