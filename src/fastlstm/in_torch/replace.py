"""The layers of a model, exchanged in place."""

from typing import TypeVar

from torch import nn

from fastlstm.in_torch.layers import LAYERS

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def replace(module: AnyModule) -> AnyModule:
    """Let every recurrent layer of a model compute on the kernels of fastlstm.

    A layer stays the object that it is, with its parameters, hooks and mode, wherever the model,
    an optimizer or a variable has it: it becomes one of the class of `fastlstm.torch` with the same
    name. Subclasses of torch's layers are left as they are.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or itself a recurrent layer.

    Returns
    -------
    module : torch.nn.Module
        The same module.

    Raises
    ------
    TypeError
        `module` is no torch.nn.Module.

    Examples
    --------
    >>> import torch, fastlstm.torch
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 5), "head": torch.nn.Linear(5, 2)})
    >>> type(fastlstm.torch.replace(model)["encoder"])
    <class 'fastlstm.torch.GRU'>
    >>> type(fastlstm.torch.restore(model)["encoder"])
    <class 'torch.nn.modules.rnn.GRU'>
    """
    return _exchange(module, {page.theirs: page for page in LAYERS})


def restore(module: AnyModule) -> AnyModule:
    """Undo `replace`: let torch's own layers compute.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or itself a recurrent layer of `fastlstm.torch`.

    Returns
    -------
    module : torch.nn.Module
        The same module.

    Raises
    ------
    TypeError
        `module` is no torch.nn.Module.
    """
    return _exchange(module, {page: page.theirs for page in LAYERS})


def _exchange(module: AnyModule, classes: dict[type[nn.Module], type[nn.Module]]) -> AnyModule:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    for layer in module.modules():  # each once, wherever it is used
        if type(layer) in classes:
            layer.__class__ = classes[type(layer)]
    return module
