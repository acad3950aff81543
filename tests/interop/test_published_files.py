"""Files in packages of PyPI, where these are installed; none of them is imported."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl


def folder_of(package):
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated")
def test_silero_vad_torchscript(rng):
    """torch runs the file's own cell."""
    path = folder_of("silero_vad") / "data" / "silero_vad.jit"
    layers = fl.interop.torch.layers(path)
    assert {prefix: repr(layer) for prefix, layer in layers.items()} == {
        "_model.decoder.rnn.": "LSTM(128, 128)",
        "_model_8k.decoder.rnn.": "LSTM(128, 128)",
    }
    torch = pytest.importorskip("torch")
    model = torch.jit.load(path)
    for prefix, layer in layers.items():
        own = functools.reduce(getattr, prefix.split(".")[:-1], model)
        for name, tensor in own.named_parameters():
            assert_same_bits(layer.parameters()[f"{name}_l0"], tensor.detach().numpy(), name)
        x, h, c = rng.standard_normal((3, 4, 128), dtype=np.float32)
        with torch.inference_mode():
            expected = own(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
        _, state = layer(x[None], (h[None], c[None]))
        for got, wanted in zip(state, expected, strict=True):
            np.testing.assert_allclose(got[0], wanted.numpy(), rtol=0, atol=3e-6)


def test_silero_vad_safetensors(rng):
    path = folder_of("silero_vad") / "data" / "silero_vad_16k.safetensors"
    layer = fl.load(path)
    assert repr(layer) == "LSTM(128, 128)"
    torch = pytest.importorskip("torch")
    cell = torch.nn.LSTMCell(128, 128)
    own = pytest.importorskip("safetensors.torch").load_file(path)
    cell.load_state_dict({name: own[f"lstm_cell.{name}"] for name in cell.state_dict()})
    x = rng.standard_normal((7, 4, 128), dtype=np.float32)
    state = None
    with torch.inference_mode():
        for x_t in torch.from_numpy(x):
            state = cell(x_t, state)
    _, (h, c) = layer(x)
    np.testing.assert_allclose(h[0], state[0].numpy(), rtol=0, atol=3e-6)
    np.testing.assert_allclose(c[0], state[1].numpy(), rtol=0, atol=3e-6)


def grucell(x, h, w_ih, w_hh, b_ih, b_hh):
    """`grucell` of g2p_en/g2p.py."""
    rzn_ih = np.matmul(x, w_ih.T) + b_ih
    rzn_hh = np.matmul(h, w_hh.T) + b_hh
    third = rzn_ih.shape[-1] * 2 // 3
    rz = 1 / (1 + np.exp(-(rzn_ih[:, :third] + rzn_hh[:, :third])))
    r, z = np.split(rz, 2, -1)
    n = np.tanh(rzn_ih[:, third:] + r * rzn_hh[:, third:])
    return (1 - z) * n + z * h


def spell(arrays, word, encode, decode):
    """`predict` of g2p_en/g2p.py: the numbers of the phonemes, at most 20, to the end sign 3."""
    letters = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
    numbers = [letters.index(letter) if letter in letters else 1 for letter in word]
    h = encode(arrays["enc_emb"][[*numbers, 2]])
    phoneme, said = 2, []
    for _ in range(20):
        h = decode(arrays["dec_emb"][[phoneme]], h)
        phoneme = int((h @ arrays["fc_w"].T + arrays["fc_b"]).argmax())
        if phoneme == 3:
            break
        said.append(phoneme)
    return said


def test_g2p_en(rng):
    """Words that are in no dictionary, by the package's own cells and by layers."""
    path = folder_of("g2p_en") / "checkpoint20.npz"
    arrays = dict(np.load(path))
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    enc, dec = ([arrays[f"{side}_{name}"] for name in names] for side in ("enc", "dec"))
    encoder, decoder = fl.load(path, prefix="enc_"), fl.from_arrays(arrays, "dec_")

    def own_encode(x):
        h = np.zeros((1, 256), np.float32)
        for x_t in x:
            h = grucell(x_t[None], h, *enc)
        return h

    words = ["activationist", "moodpo", "fastlstm", "zeppelinesque", "x"]
    words += ["".join(rng.choice([*"aeiourstlnbdk"], size=rng.integers(2, 12))) for _ in range(30)]
    said = [spell(arrays, word, own_encode, lambda x, h: grucell(x, h, *dec)) for word in words]
    ours = [
        spell(
            arrays,
            word,
            lambda x: encoder(x[:, None])[1][0],
            lambda x, h: decoder(x[None], h[None])[1][0],
        )
        for word in words
    ]
    assert ours == said
    assert len({tuple(one) for one in said}) > 30


def test_g2pm(rng):
    """The package's two cells, in its own order of sums, over its own embeddings."""
    import pickle

    folder = folder_of("g2pM")
    arrays = pickle.loads((folder / "np_ckpt.pkl").read_bytes())
    lstm = fl.from_arrays(arrays)
    assert repr(lstm) == "LSTM(64, 32, bidirectional=True)"
    x = arrays["embedding.weight"][rng.integers(0, len(arrays["embedding.weight"]), size=30)]

    def cell(x, suffix):
        """`fw_lstm_cell` and `bw_lstm_cell` of g2pM/g2pM.py."""
        W, R, b, d = (
            arrays[f"lstm.{name}_l0{suffix}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, c, out = np.zeros(32), np.zeros(32), []
        for x_t in x:
            i, f, g, o = np.split(x_t @ W.T + b + h @ R.T + d, 4)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            out.append(h)
        return np.array(out)

    expected = np.concatenate([cell(x, ""), cell(x[::-1], "_reverse")[::-1]], axis=1)
    y, _ = lstm(x[:, None])
    np.testing.assert_allclose(y[:, 0], expected, rtol=0, atol=2e-6)

    def logits(hidden):
        first, second = (
            [arrays[f"logit_layer.{k}.{n}"] for n in ("weight", "bias")] for k in (0, 2)
        )
        return np.maximum(hidden @ first[0].T + first[1], 0) @ second[0].T + second[1]

    assert (logits(y[:, 0]).argmax(-1) == logits(expected).argmax(-1)).all()
