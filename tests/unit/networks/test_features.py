"""Feature networks: layers, input conventions, and every way to get weights or to be told why not."""

import functools
import http.server
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from raydom.config import ModelSpec, NetworkConfig
from raydom.errors import ConfigError, DataError
from raydom.networks import features
from raydom.networks.features import CAFFE, EncoderFeatures, Grid, load_features
from raydom.networks.unet import UNet

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def squeezenet() -> State:
    """A whole torchvision state dict, with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dict(torchvision.models.squeezenet1_1(weights=None).state_dict())


def shallow_vgg(blocks: int = 2, seed: int = 0) -> State:
    """VGG-19 cut after its first blocks, in torchvision's layout."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128)][: 2 * blocks]
    state = {}
    for index, inputs, outputs in sizes:
        state[f"features.{index}.weight"] = 0.05 * torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return state


def save(state: State, path: Path, **metadata: str) -> str:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path, metadata or None)
    else:
        torch.save(state, path)
    return str(path)


def test_features_are_those_of_torchvision_on_its_own_input(squeezenet: State, tmp_path: Path) -> None:
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    images = torch.rand(2, 3, 37, 50)
    reference = torchvision.models.squeezenet1_1(weights=None)
    reference.load_state_dict(squeezenet)
    expected = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(images)
    for stage in reference.features[:5]:
        expected = stage(expected)
    torch.testing.assert_close(network(images, ["relu1", "fire3"])["fire3"], expected)


def test_layers_bear_the_names_of_the_papers(squeezenet: State, tmp_path: Path) -> None:
    _, index = features._architecture("vgg19")
    assert list(index)[:5] == ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"]
    assert list(index)[-1] == "relu5_4" and len(index) == 16
    assert list(features._architecture("vgg16")[1])[-1] == "relu5_3"
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    assert network.layers == ("relu1", *(f"fire{number}" for number in range(2, 10)))


def test_nothing_beyond_the_deepest_layer_is_computed(tmp_path: Path) -> None:
    network = load_features("vgg19", save(shallow_vgg(), tmp_path / "w.safetensors"))
    network.stages[5] = torch.nn.Identity()  # would fail later, at 64 channels for 128
    network.stages[6].register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    assert set(network(torch.rand(1, 3, 8, 8), ["relu1_2"])) == {"relu1_2"}


def test_averages_can_be_pooled_with_the_same_weights(squeezenet: State, tmp_path: Path) -> None:
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    images = torch.rand(1, 3, 40, 40)
    before = network(images, ["relu1", "fire2"])
    averaged = network.with_pooling("average")
    pooled = torch.nn.functional.avg_pool2d(before["relu1"], 3, 2, ceil_mode=True)
    torch.testing.assert_close(averaged(images, ["fire2"])["fire2"], network.stages[3](pooled))
    assert torch.equal(network(images, ["fire2"])["fire2"], before["fire2"])
    assert averaged.stages[0].weight is network.stages[0].weight
    assert averaged.min_size_px(["fire4"]) == network.min_size_px(["fire4"])
    assert network.with_pooling("max") is network


def test_blocks_that_begin_at_the_stride_have_the_features_of_their_image(squeezenet: State, tmp_path: Path) -> None:
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    assert network.geometry(["relu1"]) == (2, 3)
    stride, receptive_field = network.geometry(["relu1", "fire3"])
    assert (stride, receptive_field) == (4, 23)  # 3; 4 more by the pooling; 8 more by each fire
    images = torch.rand(1, 3, 96, 96)
    whole, block = network(images, ["fire3"])["fire3"], network(images[..., 32:, 32:], ["fire3"])["fire3"]
    inner = receptive_field // stride + 1  # positions that see the border
    torch.testing.assert_close(block[..., inner:, inner:], whole[..., 8 + inner :, 8 + inner :])


@pytest.mark.parametrize("layer", ["relu1", "fire2", "fire4", "fire9"])
def test_the_smallest_side_is_exact(layer: str, squeezenet: State, tmp_path: Path) -> None:
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    side = network.min_size_px([layer])
    assert min(network(torch.rand(1, 3, side, side + 4), [layer])[layer].shape[2:]) == 1
    with pytest.raises(ConfigError, match=f"at least {side} px"):
        network(torch.rand(1, 3, side + 4, side - 1), [layer])
    with pytest.raises(RuntimeError):  # the network itself agrees
        network.stages[: network.layer_index[layer] + 1](torch.rand(1, 3, side - 1, side - 1))


def test_the_grid_of_a_layer_is_where_it_looks(squeezenet: State, tmp_path: Path) -> None:
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    vgg = load_features("vgg19", save(shallow_vgg(), tmp_path / "vgg.pth"))
    assert [network.grid(layer) for layer in ("relu1", "fire3", "fire4")] == [Grid(1, 2), Grid(3, 4), Grid(7, 8)]
    assert [vgg.grid(layer) for layer in ("relu1_2", "relu2_1")] == [Grid(0, 1), Grid(0.5, 2)]
    image = torch.zeros(1, 3, 41, 41)
    image[:, :, 21, 21] = 1.0
    seen = network(image, ["relu1"])["relu1"] - network(0 * image, ["relu1"])["relu1"]
    assert (seen.abs().sum(dim=(0, 1)) > 0).nonzero().tolist() == [[10, 10]]  # 1 + 2 * 10 = 21


def test_the_way_between_two_layers_is_that_of_the_network(squeezenet: State, tmp_path: Path) -> None:
    network = load_features("squeezenet1_1", save(squeezenet, tmp_path / "w.pth"))
    features = network(torch.rand(1, 3, 50, 37), ["relu1", "fire3", "fire6"])
    torch.testing.assert_close(network.between(features["relu1"], "relu1", "fire3"), features["fire3"])
    torch.testing.assert_close(network.between(features["fire3"], "fire3", "fire6"), features["fire6"])


def test_images_become_rgb_inputs_by_their_number_of_channels(tmp_path: Path) -> None:
    network = load_features("vgg19", save(shallow_vgg(), tmp_path / "w.safetensors"))
    gray, pair, rgb = (torch.rand(2, channels, 4, 5) for channels in (1, 2, 3))
    assert torch.equal(network.as_inputs(gray), gray.repeat(1, 3, 1, 1))
    assert network.as_inputs(pair).shape == (4, 3, 4, 5)
    assert torch.equal(network.as_inputs(pair)[1], pair[0, 1].expand(3, -1, -1))
    assert network.as_inputs(rgb) is rgb


def test_weights_are_frozen_float32_whatever_the_file_holds(squeezenet: State, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in squeezenet.items()}
    network = load_features("squeezenet1_1", save(half, tmp_path / "w.safetensors"))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not any(p.requires_grad or p.is_meta for p in network.parameters()) and not network.training


def test_all_key_layouts_give_the_same_network(tmp_path: Path) -> None:
    state = shallow_vgg()
    names = {"0": "conv1_1", "2": "conv1_2", "5": "conv2_1", "7": "conv2_2"}
    gatys = {f"{names[key.split('.')[1]]}.{key.split('.')[2]}": value for key, value in state.items()}
    bare = {key.removeprefix("features."): value for key, value in state.items()}
    whole = {**state, "classifier.0.weight": torch.zeros(2, 2)}
    digests = {
        load_features("vgg19", "torchvision:" + save(one, tmp_path / f"{number}.pth")).digest()
        for number, one in enumerate((state, gatys, bare, whole, {"state_dict": state}))
    }
    assert len(digests) == 1
    assert load_features("vgg19", save(shallow_vgg(seed=1), tmp_path / "x.pt")).digest() not in digests


def test_the_caffe_convention_is_recognised(tmp_path: Path) -> None:
    def convention(state: State, name: str, prefix: str = "", **metadata: str) -> str:
        return load_features("vgg19", prefix + save(state, tmp_path / name, **metadata)).convention.name

    state = shallow_vgg()
    assert convention(state, "w.safetensors") == "torchvision"
    assert convention(state, "vgg19-caffe.pth") == "caffe"
    assert convention(state, "w.safetensors", convention="caffe") == "caffe"
    assert convention(state, "w.pth", prefix="caffe:") == "caffe"
    assert convention(state, "vgg19-caffe.pth", prefix="torchvision:") == "torchvision"
    gatys = {"conv1_1.weight": state["features.0.weight"], "conv1_1.bias": state["features.0.bias"]}
    assert convention(gatys, "vgg_conv.pth") == "caffe"
    oxford = {key: value.clone() for key, value in state.items()}
    oxford["features.0.weight"][0, :, 0, 0] = torch.tensor([0.3413, 0.4641, 0.3943])
    assert convention(oxford, "d01eb7cb.pth") == "caffe"
    oxford["features.0.weight"] = oxford["features.0.weight"].flip(1)
    assert convention(oxford, "d01eb7cb.pth") == "caffe-rgb"


def test_caffe_sees_blue_first_in_0_to_255_around_its_mean() -> None:
    mean = torch.tensor([123.68, 116.779, 103.939]).reshape(1, 3, 1, 1) / 255
    torch.testing.assert_close(CAFFE(mean), torch.zeros(1, 3, 1, 1), atol=1e-5, rtol=0)
    red = torch.zeros(1, 3, 1, 1)
    red[:, 0] = 1.0
    torch.testing.assert_close(CAFFE(red + mean).flatten(), torch.tensor([0.0, 0.0, 255.0]), atol=1e-4, rtol=0)


def test_a_shortened_network_has_the_layers_that_it_has(tmp_path: Path) -> None:
    network = load_features("vgg19", save(shallow_vgg(), tmp_path / "w.safetensors"))
    assert network.layers == ("relu1_1", "relu1_2", "relu2_1", "relu2_2")
    with pytest.raises(ConfigError, match=r"no layer 'relu4_2'; it has relu1_1, relu1_2, relu2_1, relu2_2"):
        network(torch.rand(1, 3, 64, 64), ["relu4_2"])


def test_files_that_are_no_such_weights_are_refused(squeezenet: State, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no weights of vgg19"):
        load_features("vgg19", save(squeezenet, tmp_path / "squeezenet.pth"))
    with pytest.raises(DataError, match="none of its tensors"):
        load_features("vgg19", save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth"))
    holed = {key: value for key, value in shallow_vgg().items() if not key.startswith("features.2.")}
    with pytest.raises(DataError, match="stage 2 of vgg19 is missing"):
        load_features("vgg19", save(holed, tmp_path / "holed.safetensors"))
    broken = shallow_vgg() | {"features.0.bias": torch.full((64,), torch.nan)}
    with pytest.raises(DataError, match=r"0\.bias holds NaN"):
        load_features("vgg19", save(broken, tmp_path / "broken.pth"))
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(Path(save(shallow_vgg(), tmp_path / f"whole-{name}")).read_bytes()[:1000])
        with pytest.raises(DataError, match="cannot be read as weights"):
            load_features("vgg19", str(tmp_path / name))
    with pytest.raises(ConfigError, match="no file"):
        load_features("vgg19", str(tmp_path / "missing.pth"))
    with pytest.raises(ConfigError, match="unknown feature network 'vgg13'"):
        load_features("vgg13")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_weights_come_from_a_url_and_are_kept(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    path = Path(save(shallow_vgg(), folder / "w.safetensors"))
    first = load_features("vgg19", f"caffe:{address}/w.safetensors")
    assert first.convention.name == "caffe"
    path.unlink()
    assert load_features("vgg19", f"caffe:{address}/w.safetensors").digest() == first.digest()
    assert load_features("vgg19", f"{address}/w.safetensors").digest() != first.digest()  # seen in another convention
    with pytest.raises(ConfigError, match=r"cannot be fetched.*404"):
        load_features("vgg19", f"{address}/other.pth")
    assert [file.suffix for file in (tmp_path / "home/hub/checkpoints").iterdir()] == [".safetensors"]


def test_any_fsspec_address_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    path = save(shallow_vgg(), tmp_path / "w.safetensors")
    fsspec.filesystem("memory").put_file(path, "/weights/w.safetensors")
    assert load_features("vgg19", "memory://weights/w.safetensors").digest() == load_features("vgg19", path).digest()


def test_the_hub_cache_is_used_before_the_download(
    squeezenet: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    save(squeezenet, cached)
    assert load_features("squeezenet1_1").source == str(cached)


def test_when_weights_cannot_be_had_the_error_names_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(ConfigError, match=r"vgg19-dcbb9e9d\.pth") as caught:
        load_features("vgg19")
    for part in (str(tmp_path / "hub/checkpoints"), "download", "no network", "--weights"):
        assert part in str(caught.value)


def test_an_encoder_gives_the_features_of_its_unet() -> None:
    config = NetworkConfig(in_channels=2, base_channels=4, depth=2)
    unet = UNet(config).eval()
    spec = ModelSpec(
        network=config,
        channels=("a", "b"),
        low=0.1,
        high=0.6,
        pixel_size_um=None,
        total_stride=4,
        receptive_field_px=1,
    )
    encoder = EncoderFeatures(unet, spec, "runs/one")
    images = torch.rand(1, 2, 12, 8)
    found = encoder(encoder.as_inputs(images), encoder.layers)
    for level, expected in enumerate(unet.encode((images - 0.1) / 0.5)):
        torch.testing.assert_close(found[f"level{level}"], expected)
    assert encoder.min_size_px(["level2"]) == 4
    assert encoder(torch.rand(1, 2, 7, 5), ["level2"])["level2"].shape[2:] == (1, 1)
    with pytest.raises(ConfigError, match="trained on 2 channels and the images have 3"):
        encoder.as_inputs(torch.rand(1, 3, 8, 8))
