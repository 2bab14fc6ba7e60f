"""
Objects that can be written down: constructor arguments kept as attributes of the same name.
"""

import inspect


class HasOptions:
    """Mixin for heads and losses: what their constructor was given, as plain data that JSON can hold."""

    #: constructor arguments that are no option of the defence: they follow from the network or from the caller
    NOT_OPTIONS: tuple[str, ...] = ("self", "in_features", "nb_classes", "reduction")

    @classmethod
    def option_names(cls) -> list[str]:
        """The names of the constructor's arguments that are options."""
        return [name for name in inspect.signature(cls.__init__).parameters if name not in cls.NOT_OPTIONS]

    def options(self) -> dict[str, object]:
        """The options by name, as the constructor takes them."""
        return {name: getattr(self, name) for name in self.option_names()}
