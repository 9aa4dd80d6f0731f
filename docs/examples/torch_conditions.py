"""What the DiT of torch_dit.py hears, in plain torch: captions and image prompts, read from the same folder.

    conditions = load_conditions("OUT")
    prediction = dit(tokens, timestep, positions, **conditions(features))

features of a model with a text transformer of its own: "text", ids of the tokenizer in the folder, and "text_mask". Of
a model with frozen towers: their tokens "t5" and "eclip" with "t5_mask" and "eclip_mask", E-CLIP's "pooled" text, and
for image prompts its "patches" with "patches_mask". A tower that is left out is not heard.
"""

import torch
from torch import nn
from torch_dit import Attention, SwiGLU, linear, load_part, norm, read, rotary


def load_conditions(folder):
    weights, config = read(folder)
    shape = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    conditions = Conditions(config["experiment"], shape)
    for part, module in conditions.named_children():
        load_part(module, weights, part)
    return conditions.eval()


class Conditions(nn.Module):
    """features -> the arguments context, pooled and image of the DiT."""

    def __init__(self, config, shape):
        super().__init__()
        if "text.embedding" in shape:
            self.text = TextTransformer(config["text"])
        else:
            self.towers = Towers(shape)
        if "resampler.queries" in shape:
            depth, patches = config["towers"]["resampler_depth"], shape["resampler.norm.weight"][0]
            self.resampler = Resampler(shape["resampler.queries"], patches, depth, config["model"]["head_dim"])

    def forward(self, features):
        if hasattr(self, "text"):
            tokens, pooled = self.text(features["text"], features["text_mask"])
            return {"context": (tokens, features["text_mask"]), "pooled": pooled}
        found = self.towers(features)
        if "patches" in features:
            found["image"] = self.resampler(features["patches"], features["patches_mask"])
        return found


class Towers(nn.Module):
    """Each tower's tokens, normed and projected to one width, one tower after the other; and E-CLIP's pooled text."""

    def __init__(self, shape):
        super().__init__()
        for name in ("t5", "eclip", "pooled"):
            if f"towers.{name}.out.weight" in shape:
                setattr(self, name, Projection(*shape[f"towers.{name}.out.weight"]))

    def forward(self, features):
        heard = [name for name in ("t5", "eclip") if name in features]
        tokens = [getattr(self, name)(features[name]) for name in heard]
        found = {"context": (torch.cat(tokens, 1), torch.cat([features[f"{name}_mask"] for name in heard], 1))}
        if "pooled" in features:
            found["pooled"] = self.pooled(features["pooled"])
        return found


class Projection(nn.Module):
    def __init__(self, width, inputs):
        super().__init__()
        self.norm, self.out = norm(inputs), linear(inputs, width)

    def forward(self, x):
        return self.out(self.norm(x))


class Resampler(nn.Module):
    """E-CLIP's patches of a picture to a few tokens: learned queries attend to them."""

    def __init__(self, queries, patch_width, depth, head_dim):
        super().__init__()
        self.queries, self.norm = nn.Parameter(torch.zeros(queries)), norm(patch_width)
        self.blocks = nn.ModuleList(ResamplerBlock(queries[1], patch_width, head_dim) for _ in range(depth))

    def forward(self, patches, mask):
        patches, x = self.norm(patches), self.queries.expand(len(patches), -1, -1)
        for block in self.blocks:
            x = block(x, patches, mask)
        return x, mask.any(1, keepdim=True).expand(x.shape[:2])


class ResamplerBlock(nn.Module):
    def __init__(self, width, patch_width, head_dim):
        super().__init__()
        self.norm, self.attention = norm(width), Attention(width, head_dim, patch_width)
        self.mlp_norm, self.mlp = norm(width), SwiGLU(width)

    def forward(self, x, patches, mask):
        x = x + self.attention(self.norm(x), mask, context=patches)
        return x + self.mlp(self.mlp_norm(x))


class TextBlock(nn.Module):
    def __init__(self, width, head_dim):
        super().__init__()
        self.attention_norm, self.attention = norm(width), Attention(width, head_dim)
        self.mlp_norm, self.mlp = norm(width), SwiGLU(width)

    def forward(self, x, mask, rope):
        x = x + self.attention(self.attention_norm(x), mask, rope)
        return x + self.mlp(self.mlp_norm(x))


class TextTransformer(nn.Module):
    """Reads ids of the tokenizer in the folder; a caption's vector is the mean over its tokens."""

    def __init__(self, config):
        super().__init__()
        width, self.head_dim = config["width"], config["head_dim"]
        self.embedding, self.norm = nn.Parameter(torch.zeros(config["vocabulary"], width)), norm(width)
        self.blocks = nn.ModuleList(TextBlock(width, self.head_dim) for _ in range(config["depth"]))

    def forward(self, ids, mask):
        x, places = self.embedding[ids], torch.arange(ids.shape[1], device=ids.device)
        rope = rotary(places[:, None].expand(-1, 2), self.head_dim)
        for block in self.blocks:
            x = block(x, mask, rope)
        x, weight = self.norm(x), mask[..., None].to(x.dtype)
        return x, (x * weight).sum(1) / weight.sum(1).clamp(min=1)
