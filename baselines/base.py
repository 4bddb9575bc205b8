"""What every model takes, gives and promises: Batch, Output, Result, Baseline, and the registry of models.

A model is one file of `baselines.models` with PAPER (str), IN_PAPER (bool: the paper compares it), TASKS (tuple),
VERSION (int) and ``build(task, **settings) -> Baseline``. VERSION is one more with every change of what it learns or of
what its weights mean: runs from before are not taken for it. It knows nets and losses; it knows nothing of files,
optimisers, devices or metrics. What the contract test guards for all models: each named loss moves its own player and
only it, a saved model loads to the same outputs, and one seed gives one set of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.registry import Registry
from ahp_toolkit.nets.loop import alone
from baselines.layers import losses as L
from baselines.layers.aids import Carried, decide
from baselines.training.settings import Settings, SharedContentSettings, SharedMaskSettings

Task = Literal["mask", "content"]
TASKS: tuple[Task, ...] = ("mask", "content")
COUNTED = ("parsed", "invisible", "amodal")  # what the means of some losses are over: people, pixels, pixels
PARTS = 20  # LIP's parsing classes; 0 is background (spec, Words)
GENERATOR = "generator"
CRITIC = "critic"

MODELS = Registry("model", "baselines.models", group="ahp_toolkit.models")


@dataclass(frozen=True)
class Batch:
    """One batch of square crops. Masks are float32 0/1 [B, 1, H, W]; images float32 [B, 3, H, W] in [-1, 1].

    At inference a mask model reads ``image`` and ``given`` only; a content model reads ``image``, ``modal``,
    ``amodal`` and, where it uses them, ``parsing`` and ``modal_parsing``: the truth in training and evaluation, or
    stage 1's own outputs in the cascade. The rest is for training.

    Args:
        image: the occluded photograph.
        given: the frozen initial mask that every model is handed.
        modal: visible pixels of the person; amodal: all pixels.
        parsing: amodal parsing, int64 [B, H, W] in 0..19, or None.
        modal_parsing: int64 [B, H, W]; None: ``parsing`` inside ``modal``.
        has_parsing: bool [B]: which people have a parsing; None: all, if there is ``parsing``.
        target: the recovered image (the person in front, the occluder left standing outside the person).
        counts: float [3], what ``count`` gives for each of COUNTED; None: this batch's own. Set by `synced.counted`.
    """

    image: Tensor
    given: Tensor
    modal: Tensor | None = None
    amodal: Tensor | None = None
    parsing: Tensor | None = None
    modal_parsing: Tensor | None = None
    has_parsing: Tensor | None = None
    target: Tensor | None = None
    counts: Tensor | None = None

    def need(self, name: str) -> Tensor:
        """The field ``name``.

        Raises:
            UserError: when it is not in the batch.
        """
        value = getattr(self, name)
        if value is None:
            raise UserError(f"this model needs {name!r} in its batch at this point, but the batch has none")
        return value

    @property
    def invisible(self) -> Tensor:
        """amodal AND NOT modal, float 0/1 [B, 1, H, W]."""
        return self.need("amodal") * (1 - self.need("modal"))

    @property
    def parsed(self) -> Tensor:
        """Which people have a parsing, bool [B]."""
        if self.parsing is None:
            return torch.zeros(len(self.image), dtype=torch.bool, device=self.image.device)
        if self.has_parsing is None:
            return torch.ones(len(self.image), dtype=torch.bool, device=self.image.device)
        return self.has_parsing

    def own_counts(self) -> Tensor:
        """This batch's people or pixels of each of COUNTED, float [3]; 0 for a mask that it does not have."""
        masks = (None if self.amodal is None or self.modal is None else self.invisible, self.amodal)
        people = self.parsed.sum().to(self.image.dtype)
        return torch.stack([people, *(people.new_zeros(()) if m is None else m.sum() for m in masks)])

    def count(self, what: str) -> Tensor:
        """What a sum over ``what`` (of COUNTED) must be divided by to be a mean, scalar > 0.

        In training that is the step's global count shared evenly among its micro-batches and processes, so that the
        mean of their losses is the loss of the global batch.
        """
        counts = self.own_counts().clamp(min=1) if self.counts is None else self.counts
        return counts[COUNTED.index(what)]

    def parsings(self) -> tuple[Tensor, Tensor]:
        """(modal, amodal) parsing int64 [B, H, W]; all background where the batch has none."""
        blank = torch.zeros_like(self.image[:, 0], dtype=torch.int64)
        amodal = blank if self.parsing is None else self.parsing
        if self.modal_parsing is not None:
            return self.modal_parsing, amodal
        return amodal * (self.need("modal")[:, 0] > 0.5), amodal

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._map(lambda v: v.to(device, non_blocking=non_blocking))

    def __getitem__(self, index: slice) -> Batch:
        """Some of its samples, as a batch, which counts for itself."""
        return dataclasses.replace(self, counts=None)._map(lambda v: v[index])

    def _map(self, fn: Any) -> Batch:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Batch(**{k: None if v is None else fn(v) for k, v in values.items()})


@dataclass
class Output:
    """What a forward pass gives: logits and raw pictures that losses can train, never an argmax.

    ``modal``, ``amodal``: logits [B, 1, H, W]; parsings: logits [B, 20, H, W]; ``image`` [B, 3, H, W], about [-1, 1],
    before compositing; ``extra``: what only the model's own losses read.
    """

    modal: Tensor | None = None
    amodal: Tensor | None = None
    modal_parsing: Tensor | None = None
    parsing: Tensor | None = None
    image: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    def need(self, name: str) -> Tensor:
        """The field ``name``, which the caller knows this model to give."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"expected the model's output to hold {name!r}, but it is None")
        return value


@dataclass(frozen=True)
class Result:
    """A finished answer. Masks float [B, 1, H, W] in [0, 1]; parsings int64 [B, H, W]; image [B, 3, H, W] in [-1, 1].

    A pixel is the person's where its mask is over a half: kept soft, since a mask is enlarged first and cut then.
    ``modal`` is the input mask for a method without a modal output (spec §7); None marks what the task does not give.
    ``image`` is the raw painting, of which the hole counts: who shows it takes the hole out of it, after enlarging it.
    """

    modal: Tensor | None = None
    amodal: Tensor | None = None
    modal_parsing: Tensor | None = None
    parsing: Tensor | None = None
    image: Tensor | None = None

    def cut(self) -> Result:
        """The same with masks of 0 and 1."""
        modal, amodal = (None if m is None else (m > 0.5).to(m.dtype) for m in (self.modal, self.amodal))
        return replace(self, modal=modal, amodal=amodal)


@dataclass(frozen=True)
class Optimizer:
    """The paper's own optimiser for a player: the learning rate is for the paper's batch."""

    kind: Literal["sgd", "adam"] = "adam"
    lr: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def build(self, parameters: list[nn.Parameter], lr: float | None = None) -> torch.optim.Optimizer:
        """The torch optimiser; ``lr`` overrides the paper's."""
        rate = self.lr if lr is None else lr
        if self.kind == "sgd":
            return torch.optim.SGD(parameters, rate, momentum=self.momentum, weight_decay=self.weight_decay)
        return torch.optim.Adam(parameters, rate, betas=self.betas, weight_decay=self.weight_decay)


SGD = Optimizer("sgd", 1e-3)
ADAM = Optimizer("adam", 1e-4)
ADAM_GAN = Optimizer("adam", 2e-4, betas=(0.5, 0.999))


class Baseline(nn.Module):
    """A model for one task. ``weights``: the factor of each named loss; players come in the order they take turns."""

    SPATIAL: ClassVar[int] = 64  # inputs must be multiples of this many px
    wants_masks: bool = False  # whether `prepare` must be called with the training people's amodal masks:
    mask_px: int = 64  # their side
    mask_people: int = 8192  # at most so many of them

    task: Task
    settings: Settings
    weights: dict[str, float]

    def __init__(self, task: Task, settings: Settings, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.task, self.settings, self.weights = task, settings, dict(weights)

    def forward(self, batch: Batch) -> Output:
        """Logits and raw pictures."""
        raise RuntimeError("a model defines its forward")

    def losses(self, batch: Batch, output: Output, turn: str) -> dict[str, Tensor]:
        """The named, unweighted loss terms of one player's turn; ``output`` is this batch's forward pass."""
        raise RuntimeError("a model defines its losses")

    def predict(self, batch: Batch) -> Result:
        """The finished answer by the model's own inference rule; call in eval mode, without gradients."""
        raise RuntimeError("a model defines its inference rule")

    def turns(self) -> dict[str, list[nn.Parameter]]:
        """Players in order of play, each with its parameters: critics are the modules whose name starts with it.

        Empty for a model without parameters, which needs no training.
        """
        critic = [p for n, p in self.named_parameters() if n.startswith(CRITIC)]
        generator = [p for n, p in self.named_parameters() if not n.startswith(CRITIC)]
        return {name: own for name, own in ((CRITIC, critic), (GENERATOR, generator)) if own}

    def optimizers(self) -> dict[str, Optimizer]:
        """The paper's optimiser of each player; overridden where the model's own paper has another."""
        return dict.fromkeys(self.turns(), SGD if self.task == "mask" else ADAM)

    def prepare(self, masks: Tensor, seed: int = 0) -> None:
        """Learn what a model takes from the training people's amodal masks, bool or 0/1 [N, h, w], crop frame."""

    def facts(self) -> dict[str, str]:
        """What every result of this model must carry, such as ``perceptual``: which VGG its losses used."""
        return {}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of named loss terms."""
        return torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()

    def check_input(self, batch: Batch) -> None:
        """Raise a UserError unless the image is [B, 3, H, W] with sides that are multiples of SPATIAL."""
        shape = tuple(batch.image.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] % self.SPATIAL or shape[3] % self.SPATIAL:
            raise UserError(f"expected images [B, 3, H, W] with sides divisible by {self.SPATIAL}, got {list(shape)}")


class MaskBaseline(Baseline):
    """A mask model: the aids of `SharedMaskSettings`, and one rule of inference.

    ``forward`` passes its logits through `masks`; ``losses`` adds `modal_term`. A setting ``threshold`` is that of
    both probabilities; else it is a half.
    """

    settings: SharedMaskSettings

    def __init__(self, settings: SharedMaskSettings, weights: Mapping[str, float], modal: float = 1.0) -> None:
        """``modal``: weight of the second head's loss."""
        super().__init__("mask", settings, {**weights, "modal": modal})
        self.heads = 2 if settings.two else 1
        self.carried = Carried(self.heads) if settings.carried else None

    def masks(self, logits: Tensor, initial: Tensor, **extra: Tensor) -> Output:
        """The output of logits [B, heads, H, W] (amodal, then modal) for the initial mask that the model was shown."""
        if self.carried is not None:
            logits = self.carried(logits, initial)
        return Output(amodal=logits[:, :1], modal=logits[:, 1:] if self.heads == 2 else None, extra=extra)

    def modal_term(self, output: Output, truth: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The second head's cross-entropy; empty without that head."""
        return {} if output.modal is None else {"modal": L.mask_ce(output.modal, truth, weight)}

    def predict(self, batch: Batch) -> Result:
        """Both masks by `aids.decide`, with the parsings where the model has some."""
        out = self(batch)
        threshold = getattr(self.settings, "threshold", 0.5)
        masks = decide(out.modal, out.need("amodal"), batch.given, threshold, self.settings.hidden)
        labels = [None if p is None else p.argmax(1) for p in (out.modal_parsing, out.parsing)]
        return Result(*masks, *labels)


class ContentBaseline(Baseline):
    """A content model: where its l1 is taken (`SharedContentSettings`), and one rule of inference."""

    settings: SharedContentSettings

    def __init__(self, settings: SharedContentSettings, weights: Mapping[str, float]) -> None:
        super().__init__("content", settings, weights)

    def l1(self, made: Tensor, truth: Tensor, batch: Batch) -> Tensor:
        """Mean |made - truth| over the invisible pixels, or over the whole crop."""
        if self.settings.loss == "hole":
            return L.inside_l1(made, truth, batch.invisible, batch.count("invisible"))
        return F.l1_loss(made, truth)

    def predict(self, batch: Batch) -> Result:
        """The raw prediction, cut to the range of pictures."""
        return Result(batch.modal, batch.amodal, image=self(batch).need("image").clamp(-1, 1))


@contextmanager
def playing(model: Baseline, turn: str) -> Iterator[list[nn.Parameter]]:
    """Only ``turn``'s parameters need gradients inside; the others are frozen, and as they were afterwards."""
    mine = model.turns()[turn]
    with alone(model, mine):
        yield mine


def build_model(name: str, task: str, seed: int = 0, **settings: Any) -> Baseline:
    """Build a model by its registry name; the same seed gives the same weights, and no other draw is disturbed.

    Raises:
        UserError: for an unknown model, a task that it does not have, or an unknown setting.
    """
    module = MODELS.get(name)
    if task not in module.TASKS:
        raise UserError(f"{name} has no task {task!r}; it has: {', '.join(module.TASKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module.build(task, **settings)


def composite(image: Tensor, painted: Tensor, invisible: Tensor) -> Tensor:
    """The prediction inside the invisible mask only, the input elsewhere (spec §4)."""
    return image * (1 - invisible) + painted * invisible
