"""Named asserts: where the kernel would panic, the model raises ``KernelPanic``."""

from __future__ import annotations


class KernelPanic(AssertionError):
    """An assert of the kernel failed; the text starts with its name.

    Attributes:
        rule: Name of the assert, such as ``a.pmm.end``.
    """

    def __init__(self, rule: str, message: str) -> None:
        """Keep the name as data, so that no reader parses the text."""
        super().__init__(rule, message)
        self.rule = rule

    def __str__(self) -> str:
        """Name first, then the values involved."""
        return f"{self.args[0]}: {self.args[1]}"


class InvariantBroken(AssertionError):
    """An invariant of the model does not hold; the text starts with its name.

    Attributes:
        rule: Name of the invariant, such as ``I14``.
    """

    def __init__(self, rule: str, message: str) -> None:
        """Keep the name as data: one check may speak for several invariants."""
        super().__init__(rule, message)
        self.rule = rule

    def __str__(self) -> str:
        """Name first, then the values involved."""
        return f"{self.args[0]}: {self.args[1]}"


def kassert(name: str, condition: object, *what: object) -> None:
    """Panic as the kernel would unless ``condition`` holds.

    Args:
        name: Name of the assert in the catalogue.
        condition: Evaluated by the caller, without schedule points.
        what: Words and values for the message; turned into text only on failure.

    Raises:
        KernelPanic: The condition does not hold.
    """
    if not condition:
        __tracebackhide__ = True
        raise KernelPanic(name, " ".join(str(part) for part in what))


def require(rule: str, condition: object, *what: object) -> None:
    """Raise unless ``condition`` holds; for invariants, as ``kassert`` is for the kernel's asserts.

    Args:
        rule: Name of the invariant.
        condition: Evaluated by the caller, without schedule points.
        what: Words and values for the message; turned into text only on failure.

    Raises:
        InvariantBroken: The condition does not hold.
    """
    if not condition:
        __tracebackhide__ = True
        raise InvariantBroken(rule, " ".join(str(part) for part in what))
