"""Models whose weights are quantised in blocks, in layers of the form that GGUF loaders for ComfyUI give them.

Weights are bytes in a tensor class of their own with the true shape beside them; layers derive from ComfyUI's casting
layers and turn the bytes into a weight in every forward. One kind of block (Q8_0: 32 int8 and one fp16 scale), written
after the format's description. Import after ComfyUI is on the path.
"""

import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from latent_critic_tiny_models import model

BLOCK = 32


class Blocks(torch.Tensor):
    """Bytes [blocks, 34], or plain values, that know their true shape and the patches that the layer lays over them."""

    def __new__(cls, data, **told):
        return super().__new__(cls, data)

    def __init__(self, data, *, tensor_type, tensor_shape, patches=()):
        super().__init__()
        self.tensor_type, self.tensor_shape, self.patches = tensor_type, tensor_shape, list(patches)

    def to(self, *args, **kwargs):
        found = super().to(*args, **kwargs)
        found.tensor_type, found.tensor_shape = self.tensor_type, self.tensor_shape
        found.patches = list(self.patches)
        return found

    def clone(self, *args, **kwargs):
        return self

    def detach(self):
        return self

    @property
    def shape(self):
        return self.tensor_shape


def quantised(weight):
    """A weight → its blocks."""
    values = weight.detach().float().reshape(-1, BLOCK)
    scale = (values.abs().amax(1, keepdim=True) / 127.0).half()
    rounded = (values / scale.float().clamp(min=1e-12)).round().clamp(-127, 127).to(torch.int8)
    data = torch.cat([scale.view(torch.uint8), rounded.view(torch.uint8)], 1)
    return Blocks(data, tensor_type="Q8_0", tensor_shape=weight.shape)


def plain(blocks):
    """Blocks → the weight in fp32, an ordinary tensor."""
    data = torch.Tensor.as_subclass(blocks, torch.Tensor)
    scale = data[:, :2].contiguous().view(torch.float16).float()
    return (scale * data[:, 2:].contiguous().view(torch.int8).float()).reshape(blocks.tensor_shape)


def in_blocks(tensor):
    """Whether it is quantised."""
    return isinstance(tensor, Blocks) and tensor.tensor_type != "F32"


class Layer:
    """Dequantises its weight in every forward."""

    comfy_cast_weights = True

    def is_ggml_quantized(self):
        return in_blocks(self.weight)

    def get_weight(self, tensor, dtype):
        if not in_blocks(tensor):
            return torch.Tensor.as_subclass(tensor, torch.Tensor).to(dtype)
        weight = plain(tensor).to(dtype)
        for patches, key in tensor.patches:
            weight = comfy.lora.calculate_weight(patches, weight, key)
        return weight

    def cast_bias_weight(self, given):
        bias = None if self.bias is None else self.get_weight(self.bias, given.dtype)
        return self.get_weight(self.weight, given.dtype), bias

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        if not self.is_ggml_quantized():
            super()._save_to_state_dict(destination, prefix, keep_vars)
            return
        for name, value in (("weight", self.weight), ("bias", self.bias)):
            if value is not None:
                destination[prefix + name] = torch.zeros(value.size(), dtype=value.dtype, device="meta")

    def forward_comfy_cast_weights(self, given):
        if self.is_ggml_quantized():
            return self.dequantised(given)
        out = super().forward_comfy_cast_weights(given)
        return torch.Tensor(out) if isinstance(out, Blocks) else out


class Layers(comfy.ops.manual_cast):
    """ComfyUI's layers, of which the large ones may hold blocks."""

    class Linear(Layer, comfy.ops.manual_cast.Linear):
        def dequantised(self, given):
            return torch.nn.functional.linear(given, *self.cast_bias_weight(given))

    class Conv2d(Layer, comfy.ops.manual_cast.Conv2d):
        def dequantised(self, given):
            return self._conv_forward(given, *self.cast_bias_weight(given))

    class GroupNorm(Layer, comfy.ops.manual_cast.GroupNorm):
        pass

    class LayerNorm(Layer, comfy.ops.manual_cast.LayerNorm):
        pass


class Patcher(comfy.model_patcher.ModelPatcher):
    """Hands patches of quantised weights to their layers."""

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False):
        weight = comfy.utils.get_attr(self.model, key)
        if key not in self.patches or not in_blocks(weight):
            super().patch_weight_to_device(key, device_to, inplace_update)
            return
        weight.patches = [(self.patches[key], key)]

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        if unpatch_weights:
            for weight in self.model.parameters():
                if isinstance(weight, Blocks):
                    weight.patches = []
        super().unpatch_model(device_to, unpatch_weights)


def gguf_model(family, seed=0):
    """A ModelPatcher with every large matrix in blocks, and how many these are."""
    patcher = model(family, seed, compute=torch.float32, layers=Layers)
    count = 0
    for module in patcher.model.diffusion_model.modules():
        large = isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and module.weight.numel() % BLOCK == 0
        for name, value in list(module.named_parameters(recurse=False)) if isinstance(module, Layer) else []:
            quantise = large and name == "weight"
            made = quantised(value) if quantise else Blocks(value.data, tensor_type="F32", tensor_shape=value.shape)
            setattr(module, name, torch.nn.Parameter(made, requires_grad=False))
            count += quantise
    made = Patcher(patcher.model, patcher.load_device, patcher.offload_device)
    return made, count


def rounded_model(family, seed=0):
    """The same weights, rounded in the same way, in ordinary tensors."""
    made = model(family, seed)
    with torch.no_grad():
        for module in made.model.diffusion_model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and module.weight.numel() % BLOCK == 0:
                module.weight.copy_(plain(quantised(module.weight)))
    return made
