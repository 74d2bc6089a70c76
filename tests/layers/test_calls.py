"""Checks that no layer returns its input unchanged, as Keras layers without `call` do."""

import importlib
import pkgutil

import pytest
import tensorflow as tf

import tfquant
from tfquant import models
from tfquant.contexts.space_channel import SpaceChannelContext
from tfquant.legacy_keras import keras

FOLDERS = ("contexts", "entropy", "layers", "quantization")


def layers():
    """Returns all classes of Keras layers in the folders and in `models`."""
    paths = {f"tfquant.{name}": [f"{tfquant.__path__[0]}/{name}"] for name in FOLDERS}
    paths["tfquant.models"] = models.__path__
    modules = [
        importlib.import_module(f"{package}.{module.name}")
        for package, path in paths.items()
        for module in pkgutil.iter_modules(path)
    ]
    values = [value for module in modules for value in vars(module).values()]
    classes = {value for value in values if isinstance(value, type)}
    return [
        cls
        for cls in classes
        if issubclass(cls, keras.layers.Layer) and cls.__module__.startswith("tfquant.")
    ]


def test_every_layer_defines_its_call():
    found = layers()
    assert len(found) > 30
    assert not [cls.__name__ for cls in found if cls.call is keras.layers.Layer.call]


def test_a_context_that_transmits_in_several_steps_is_not_called():
    context = SpaceChannelContext(12, (1, 1, 2, 4, 4))
    with pytest.raises(TypeError, match="SpaceChannelContext is not called: use its method"):
        context(tf.zeros([1, 2, 2, 24]))
