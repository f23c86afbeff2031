"""A model as a folder to share: the same bits come back, no code runs, and what is damaged ends in one sentence."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import dvae
from dvae.errors import InputError

pytest.importorskip("safetensors")


class Doubled(nn.Module):
    """An encoder from elsewhere without a config."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(6, 4)

    def forward(self, x):
        return 2 * self.map(x)


class Own(dvae.VAE):
    """A model of a user's."""


@pytest.fixture
def model():
    return dvae.DiscreteVAE(dvae.estimators.RELAX(), num_pixels=6, num_latents=4, num_layers=2, kl="analytic", beta=2.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_layers": 2},
        {"latent": "Categorical", "num_classes": 3, "estimator": dvae.estimators.REBAR()},
        {"encoder": dvae.networks.MLP(6, 4, [5]), "likelihood": dvae.likelihoods.Normal()},
        {"latent": "PlackettLuce"},
    ],
    ids=["layers", "classes", "networks", "orders"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_bits_come_back(arguments, dtype, tmp_path):
    model = dvae.DiscreteVAE(num_pixels=6, num_latents=4, **arguments).to(dtype)
    model.set_mean(torch.rand(6, dtype=dtype), torch.rand(6, dtype=dtype))
    twin = dvae.VAE.from_pretrained(model.save_pretrained(tmp_path / "shared"))
    assert type(twin) is dvae.DiscreteVAE
    assert twin.config == model.config
    assert not twin.training
    own, other = model.state_dict(), twin.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[name], other[name]) and own[name].dtype == other[name].dtype for name in own)


def test_a_code_on_a_grid_comes_back(tmp_path):
    networks = [{"class_path": f"dvae.networks.Residual{name}"} for name in ("Encoder", "Decoder")]
    model = dvae.VAE(dvae.estimators.LOO(), *networks, image_shape=(1, 8, 8), num_latents=8)
    model.save_pretrained(tmp_path)
    x = torch.rand(2, 1, 16, 16).round()
    assert torch.equal(dvae.VAE.from_pretrained(tmp_path).encode_ids(x), model.encode_ids(x))
    with pytest.raises(InputError, match=r"a model at another size, .*, is a copy: save the model that at"):
        model.at((1, 16, 16)).save_pretrained(tmp_path)


def test_the_card_says_what_it_is_how_it_is_used_and_how_good(model, tmp_path):
    model.save_pretrained(tmp_path / "digits", [("ELBO (nats)", "-99.50", "0.25")])
    card = (tmp_path / "digits" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: dvae\n")
    assert 'from_pretrained("digits")' in card
    assert "- latents: 4 Bernoulli, in each of 2 layers" in card
    assert "| ELBO (nats) | -99.50 | 0.25 |" in card
    assert "Evaluation" not in (model.save_pretrained(tmp_path / "plain") / "README.md").read_text()


def test_the_saved_class_must_be_of_the_one_that_is_asked(tmp_path):
    dvae.VAE(num_pixels=6, num_latents=4).save_pretrained(tmp_path)
    assert type(dvae.VAE.from_pretrained(tmp_path)) is dvae.VAE
    with pytest.raises(InputError, match=r"'dvae\.VAE' is not a subclass of DiscreteVAE|'dvae.models.VAE' is not a subclass"):
        dvae.DiscreteVAE.from_pretrained(tmp_path)


def test_classes_from_elsewhere_are_imported_with_trust_alone(tmp_path):
    model = Own(num_pixels=6, num_latents=4)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "class_path": "antigravity.Own"}))
    with pytest.raises(InputError, match=r"names classes outside dvae .*antigravity.Own.*: pass --trust"):
        dvae.VAE.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "init_args": {"latent": "antigravity.L"}, "class_path": "dvae.VAE"})
    )
    with pytest.raises(InputError, match=r"names classes outside dvae .*antigravity.L"):
        dvae.VAE.from_pretrained(tmp_path)


def test_a_network_without_a_config_is_asked_for(tmp_path):
    model = dvae.VAE(encoder=Doubled(), num_pixels=6, num_latents=4)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"encoder was given as an object of type .*Doubled"):
        dvae.VAE.from_pretrained(tmp_path)
    x = torch.rand(3, 6)
    assert torch.equal(dvae.VAE.from_pretrained(tmp_path, encoder=Doubled())(x), model(x))


def spoiled(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("model.safetensors", lambda content: content[:100], "model.safetensors is damaged or not in safetensors"),
        ("model.safetensors", lambda content: b"\xff" * 8 + content, "model.safetensors is damaged or not in safetensors"),
        ("model.safetensors", lambda content: b"", "model.safetensors is damaged or not in safetensors"),
        ("model.safetensors", lambda content: content.replace(b"mean_is_set", b"mean_is_met"), "does not fit the model it names"),
        ("model.safetensors", lambda content: content[:-8] + b"\xff" * 8, "must hold finite real numbers, but does not"),
        ("config.json", lambda content: content[:50], "config.json is damaged or no JSON"),
        ("config.json", lambda content: b"[" * 500_000, "config.json is damaged or no JSON"),
        ("config.json", lambda content: b" " * 2**21 + content, "config.json must be at most 1048576 bytes"),
        ("config.json", lambda content: b"[1]", "config.json must be a mapping with class_path and init_args"),
        ("config.json", lambda content: content.replace(b'"format": 1', b'"format": 9'), "must be of format 1, got 9"),
        ("config.json", lambda content: content.replace(b"dvae.DiscreteVAE", b"os.system"), "names classes outside dvae"),
        ("config.json", lambda content: content.replace(b"dvae.DiscreteVAE", b"dvae.config.Path"), "not a subclass of VAE"),
        ("config.json", lambda content: content.replace(b'"num_latents": 4', b'"num_latents": 400000000'), "far larger than"),
        ("config.json", lambda content: content.replace(b'"num_latents": 4', b'"num_latents": 5'), "does not fit the model"),
    ],
)  # fmt: skip
def test_a_damaged_file_ends_in_one_sentence(model, name, change, sentence, tmp_path):
    folder = spoiled(model.save_pretrained(tmp_path), name, change)
    with pytest.raises(InputError, match=sentence) as caught:
        dvae.VAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_deep_nesting_ends_in_one_sentence(model, tmp_path):
    folder = model.save_pretrained(tmp_path)
    deep = '{"a": ' * 900 + "1" + "}" * 900
    (folder / "config.json").write_text(f'{{"format": 1, "class_path": "dvae.VAE", "init_args": {{"encoder": {deep}}}}}')
    with pytest.raises(InputError):
        dvae.VAE.from_pretrained(folder)


def test_what_is_not_there_is_said(model, tmp_path):
    with pytest.raises(InputError, match=r"must have config.json and model.safetensors, as save_pretrained writes them; it has no"):
        dvae.VAE.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="revision is of a repository on the hub"):
        dvae.VAE.from_pretrained(tmp_path, revision="v1")


def test_a_model_comes_from_the_hub_and_goes_there(model, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    remote = {}

    def upload_folder(*, repo_id, folder_path, commit_message):
        remote[repo_id] = tmp_path / "remote"
        dvae.VAE.from_pretrained(folder_path).save_pretrained(remote[repo_id])
        assert 'from_pretrained("me/digits")' in Path(folder_path, "README.md").read_text()

    monkeypatch.setattr(hub, "create_repo", lambda name, private, exist_ok: SimpleNamespace(repo_id=name))
    monkeypatch.setattr(hub, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "hf_hub_download", lambda name, file, revision: str(remote[name] / file))
    model.push_to_hub("me/digits")
    x = torch.rand(3, 6)
    assert torch.equal(dvae.VAE.from_pretrained("me/digits").codes(x), model.codes(x))
    with pytest.raises(InputError, match="me/other is no folder here, and no model that can be had from the Hugging Face hub"):
        dvae.VAE.from_pretrained("me/other")
    monkeypatch.setattr(hub, "create_repo", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match="me/digits cannot be uploaded to the Hugging Face hub: ZeroDivisionError"):
        model.push_to_hub("me/digits")
