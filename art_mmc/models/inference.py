"""
How a network is run while it does not learn: by a double made for the call. Modes, hooks and operator fusion are set on
the double alone, so that calls are safe beside each other and beside a training.
"""

import copy
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: how often an element of the input comes back in the maps of a typical network's convolutions
_WIDTH = 16

#: attributes of every module; types of values that refer to no module
_COMMON = frozenset((*nn.Module().__dict__, "_compiled_call_impl"))
_ATOMS = frozenset((int, float, str, bool, bytes, type(None), type, torch.Size, torch.dtype, torch.device))

#: a longer list or dictionary holds data, not modules
_LONGEST = 1000

#: convolution -> the batch normalisation that can be folded into it
_FOLDING: dict[type, type] = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


class Prepared:
    """
    A network as one call sees it: of each of its modules a double, of the same class with the same attributes and
    memory of the parameters, but with a mode, hooks and children of its own. What a forward pass of the user's own
    classes writes onto its modules reaches the originals.

    In training mode the doubles are on copies of the buffers, for `training` None each module is in its own mode; where
    the call is `learning`, the graph reaches the parameters, and buffers are the network's own. `fused` folds batch
    normalisation into the convolutions before it, equal to within rounding; `recurrent` leaves it and dropout in
    evaluation mode though `training`; of a module that is `watched` the outputs are kept.
    """

    def __init__(
        self,
        network: nn.Module,
        training: bool | None = False,
        learning: bool = False,
        fused: bool = False,
        recurrent: bool = False,
        watched: nn.Module | None = None,
    ) -> None:
        self.original, self.learning, self.watched = network, learning, watched
        self._training = training
        modules = list(network.modules())
        self._modes = {id(module): module.training if training is None else training for module in modules}
        if recurrent:
            self._modes.update({id(each): False for each in modules if isinstance(each, (_BatchNorm, _DropoutNd))})
        # replicas on several devices would run the fused forward of the double that they are copied from
        hooked = _watched(vars(torch_modules), "_global")
        self._fused = fused and not learning and not hooked and nn.DataParallel not in map(type, modules)
        self._doubles: dict[int, Any] = {}
        self._stateful: list[tuple[nn.Module, nn.Module, dict[str, Any]]] = []
        #: elements in the weights of the convolutions over images
        self.weights = convolution_weights(modules)
        #: outputs of the watched module in the last forward pass
        self.seen: list[Any] = []
        self.network = self._double(network)
        if watched is not None:
            if self._doubles.get(id(watched), watched) is watched:
                raise ValueError(f"layer {type(watched).__name__} is hidden in a module that runs as a whole.")
            seen = self.seen  # a hook that knew the doubles would keep them until garbage is collected
            self._doubles[id(watched)].register_forward_hook(lambda _module, _inputs, output: seen.append(output))

    def __call__(self, x: torch.Tensor, part: nn.Module | None = None, last: bool = False) -> Any:
        """What the network, or a part, gives for inputs (B, ...), left alone; `last` in channels-last format."""
        self.seen.clear()
        run = self.network if part is None else self._doubles[id(part)]
        copied = channels_last(x) if last else x
        outputs = run(copied.clone() if copied.data_ptr() == x.data_ptr() else copied)
        self.pass_on()
        return outputs

    def pass_on(self) -> None:
        """Give the modules what their doubles' forward passes wrote: counts, kept features, buffers put in others'
        place."""
        for module, double, before in self._stateful:
            for name, value in double.__dict__.items():
                if value is not before.get(name, before) and name not in _COMMON and not isinstance(value, nn.Module):
                    module.__dict__[name] = before[name] = value
            if not self.learning and not self._training:
                for name, value in double._buffers.items():
                    given = module._buffers.get(name)
                    if value is not None and given is not None and value is not self._doubles.get(id(given)):
                        module._buffers[name] = value
                        self._doubles[id(value)] = value

    def _double(self, module: nn.Module) -> nn.Module:
        """The double of a module, made when it is first asked for."""
        if id(module) in self._doubles:
            return self._doubles[id(module)]
        whole = self._whole(module)
        if whole is not None:
            self._doubles[id(module)] = whole
            return whole
        double = self._doubles[id(module)] = object.__new__(type(module))
        state = dict(module.__dict__)
        object.__setattr__(double, "__dict__", state)
        state["training"] = self._modes.get(id(module), module.training)
        state["_forward_hooks"] = module._forward_hooks.copy()
        state["_forward_pre_hooks"] = module._forward_pre_hooks.copy()
        state["_compiled_call_impl"] = None
        if not self.learning:
            apart = self._training is True
            state["_parameters"] = {name: self._alias(value) for name, value in module._parameters.items()}
            state["_buffers"] = {name: self._alias(value, apart) for name, value in module._buffers.items()}
        state["_modules"] = {
            name: None if child is None else self._double(child) for name, child in module._modules.items()
        }
        state |= {name: self._mapped(value) for name, value in module.__dict__.items() if name not in _COMMON}
        for name in _slots(type(module)):  # type: ignore[arg-type]
            if hasattr(module, name):
                object.__setattr__(double, name, self._mapped(getattr(module, name)))
        if self._fused and type(module) is nn.Sequential and "forward" not in state:
            state["forward"] = _fused(list(state["_modules"].values()))
        if not type(module).__module__.startswith("torch.nn."):
            self._stateful.append((module, double, dict(state)))
        return double

    def _whole(self, module: nn.Module) -> nn.Module | None:
        """What runs in the place of a module that has no parts to be doubled; None for any other."""
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore
            return module  # its first pass makes it another one
        compiled = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        scripted = isinstance(module, torch.jit.ScriptModule)
        if scripted or (compiled and self.watched is None):
            modes = [(part, self._modes.get(id(part), part.training)) for part in module.modules()]
            if not self._training and all(part.training == mode for part, mode in modes):
                return module
        if scripted:
            double = copy.deepcopy(module)
            for part, (_, mode) in zip(double.modules(), modes, strict=True):
                part.training = mode
            return double
        inner = module._modules.get("_orig_mod")
        if isinstance(module, DistributedDataParallel):
            inner = module.module
        return None if inner is None else self._double(inner)

    def _alias(self, tensor: torch.Tensor | None, apart: bool = False) -> torch.Tensor | None:
        """
        A parameter or buffer without a gradient, on the same memory or on a copy of it. Its version is its own: a
        training that changes the memory before a backward pass is over makes the gradient a mixture, not an error.
        """
        if tensor is None:
            return None
        if id(tensor) not in self._doubles:
            self._doubles[id(tensor)] = tensor.data.clone() if apart else tensor.data
        return self._doubles[id(tensor)]

    def _mapped(self, value: Any) -> Any:
        """An attribute's value with doubles in the place of the modules and parameters that it refers to."""
        if type(value) in _ATOMS:
            return value
        if isinstance(value, nn.Module):
            return self._double(value)
        if isinstance(value, nn.Parameter):
            return value if self.learning else self._alias(value)
        if id(value) not in self._doubles:
            self._doubles[id(value)] = value  # it may contain itself
            parts, put_together = _taken_apart(value)
            doubles = [self._mapped(part) for part in parts]
            if any(double is not part for double, part in zip(doubles, parts, strict=True)):
                self._doubles[id(value)] = put_together(doubles)
        return self._doubles[id(value)]


@cache
def _slots(cls: type) -> list[str]:
    return [name for base in cls.__mro__ for name in base.__dict__.get("__slots__", ())]


def _taken_apart(value: Any) -> tuple[Sequence[Any], Callable[[list[Any]], Any]]:
    """What a value refers to that may be a module, and how the like of it is made of other such things."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset) and len(value) <= _LONGEST:
        return list(value), kind
    if kind in (dict, OrderedDict) and len(value) <= _LONGEST:
        return list(value.values()), lambda parts: kind(zip(value, parts, strict=True))
    if kind is MethodType:
        return [value.__self__], lambda parts: MethodType(value.__func__, *parts)
    if kind is partial:
        return [value.func, value.args, value.keywords], lambda parts: partial(parts[0], *parts[1], **parts[2])
    if kind is weakref.ref:
        return [value()], lambda parts: weakref.ref(*parts)
    if kind is CellType and value != CellType():  # an empty one has no contents to ask for
        return [value.cell_contents], lambda parts: CellType(*parts)
    if kind is FunctionType and value.__closure__:

        def function(cells: list[Any]) -> Any:
            made = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells))
            made.__kwdefaults__ = value.__kwdefaults__
            return made

        return list(value.__closure__), function
    return [], list


# ------------------------------------------------------------------------------------------ fewer operations


def _watched(hooks: dict[str, Any], prefix: str) -> bool:
    """Whether there are hooks, of a module or of all modules."""
    return any(hooks[f"{prefix}_{each}_hooks"] for each in ("forward", "forward_pre", "backward", "backward_pre"))


def _is_plain(module: nn.Module, kind: Any) -> bool:
    """Whether a module computes what torch's own class does, and nobody watches it."""
    return (
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and getattr(type(module), "_conv_forward", None) is getattr(kind, "_conv_forward", None)
        and "forward" not in module.__dict__
        and not _watched(module.__dict__, "")
    )


def _folded(conv: Any, norm: Any = None) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A convolution and the batch normalisation by running statistics behind it as one; None if they are no such."""
    if not any(_is_plain(conv, kind) and _is_plain(norm, with_norm) for kind, with_norm in _FOLDING.items()):
        return None
    if norm.training or norm.running_mean is None or norm.running_mean.dtype != conv.weight.dtype:
        return None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return partial(conv._conv_forward, weight=weight, bias=bias)


def _fused(modules: list[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The `forward` of a double of an `nn.Sequential` in which a convolution and what is folded into it are one."""
    steps: list[Callable[[torch.Tensor], torch.Tensor]] = []  # made at the first call, when hooks are in place

    def fused_forward(x: torch.Tensor) -> torch.Tensor:
        if not steps:
            while modules:
                folded = _folded(*modules[:2])
                steps.append(folded or modules[0])
                del modules[: 2 if folded else 1]
        for step in steps:
            x = step(x)
        return x

    return fused_forward


# ------------------------------------------------------------------------------------------ memory format


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) with the channels of a pixel side by side in memory."""
    if x.shape[1] == 1:  # so anyway, but for the strides by which torch tells the format
        return x.contiguous().view(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether a processor has no instructions for bfloat16, and is many times slower in it than in float32."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # a torch without oneDNN can't tell
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def convolution_weights(modules: Iterable[nn.Module]) -> int:
    """Elements in the weights of a network's convolutions over images."""
    return sum(
        module.out_channels * module.in_channels // module.groups * math.prod(module.kernel_size)
        for module in modules
        if isinstance(module, nn.Conv2d)
    )


def favours_channels_last(weights: int, x: torch.Tensor, learning: bool = False) -> bool:
    """Whether convolutions of so many weights are faster channels last: a CPU then rearranges those, not maps."""
    if x.ndim != 4 or not len(x):
        return False
    if x.device.type == "cuda":  # the format of the tensor cores
        return learning or torch.is_autocast_enabled("cuda") or x.dtype in (torch.float16, torch.bfloat16)
    return x.device.type == "cpu" and x.dtype != torch.float64 and 0 < weights <= _WIDTH * x.numel()
