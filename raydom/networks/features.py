"""Feature networks for style losses: what images look like to a trained network, layer by layer.

Each network knows its input convention, its layers by name, and which of them carry style and content by default.
Weights come from a path or URL that the caller names, else from torch's hub cache, else from torchvision's download;
the network ``raydom`` needs none.
"""

import copy
import hashlib
import logging
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.config import FEATURES, ModelSpec
from raydom.errors import ConfigError, DataError
from raydom.networks.filters import filter_stages
from raydom.networks.unet import UNet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InputConvention:
    """How a network wants its pixels: in this channel order, times ``scale``, minus ``mean``, over ``std``."""

    name: str
    bgr: bool
    scale: float
    mean: tuple[float, float, float]
    """In the network's channel order, after scaling."""
    std: tuple[float, float, float]

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Network input for RGB fractions 0..1."""
        images = images.flip(1) if self.bgr else images
        mean, std = (images.new_tensor(values).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images * self.scale - mean) / std


@dataclass(frozen=True, slots=True)
class FractionRange:
    """How a segmenter wants its pixels: these fractions of the legal range as 0 and 1."""

    low: float
    high: float

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.low) / (self.high - self.low)


TORCHVISION = InputConvention("torchvision", False, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = InputConvention("caffe", True, 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
CAFFE_RGB = InputConvention("caffe-rgb", False, 255.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
"""Caffe's weights with the first layer's input channels turned to RGB, as some converters do."""
CENTRED = InputConvention("centred", False, 1.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
_CONVENTIONS = {convention.name: convention for convention in (TORCHVISION, CAFFE, CAFFE_RGB)}
FORCED_CONVENTIONS = tuple(f"{name}:" for name in _CONVENTIONS)
"""Prefixes of a weights path that force its input convention."""

PAPER_STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
PAPER_CONTENT_LAYERS = ("relu4_2",)
"""The layers of Gatys et al. in VGG. They rearrange textures, as a painting does."""
PAPER_HYPERCOLUMN_LAYERS = (
    *("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3"),
    *("relu4_3", "relu5_3"),
)
"""The layers of Kolkin et al. in VGG-16: with the three colours, 2179 channels."""
_HYPERCOLUMN_LAYERS = {
    "vgg19": PAPER_HYPERCOLUMN_LAYERS,
    "vgg16": PAPER_HYPERCOLUMN_LAYERS,
    "squeezenet1_1": ("relu1", "fire2", "fire3"),
}
"""SqueezeNet's without the deeper ones, which change what a segmenter must find: F1 on a DRIVE -> CHASE image 0.58 with
the first three layers, 0.43 with five, at twice the time (from the matched image)."""
_SHALLOW = (("relu1_1",), ("relu1_1",))
_DEFAULT_LAYERS = {"vgg19": _SHALLOW, "vgg16": _SHALLOW, "squeezenet1_1": (("relu1",), ("relu1",))}
"""Style and content layers. Shallow, because a segmenter needs every structure where it was; measured on fundus images:
SqueezeNet's first layer gains, and each deeper layer loses."""

_CAFFE_CORNERS = {"vgg19": (0.3413, 0.4641, 0.3943), "vgg16": (0.42947, 0.55038, 0.48001)}
"""Top left weights, for B, G and R, of the first filter of the networks that Oxford published for Caffe."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the positions of a layer lie in the image: the first at ``offset_px``, then one each ``stride_px``."""

    offset_px: float
    """Centre of the first position; that of the image's first pixel is 0."""
    stride_px: int


class FeatureNetwork(nn.Module):
    """A frozen stack of layers that returns what the named ones see. Float32, evaluation mode, no gradients of its own.

    Attributes:
        layers: Names of all layers that can be asked for, shallow to deep.
        default_style_layers, default_content_layers: What style transfer uses unless told otherwise.
        default_hypercolumn_layers: Likewise, where features of all depths are put side by side.
        source: Where the weights came from, for messages and logs.
    """

    sees_display_range = True
    """Whether images are shown to the network stretched to 0..1 (photographs), or as fractions of the legal range."""
    in_channels = 3

    def __init__(
        self,
        name: str,
        stages: nn.Sequential,
        layer_index: Mapping[str, int],
        convention: Callable[[Tensor], Tensor],
        *,
        style_layers: Sequence[str],
        content_layers: Sequence[str],
        hypercolumn_layers: Sequence[str] = (),
        source: str,
    ) -> None:
        """
        Args:
            name: For messages.
            stages: The layers in turn.
            layer_index: The stage after which each named layer is read.
            convention: Makes network inputs of images.
            style_layers: Style layers by default.
            content_layers: Content layers by default.
            hypercolumn_layers: Hypercolumn layers by default, as far as the network has them. Empty: all.
            source: Where the weights came from.
        """
        super().__init__()
        self.name = name
        self.stages = stages
        self.convention = convention
        self.layer_index = {layer: index for layer, index in layer_index.items() if index < len(stages)}
        self.layers = tuple(self.layer_index)
        self.default_style_layers = tuple(style_layers)
        self.default_content_layers = tuple(content_layers)
        self.default_hypercolumn_layers = tuple(
            layer for layer in hypercolumn_layers or self.layers if layer in self.layers
        )
        self.source = source
        self.eval().requires_grad_(False)

    def forward(self, inputs: Float[Tensor, "n c h w"], layers: Sequence[str]) -> dict[str, Tensor]:
        """Features at the named layers.

        Args:
            inputs: What ``as_inputs`` makes of images: RGB in 0..1, for the networks trained on ImageNet.
            layers: Names out of ``self.layers``. Nothing deeper than the deepest is computed.

        Returns:
            For each layer, features (n, channels, height, width).

        Raises:
            ConfigError: For an unknown layer, or images smaller than the layers need.
        """
        self.check(layers, inputs.shape[2:])
        names = {self.layer_index[layer]: layer for layer in layers}
        features: dict[str, Tensor] = {}
        x = self.convention(inputs).contiguous(memory_format=torch.channels_last)  # 1.5x faster on CPUs
        for index, stage in enumerate(self.stages[: max(names, default=-1) + 1]):
            x = stage(x)
            if index in names:
                features[names[index]] = x
        return features

    def with_pooling(self, pooling: str) -> "FeatureNetwork":
        """This network, its weights shared, that pools with the ``max`` (itself) or the ``average`` of each window."""
        if pooling == "max":
            return self
        other = copy.copy(self)
        other._modules = dict(self._modules)  # else the copy's stages would be this network's too
        other.stages = nn.Sequential(
            *(
                nn.AvgPool2d(stage.kernel_size, stage.stride, stage.padding, stage.ceil_mode)
                if isinstance(stage, nn.MaxPool2d)
                else stage
                for stage in self.stages
            )
        )
        return other

    def as_inputs(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "m k h w"]:
        """Images of any number of channels as RGB images, ``m = n`` or ``n * c``, those of one image side by side.

        Three channels are RGB. One channel is repeated. Two, or more than three, have no common colour meaning: each
        channel becomes a gray image of its own.
        """
        n, channels, height, width = images.shape
        if channels == 3:
            return images
        return images.reshape(n * channels, 1, height, width).expand(-1, 3, -1, -1)

    def check(self, layers: Sequence[str], shape: Sequence[int]) -> None:
        """Refuse unknown layers and images that are too small for them.

        Raises:
            ConfigError: Naming the layers that there are, or the smallest side.
        """
        for layer in layers:
            if layer not in self.layers:
                raise ConfigError(
                    f"feature network {self.name} (weights: {self.source}) has no layer {layer!r}; "
                    f"it has {', '.join(self.layers)}."
                )
        needed = self.min_size_px(layers)
        if min(shape) < needed:
            raise ConfigError(
                f"an image of {shape[0]} x {shape[1]} px is too small for layer {self._deepest(layers)} of "
                f"{self.name}, which needs sides of at least {needed} px; choose shallower layers, a pointwise method "
                "(meanstd, histogram), or a larger image."
            )

    def min_size_px(self, layers: Sequence[str]) -> int:
        """Smallest image side, px, from which the layers have at least one position."""
        depth = self.layer_index[self._deepest(layers)] + 1 if layers else 0
        size = 1
        while not all(side > 0 for side in _sides(self.stages[:depth], size)):
            size += 1
        return size

    def floats_per_px(self, layers: Sequence[str]) -> float:
        """About how many numbers a pixel costs in memory while an image is optimised through these layers.

        All activations twice (they and what is kept of them for the gradient) and the largest six times more; measured
        on VGG-19 and SqueezeNet, and right to a third there.
        """
        sizes: list[int] = []

        def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not getattr(module, "inplace", False):
                sizes.append(output.numel())

        parts = [part for part in self.stages.modules() if not list(part.children())]
        hooks = [part.register_forward_hook(count) for part in parts]
        side = max(64, self.min_size_px(layers))
        device = next(iter(self.state_dict().values())).device
        try:
            with torch.inference_mode():
                self(torch.zeros(1, self.in_channels, side, side, device=device), layers)
        finally:
            for hook in hooks:
                hook.remove()
        return (2 * sum(sizes) + 6 * max(sizes)) / side**2 + 30

    def geometry(self, layers: Sequence[str]) -> tuple[int, int]:
        """Stride and receptive field, px, of the deepest of the layers.

        A block that begins at a multiple of the stride has the feature positions of its image, and the features there
        are the image's but for what looks beyond the block.
        """
        stride, receptive_field = 1, 1
        for kernel, step, _, _ in _windows(self.stages[: self.layer_index[self._deepest(layers)] + 1]):
            receptive_field += (kernel - 1) * stride
            stride *= step
        return stride, receptive_field

    def grid(self, layer: str) -> Grid:
        """Where the positions of a layer lie."""
        offset, stride = 0.0, 1
        for kernel, step, padding, _ in _windows(self.stages[: self.layer_index[layer] + 1]):
            offset += ((kernel - 1) / 2 - padding) * stride
            stride *= step
        return Grid(offset, stride)

    def between(self, features: Float[Tensor, "n c h w"], first: str, last: str) -> Float[Tensor, "n c2 h2 w2"]:
        """Features at layer ``last`` of what has these features at the shallower layer ``first``. Has gradients."""
        for stage in self.stages[self.layer_index[first] + 1 : self.layer_index[last] + 1]:
            features = stage(features)
        return features

    def _deepest(self, layers: Sequence[str]) -> str:
        return max(layers, key=self.layers.index)

    def digest(self) -> str:
        """A short hash of the weights and the input convention, for fingerprints."""
        total = hashlib.sha256(repr(self.convention).encode())
        for key, value in self.state_dict().items():
            total.update(key.encode())
            total.update(value.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()[:20]


class EncoderFeatures(FeatureNetwork):
    """The encoder of a trained U-Net as feature network, with layers ``level0`` (full size) to the bottleneck.

    Images are fractions of the legal range, of the U-Net's own number of channels, normalised as its inputs are. Sides
    that the poolings do not divide lose their last row or column there, as in any feature network.
    """

    sees_display_range = False

    def __init__(self, unet: UNet, spec: ModelSpec, source: str) -> None:
        """
        Args:
            unet: Trained; its weights are frozen and shared, not copied.
            spec: Tells the number of channels and the intensities that are 0 and 1 to the network.
            source: Where the model came from, for messages.
        """
        parts: list[nn.Module] = [unet.encoder[0]]
        for level in list(unet.encoder)[1:]:
            parts += [unet.pool, level]
        levels = {f"level{level}": 2 * level for level in range(len(unet.encoder))}
        super().__init__(
            f"encoder:{source}",
            nn.Sequential(*parts),
            levels,
            FractionRange(spec.low, spec.high),
            style_layers=list(levels)[:1],
            content_layers=list(levels)[:1],
            source=source,
        )
        self.in_channels = spec.network.in_channels

    def as_inputs(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images as they are.

        Raises:
            ConfigError: If the segmenter was trained on another number of channels.
        """
        if images.shape[1] != self.in_channels:
            raise ConfigError(
                f"{self.name} was trained on {self.in_channels} channels and the images have {images.shape[1]}; "
                f"choose one of {', '.join(FEATURES)} as features."
            )
        return images


def _sides(stages: nn.Sequential, size: int) -> list[int]:
    """Sides after each stage for an input side; 0 where a window does not fit."""
    sides = [size]
    for kernel, stride, padding, ceil_mode in _windows(stages):
        room = sides[-1] + 2 * padding - kernel
        sides.append((room + (stride - 1) * ceil_mode) // stride + 1 if room + (stride - 1) * ceil_mode >= 0 else 0)
    return sides


def _windows(stages: nn.Sequential) -> list[tuple[int, int, int, bool]]:
    """Kernel, stride, padding and ceil mode of the convolutions and poolings, in order."""
    # Convolutions that run side by side (SqueezeNet's fires) keep the size, and all but one look at one pixel: taking
    # them in turn is right, too.
    found = []
    for module in (part for stage in stages for part in stage.modules()):
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            kernel, stride, padding = (_first(v) for v in (module.kernel_size, module.stride, module.padding))
            found.append((kernel, stride, padding, not isinstance(module, nn.Conv2d) and module.ceil_mode))
    return found


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


# --------------------------------------------------------------------------------------------------------- weights


def load_features(name: str, weights: str | None = None) -> FeatureNetwork:
    """A feature network by name: raydom's own, which has no weights, or one trained on ImageNet.

    Args:
        name: raydom, vgg19, vgg16 or squeezenet1_1. raydom's layers are named ``level1`` ... ``level5``, VGG's
            ``relu1_1`` ... ``relu5_4`` (vgg16: ``relu5_3``), SqueezeNet's ``relu1``, ``fire2`` ... ``fire9``.
        weights: Path or URL (http, https, s3, ...) of a state dict, safetensors or torch, float16 or float32, in
            torchvision's key layout (with or without ``features.``) or that of Gatys' ``vgg_conv.pth``
            (``conv1_1.weight``). A network cut short (up to some layer) has the layers that it has. None: torch's hub
            cache, then torchvision's download.

            VGG exists in two input conventions: torchvision's (RGB, mean and deviation of 0..1) and Caffe's, which
            Gatys used (BGR, 0..255 minus the mean). A file is taken as Caffe's if its metadata says
            ``convention: caffe``, if its name contains "caffe" or its keys are Gatys', or if its first filter is that
            of Oxford's published networks (whose channel order is then seen, too). ``caffe:PATH``,
            ``caffe-rgb:PATH`` and ``torchvision:PATH`` force one.

    Raises:
        ConfigError: If the network is unknown or its weights cannot be had; says where they are looked for.
        DataError: If the file is not what it should be.
    """
    if name not in FEATURES:
        raise ConfigError(f"unknown feature network {name!r}; choose one of {', '.join(FEATURES)}, or encoder:RUN.")
    if name == "raydom":
        return _filter_features(weights)
    forced, path = _find_weights(name, weights)
    state, convention = _read_state(path)
    stages, layer_index = _architecture(name)
    style_layers, content_layers = _DEFAULT_LAYERS[name]
    stages = _fill(stages, _feature_keys(state, layer_index), name, path)
    if forced is None:
        forced = convention or _recognise(name, state, stages, path)
    return FeatureNetwork(
        name,
        stages,
        layer_index,
        _CONVENTIONS[forced],
        style_layers=style_layers,
        content_layers=content_layers,
        hypercolumn_layers=_HYPERCOLUMN_LAYERS[name],
        source=str(path),
    )


def _filter_features(weights: str | None) -> FeatureNetwork:
    if weights is not None:
        raise ConfigError(
            f"--weights {weights}: the feature network raydom is made by a formula and has none to load; leave them "
            "out, or name the network that they are of in --features."
        )
    stages, layer_index = filter_stages()
    return FeatureNetwork(
        "raydom",
        stages,
        layer_index,
        CENTRED,
        style_layers=("level1",),
        content_layers=("level1",),
        hypercolumn_layers=("level1", "level2", "level3"),
        source="raydom.networks.filters",
    )


def _architecture(name: str) -> tuple[nn.Sequential, dict[str, int]]:
    """The convolutional part of a torchvision network, without memory for weights yet, and where its layers are."""
    import torchvision  # slow, and not needed to describe a run

    with torch.device("meta"):
        stages = torchvision.models.get_model(name, weights=None).features
    if name == "squeezenet1_1":
        fires = (i for i, stage in enumerate(stages) if type(stage).__name__ == "Fire")
        return stages, {"relu1": 1} | {f"fire{number}": i for number, i in enumerate(fires, start=2)}
    block, number, layer_index = 1, 1, {}
    for i, stage in enumerate(stages):
        if isinstance(stage, nn.ReLU):
            layer_index[f"relu{block}_{number}"] = i
            number += 1
        elif isinstance(stage, nn.MaxPool2d):
            block, number = block + 1, 1
    return stages, layer_index


def _cached_weights(name: str) -> tuple[str, Path]:
    """Where torchvision's weights of a network are downloaded from, and where they are then."""
    import torchvision

    url = str(torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url)
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]


def _find_weights(name: str, weights: str | None) -> tuple[str | None, Path]:
    """The forced convention, if any, and a local file, fetched when need be."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if weights is None:
        url, path = _cached_weights(name)
        if not path.is_file():
            try:
                _fetch(url, path, hash_prefix=path.stem.rsplit("-", 1)[1])
            except (OSError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"weights of the feature network {name} cannot be had: not in torch's hub cache ({path}), and the "
                    f"download from {url} failed ({error}). Either give a file (--weights, a path or URL of a "
                    f".safetensors, .pt or .pth state dict), or put torchvision's {path.name} into {cache}, or run "
                    "once where the download works."
                ) from error
        return None, path
    prefix, _, rest = weights.partition(":")
    forced, where = (prefix, rest) if prefix in _CONVENTIONS else (None, weights)
    if "://" not in where:
        path = Path(where).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"--weights: there is no file {where} (weights of {name}). Give the path or URL of a state dict, or "
                "leave it out to use torch's hub cache or torchvision's download."
            )
        return forced, path
    path = cache / f"{hashlib.sha256(where.encode()).hexdigest()[:12]}-{where.split('?')[0].rsplit('/', 1)[1]}"
    if not path.is_file():
        try:
            _fetch(where, path)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            raise ConfigError(
                f"--weights: {where} (weights of {name}) cannot be fetched: {error}. Check the address, or give the "
                "path of a local file."
            ) from error
    return forced, path


def _fetch(url: str, path: Path, hash_prefix: str | None = None) -> None:
    """Download to ``path``, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.warning("fetching %s to %s", url, path)
    if url.startswith(("http://", "https://")):
        # torch waits for ever where a firewall drops packets; this gives up.
        with urllib.request.urlopen(url, timeout=20):
            pass
        torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=False)
        return
    import fsspec

    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        filesystem, remote = fsspec.core.url_to_fs(url)
        filesystem.get_file(remote, str(unfinished))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_state(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Tensors by name, and the input convention if the file states one."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
                convention = (file.metadata() or {}).get("convention")
        else:
            state, convention = torch.load(path, map_location="cpu", weights_only=True), None
            state = state.get("state_dict", state)
    except Exception as error:  # each format has its own; all mean the same
        raise DataError(
            f"{path}: cannot be read as weights ({error}). It should be a safetensors file, or a torch state dict of "
            "tensors only; delete it if a download was cut short."
        ) from error
    if convention is not None and convention not in _CONVENTIONS:
        raise DataError(
            f"{path}: states the input convention {convention!r}; known are {', '.join(_CONVENTIONS)}. "
            "Force one as in --weights caffe:PATH."
        )
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}, convention


def _feature_keys(state: Mapping[str, Tensor], layer_index: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors under the keys of torchvision's ``features``; others (the classifier) left out."""
    renamed = {}
    for key, value in state.items():
        module, _, kind = key.removeprefix("features.").rpartition(".")
        if module.startswith("conv") and module.replace("conv", "relu", 1) in layer_index:
            module = str(layer_index[module.replace("conv", "relu", 1)] - 1)
        if module.split(".")[0].isdigit():
            renamed[f"{module}.{kind}"] = value
    return renamed


def _fill(stages: nn.Sequential, weights: Mapping[str, Tensor], name: str, path: Path) -> nn.Sequential:
    """The stages for which there are weights, filled with them."""
    expected = stages.state_dict()
    strangers = [key for key in weights if key not in expected]
    wrong = [key for key in weights if key in expected and weights[key].shape != expected[key].shape]
    if strangers or wrong or not weights:
        problem = (
            f"{strangers[0]} is no part of it"
            if strangers
            else f"{wrong[0]} has shape {tuple(weights[wrong[0]].shape)}, not {tuple(expected[wrong[0]].shape)}"
            if wrong
            else "none of its tensors is a feature layer"
        )
        raise DataError(f"{path}: holds no weights of {name}: {problem}. Give the weights of {name}.")
    missing = {int(key.split(".")[0]) for key in expected if key not in weights}
    depth = min(missing, default=len(stages))
    beyond = [key for key in weights if int(key.split(".")[0]) >= depth]
    if beyond:
        raise DataError(f"{path}: stage {depth} of {name} is missing although {beyond[0]} is there.")
    values = {key: value.to(torch.float32, copy=True) for key, value in weights.items()}
    for key, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise DataError(f"{path}: {key} holds NaN or infinity. Fetch the file again.")
    stages = stages[:depth]
    stages.load_state_dict(values, assign=True)
    return stages


def _recognise(name: str, state: Mapping[str, Tensor], stages: nn.Sequential, path: Path) -> str:
    """The input convention of weights that do not state it."""
    if name not in _CAFFE_CORNERS:
        return TORCHVISION.name
    first = stages[0].weight[0, :, 0, 0].detach()  # type: ignore[index, union-attr, operator]
    corner = torch.tensor(_CAFFE_CORNERS[name])
    if torch.allclose(first, corner, rtol=0.0, atol=2e-3):
        return CAFFE.name
    if torch.allclose(first, corner.flip(0), rtol=0.0, atol=2e-3):
        return CAFFE_RGB.name
    return CAFFE.name if "caffe" in path.name.lower() or "conv1_1.weight" in state else TORCHVISION.name
