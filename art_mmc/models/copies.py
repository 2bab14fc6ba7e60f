"""
Copies of a network, fresh weights, and fresh optimizers.

What has the parameters is given as one or several things, the network and its loss; those that are no modules have
none.
"""

import copy
import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

T = TypeVar("T")

#: steps by which a spectral norm finds the largest singular value of new weights, as torch's own begins
_POWER_STEPS = 15


def _networks(things: Any) -> list[nn.Module]:
    return [each for each in (things if isinstance(things, (list, tuple)) else [things]) if isinstance(each, nn.Module)]


def _named(things: Any) -> list[tuple[str, nn.Parameter]]:
    """Parameters by name, shared ones by each of their names; later networks' names begin with their number."""
    return [
        (f"{number}.{name}" if number else name, parameter)
        for number, network in enumerate(_networks(things))
        for name, parameter in network.named_parameters(remove_duplicate=False)
    ]


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, shared ones by each of their names."""
    return {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}


def _computed(value: Any) -> Iterator[torch.Tensor]:
    """The results of computations in a module's attributes, which torch does not copy."""
    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, (list, tuple, dict)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _computed(entry)


def detached(things: Any) -> dict[int, Any]:
    """The `memo` for `copy.deepcopy` of a network whose modules may keep what they computed in their last pass."""
    modules = [module for network in _networks(things) for module in network.modules()]
    return {id(tensor): tensor.detach().clone() for module in modules for tensor in _computed(module.__dict__)}


def copied(things: T) -> T:
    """A deep copy of the network, or of several things; what they share, the copies share."""
    return copy.deepcopy(things, detached(things))


def draw_anew(things: Any) -> None:
    """Draw all trained weights anew, in place, by the modules' own methods; ValueError, and no change, without one."""
    networks, copies = _networks(things), _networks(copied(things))
    with torch.no_grad():
        for _, parameter in _named(copies):
            if parameter.is_floating_point():  # what is still no number afterwards was not drawn
                parameter.fill_(torch.nan)
        for network in copies:
            network.apply(_reset)
        missed = [name for name, each in _named(copies) if each.requires_grad and each.isnan().any()]
        for given, fresh in zip(map(_tensors, networks), map(_tensors, copies), strict=True) if not missed else ():
            for name, old in given.items():
                if name in fresh and not fresh[name].isnan().any():
                    old.copy_(fresh[name])
    if missed:
        more = f" and {len(missed) - 5} more" if len(missed) > 5 else ""
        raise ValueError(
            f"{', '.join(missed[:5])}{more}: trained parameters that cannot be drawn anew. Give the module that has "
            "them a reset_parameters(), or make a new network."
        )


def _needed(function: Any) -> set[str]:
    """Names of the arguments without which a function can't be called."""
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(function).parameters.items()
    return {name for name, each in parameters if each.default is each.empty and each.kind not in optional}


def _reset(module: Any) -> None:
    """Draw the parameters of one module."""
    reset: Any = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    draws = callable(reset) and not _needed(reset)
    if parametrize.is_parametrized(module):  # by way of the weights, and the inverse of what computes them
        computing, mode = module.parametrizations, module.parametrizations.training
        computing.eval()
        with parametrize.cached():
            drawn = {name: getattr(module, name).fill_(torch.nan) for name in computing}
            if draws:
                reset()
        for name, tensor in drawn.items():
            setattr(module, name, tensor)
        computing.train()
        for name in list(drawn) * _POWER_STEPS:
            getattr(module, name)
        computing.train(mode)
        return
    if draws:
        reset()
    # by hooks a weight, now drawn, is computed from other parameters
    for name, value in [(name, value) for name, value in vars(module).items() if isinstance(value, torch.Tensor)]:
        if f"{name}_orig" in module._parameters:
            module._parameters[f"{name}_orig"].copy_(value)
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            value = getattr(module, hook.name)
            getattr(module, f"{hook.name}_v").copy_(value)
            getattr(module, f"{hook.name}_g").copy_(torch.norm_except_dim(value, 2, hook.dim))
        elif isinstance(hook, SpectralNorm):
            for _ in range(_POWER_STEPS):
                hook.compute_weight(module, do_power_iteration=True)


def same_optimizer(
    optimizer: torch.optim.Optimizer, old: Sequence[Any], new: Sequence[Any] | None = None
) -> torch.optim.Optimizer:
    """
    A fresh optimizer of the same class and groups, rates being those from which a schedule began, over the parameters
    that network and loss in `new` (None for the same ones) have under the names of those in `old`: others that the
    optimizer has stay, and what the new network has of other names joins the only group, or makes one of its own.
    """
    here = dict(_named(old if new is None else new))
    names: dict[int, list[str]] = {}
    for name, parameter in _named(old):
        names.setdefault(id(parameter), []).append(name)
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()

    def take(group: dict[str, Any], parameter: Any, label: str | None) -> None:
        if id(parameter) not in taken:
            taken.add(id(parameter))
            group["params"].append(parameter if label is None else (label, parameter))

    for given in optimizer.param_groups:
        group = copy.deepcopy({k: v for k, v in given.items() if k not in ("params", "param_names", "initial_lr")})
        group = {**group, "lr": copy.deepcopy(given.get("initial_lr", given["lr"])), "params": []}
        labels = given.get("param_names") or [None] * len(given["params"])
        for parameter, label in zip(given["params"], labels, strict=True):
            own = names.get(id(parameter))
            for counterpart in [parameter] if own is None else [here[name] for name in own if name in here]:
                take(group, counterpart, label)
        groups.append(group)
    if new is not None:
        known = {name for own in names.values() for name in own}
        more: dict[str, Any] = groups[0] if len(groups) == 1 else {"params": []}
        labelled = "param_names" in optimizer.param_groups[0]
        for name, parameter in _named(new[:1]):
            if name not in known:
                take(more, parameter, name if labelled else None)
        groups += [more] * (len(groups) != 1)
    groups = [group for group in groups if group["params"]]
    make: Any = type(optimizer)
    accepted = inspect.signature(make).parameters  # AdamW's defaults hold more than it takes
    defaults = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    if _needed(make) <= {next(iter(accepted)), *defaults}:
        return make(groups, **defaults)
    fresh = copy.copy(optimizer)
    more = {name: value for name, value in vars(optimizer).items() if name not in vars(fresh)}
    if not all(isinstance(value, (bool, int, float, str, type(None))) for value in more.values()):
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} can't be made anew: its constructor wants what its `defaults` do "
            f"not hold ({', '.join(sorted(_needed(make) - set(defaults)))}). Keep it there under the same name."
        )
    vars(fresh).update(more, state=defaultdict(dict), param_groups=[])
    for group in groups:
        fresh.add_param_group(group)
    return fresh
