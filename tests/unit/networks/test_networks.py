"""What holds for every segmentation network that can be built by name."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raydom.config import NETWORKS, MaskRCNNConfig, NetworkConfig
from raydom.errors import ConfigError
from raydom.networks import library
from raydom.networks.build import build_network
from raydom.networks.reach import measured_reach
from raydom.networks.unet import UNet

SEMANTIC = [name for name in NETWORKS if name not in ("maskrcnn", "u2net", "hrnet_w30", "hrnet_w48")]


def small(name: str, /, seed: int = 0, weights: str | None = None, **options) -> nn.Module:
    fields = {"name": name, "base_channels": 4, "depth": 3, "encoder": "resnet18"} | options
    return build_network(NetworkConfig(**fields), seed, weights)


@pytest.mark.parametrize("name", SEMANTIC)
def test_any_size_channels_and_classes_go_through(name):
    network = small(name, in_channels=5, num_classes=3).eval()
    for shape in ((33, 7), (1, 65)):
        assert network(torch.rand(1, 5, *shape)).shape == (1, 3, *shape)
    assert network.total_stride in (8, 16, 32) and isinstance(network.receptive_field_px, int)


@pytest.mark.parametrize("name", SEMANTIC)
def test_same_seed_same_weights_and_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    first, second, other = (small(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("name", "channels"), [("hrnet_w30", 30), ("hrnet_w48", 48)])
def test_hrnet_joins_four_branches_each_twice_as_wide(name, channels):
    network = small(name, in_channels=1)
    assert network.network.head[0].in_channels == 15 * channels


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_measured_reach_of_a_unet_is_what_follows_from_its_layers(depth):
    network = UNet(NetworkConfig(base_channels=2, depth=depth))
    assert measured_reach(network, 1, 2**depth, 60) == network.receptive_field_px
    assert measured_reach(network, 1, 2**depth, network.receptive_field_px - 1) is None


def test_image_pooling_has_no_reach():
    class Pooled(nn.Module):
        def forward(self, x):
            return x + x.mean(dim=(-2, -1), keepdim=True)

    assert measured_reach(Pooled(), 1, 4, 30) is None


def test_a_block_with_the_halo_of_an_exact_network_gives_what_the_whole_image_gives():
    network = small("unetplusplus", in_channels=2).double().eval()
    assert network.exact
    halo = -(-network.receptive_field_px // 8) * 8
    image = torch.rand(1, 2, 16, 2 * halo + 64, dtype=torch.float64)
    whole = network(image)[..., halo + 24 : halo + 32]
    block = network(image[..., 24 : 2 * halo + 32])[..., halo : halo + 8]
    torch.testing.assert_close(block, whole, rtol=0, atol=1e-12)
    closer = network(image[..., 32 : 2 * halo + 32])[..., halo - 8 : halo]
    assert not torch.allclose(closer, whole, rtol=0, atol=1e-12)


def test_networks_that_see_the_whole_image_say_so():
    for name in ("deeplabv3", "deeplabv3plus", "hrnet_w18", "u2netp"):
        network = small(name)
        assert (network.exact, network.receptive_field_px) == (False, 128)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_an_encoder_takes_weights_from_a_file_for_any_number_of_channels(tmp_path, suffix):
    colour = small("deeplabv3plus", seed=5, in_channels=3).network.encoder.state_dict()
    path = str(tmp_path / f"resnet18.{suffix}")
    weights = colour | {"fc.weight": torch.zeros(1000, 512)}
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    image = torch.rand(1, 1, 32, 32)
    grey, two = (small("deeplabv3plus", weights=path, in_channels=n).eval().network.encoder for n in (1, 2))
    wanted = small("deeplabv3plus", weights=path, in_channels=3).eval().network.encoder(image.expand(-1, 3, -1, -1))
    assert torch.equal(two.layer4[0].conv1.weight, colour["layer4.0.conv1.weight"])
    torch.testing.assert_close(grey(image)[-1], wanted[-1], rtol=1e-4, atol=1e-5)
    assert torch.equal(two.conv1.weight[:, 1], 1.5 * colour["conv1.weight"][:, 1])


def test_weights_that_cannot_be_had_are_never_replaced_in_silence(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no file of weights '.*/none.pth'.* on every worker"):
        small("deeplabv3", weights=str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("no pickle")
    with pytest.raises(ConfigError, match=r"text.pth: no state dict can be read"):
        small("hrnet_w18", weights=str(tmp_path / "text.pth"))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(ConfigError, match=r"not those of this encoder: they lack bn1.weight.* --encoder"):
        small("maskrcnn", output="objects", weights=str(tmp_path / "part.pth"))
    with pytest.raises(ConfigError, match=r"unet has no encoder with pretrained weights"):
        small("unet", weights="imagenet")

    def offline(*_, **__):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(library, "hrnet_backbone", offline)
    monkeypatch.setattr(library, "_hrnet", lambda config: nn.ModuleDict({"encoder": nn.Conv2d(1, 1, 1)}))
    with pytest.raises(
        ConfigError, match=r"\(model.safetensors of timm/hrnet_w18\) cannot be had: no route to host. .*--weights FILE"
    ):
        small("hrnet_w18", weights="imagenet")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "unetplusplus", "encoder": "resnet35"}, "no encoder 'resnet35'; near it: .*resnet34"),
        ({"name": "unetplusplus", "depth": 6}, "depth of 3 to 5; got 6"),
        ({"name": "deeplabv3", "encoder": "vgg16"}, "cannot be made with the encoder 'vgg16'"),
        ({"name": "deeplabv3", "encoder": "tu-hrnet_w18"}, "cannot be made with the encoder 'tu-hrnet_w18'"),
        ({"name": "deeplabv3", "encoder": "tu-no_such_model"}, "cannot be made with the encoder 'tu-no_such_model'"),
        ({"name": "maskrcnn", "output": "objects", "encoder": "vgg16"}, "maskrcnn has an encoder of resnet18"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        build_network(NetworkConfig(**fields))


def test_outputs_and_networks_must_fit():
    with pytest.raises(ConfigError, match="got maskrcnn with output classes"):
        NetworkConfig(name="maskrcnn")
    with pytest.raises(ConfigError, match="got unet with output objects"):
        NetworkConfig(output="objects")
    with pytest.raises(ConfigError, match=r"five sides >= 1.*got \(8,\)"):
        MaskRCNNConfig(anchor_sizes_px=(8,))
    with pytest.raises(ConfigError, match="min_score must be between 0 and 1; got 2"):
        MaskRCNNConfig(min_score=2)
