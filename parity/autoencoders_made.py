"""Autoencoders of made weights, the same here and in the suite: drawn by name, in whatever order."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# Keys of diffusers' AutoencoderKL: with and without attention, 1 x 1 convolutions, shortcuts, a shift, vectors of both.
KL = {
    "sd": {"block_out_channels": [16, 32, 32], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 8},
    "flux": {
        "block_out_channels": [8, 16],
        "layers_per_block": 2,
        "latent_channels": 16,
        "norm_num_groups": 4,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    },
    "plain": {
        "block_out_channels": [8, 16, 16, 24],
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "mid_block_add_attention": False,
        "latents_mean": [0.1, 0.2, -0.3, 0.0],
        "latents_std": [2.0, 1.0, 0.5, 1.0],
        "scaling_factor": 0.5,
    },
}
# Of the TAESD family: latent channels, and whether the lowest resolution pools.
TAESD = {"taesd": (4, False), "taef2": (32, True)}


def made_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values of a size that keeps activations near one: kernels by their fan-in, gains near one."""
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(size=shape)
    if len(shape) > 1:
        return (values * np.prod(shape[1:]) ** -0.5).astype(np.float32)
    return (0.1 * values + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)


def made_picture(height: int, width: int, batch: int = 2) -> np.ndarray:
    """uint8 (batch, height, width, 3): smooth colours with edges and noise."""
    rows, columns = np.mgrid[:height, :width]
    phase = np.arange(batch)[:, None, None, None] + np.arange(3)
    waves = np.sin(rows[..., None] / 5 + phase) * np.cos(columns[..., None] / 4 - phase)
    edges = ((rows // 8 + columns // 12) % 2)[None, :, :, None]
    noise = np.random.default_rng(7).normal(0, 8, waves.shape)
    return np.clip(127 + 70 * waves + 30 * edges + noise, 0, 255).astype(np.uint8)


def kl_config(kind: str) -> dict:
    """config.json as diffusers writes it."""
    count = len(KL[kind]["block_out_channels"])
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * count, "up_block_types": ["UpDecoderBlock2D"] * count}
    return {"_class_name": "AutoencoderKL", "act_fn": "silu", "in_channels": 3, "out_channels": 3, **blocks, **KL[kind]}


def write_kl(path: Path, kind: str, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A folder in the diffusers layout with made tensors of these names and shapes."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(kl_config(kind)))
    tensors = {name: made_tensor(name, shape) for name, shape in shapes.items()}
    save_file(tensors, str(path / "diffusion_pytorch_model.safetensors"))
    return path


def kl_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a diffusers file, from its description."""
    config = KL[kind]
    widths, layers, latent = config["block_out_channels"], config["layers_per_block"], config["latent_channels"]
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name, a, b, kernel=3):
        shapes.update({f"{name}.weight": (b, a, kernel, kernel), f"{name}.bias": (b,)})

    def norm(name, a):
        shapes.update({f"{name}.weight": (a,), f"{name}.bias": (a,)})

    def resnet(name, a, b):
        norm(f"{name}.norm1", a), conv(f"{name}.conv1", a, b), norm(f"{name}.norm2", b), conv(f"{name}.conv2", b, b)
        if a != b:
            conv(f"{name}.conv_shortcut", a, b, 1)

    def mid(name, a):
        resnet(f"{name}.resnets.0", a, a), resnet(f"{name}.resnets.1", a, a)
        if config.get("mid_block_add_attention", True):
            norm(f"{name}.attentions.0.group_norm", a)
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes.update({f"{name}.attentions.0.{part}.weight": (a, a), f"{name}.attentions.0.{part}.bias": (a,)})

    def side(name, order, blocks, count, resampler, ends):
        conv(f"{name}.conv_in", ends[0], order[0]), mid(f"{name}.mid_block", widths[-1])
        for i, (a, b) in enumerate(zip([order[0], *order], order)):
            for j in range(count):
                resnet(f"{name}.{blocks}.{i}.resnets.{j}", a if j == 0 else b, b)
            if i < len(order) - 1:
                conv(f"{name}.{blocks}.{i}.{resampler}.0.conv", b, b)
        norm(f"{name}.conv_norm_out", order[-1]), conv(f"{name}.conv_out", order[-1], ends[1])

    side("encoder", widths, "down_blocks", layers, "downsamplers", (3, 2 * latent))
    side("decoder", widths[::-1], "up_blocks", layers + 1, "upsamplers", (latent, 3))
    if config.get("use_quant_conv", True):
        conv("quant_conv", 2 * latent, 2 * latent, 1)
    if config.get("use_post_quant_conv", True):
        conv("post_quant_conv", latent, latent, 1)
    return shapes


def taesd_tensors(kind: str) -> dict[str, dict[str, np.ndarray]]:
    """The tensors of both files of one of the TAESD family, in half precision as published, by part."""
    channels, pooled = TAESD[kind]

    def conv(name, a, b, bias=True, kernel=3):
        return {f"{name}.weight": (b, a, kernel, kernel)} | ({f"{name}.bias": (b,)} if bias else {})

    def block(name, pooled=False):
        found = conv(f"{name}.conv.0", 64, 64) | conv(f"{name}.conv.2", 64, 64) | conv(f"{name}.conv.4", 64, 64)
        if pooled:
            found |= conv(f"{name}.pool.0", 64, 256, False, 1) | conv(f"{name}.pool.3", 256, 64, False, 1)
            found |= {f"{name}.pool.1.weight": (256,), f"{name}.pool.1.bias": (256,)}
        return found

    encoder = conv(0, 3, 64) | conv(14, 64, channels)
    decoder = conv(1, channels, 64) | conv(19, 64, 3)
    for i in (2, 6, 10):
        encoder |= conv(i, 64, 64, bias=False)
    for i in (7, 12, 17):
        decoder |= conv(i, 64, 64, bias=False)
    for i in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        encoder |= block(i, pooled and i > 10)
    for i in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        decoder |= block(i, pooled and i < 6)
    make = lambda part, shapes: {n: made_tensor(f"{part}.{n}", s).astype(np.float16) for n, s in shapes.items()}
    return {"encoder": make("encoder", encoder), "decoder": make("decoder", decoder)}


def write_taesd(path: Path, kind: str, suffix: str) -> Path:
    """A folder with both files, .safetensors or .pth."""
    path.mkdir()
    for part, tensors in taesd_tensors(kind).items():
        file = path / f"{kind}_{part}{suffix}"
        write_torch(file, tensors) if suffix == ".pth" else save_file(tensors, str(file))
    return path


def write_torch(path: Path, tensors: dict[str, np.ndarray], extra: bytes = b"") -> None:
    """What torch.save writes of a dict of half or single precision tensors, without torch: a zip of a pickle and of
    one file a tensor. `extra`: pickle operations before the dict's end."""
    out = io.BytesIO()
    out.write(pickle.PROTO + b"\x02" + pickle.GLOBAL + b"collections\nOrderedDict\n")
    out.write(pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.MARK)
    for number, (name, array) in enumerate(tensors.items()):
        kind = {"float16": "Half", "float32": "Float"}[array.dtype.name]
        out.write(_text(name) + pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK)
        out.write(pickle.MARK + _text("storage") + pickle.GLOBAL + f"torch\n{kind}Storage\n".encode())
        out.write(_text(str(number)) + _text("cpu") + _int(array.size) + pickle.TUPLE + pickle.BINPERSID + _int(0))
        steps = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
        out.write(_ints(array.shape) + _ints(steps) + pickle.NEWFALSE)
        out.write(pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE)
        out.write(pickle.TUPLE + pickle.REDUCE)
    out.write(extra + pickle.SETITEMS + pickle.STOP)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", out.getvalue())
        archive.writestr("archive/version", "3\n")
        for number, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{number}", array.tobytes())


def _text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def _int(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _ints(values) -> bytes:
    return pickle.MARK + b"".join(map(_int, values)) + pickle.TUPLE
