"""What is wrong with taking one lock while another is held, whatever other threads do.

Kernel: Zircon's lockdep, the rules of a leaf and of two locks of one class.
"""

from __future__ import annotations

from typing import Final

from harness.lockorder.classes import LockFlags
from harness.lockorder.findings import SHARED, Finding, Witness
from harness.lockorder.held import Held

_NESTABLE: Final = int(LockFlags.NESTABLE)
_MULTI_ACQUIRE: Final = int(LockFlags.MULTI_ACQUIRE)
_RE_ACQUIRE_FATAL: Final = int(LockFlags.RE_ACQUIRE_FATAL)


def after_leaf(witness: Witness) -> Finding:
    """Something was taken while a leaf was held."""
    return Finding(
        rule="ORD006",
        result="AcquireAfterLeaf",
        tier="observed",
        message=f"{witness.inner} acquired while the leaf {witness.outer} is held",
        classes=tuple(dict.fromkeys((witness.outer, witness.inner))),
        edges=(witness,),
        schedule=witness.schedule,
        thread=witness.thread,
        fatal=True,
    )


def may_nest(entry: Held, wanted: Held) -> bool:
    """Whether a second lock of one class may be taken; both shared is not asked here."""
    if wanted.address == entry.address:
        return False
    return bool(wanted.lock_class.bits & _MULTI_ACQUIRE) or wanted.order > entry.order


def second_of_class(
    entry: Held, wanted: Held, witness: Witness, mode_blind: bool, muted: bool
) -> Finding:
    """A second lock of one class was taken, and may not be (see ``may_nest``)."""
    name, bits = wanted.lock_class.name, wanted.lock_class.bits
    rule, tier = "ORD004", "latent"
    if wanted.address == entry.address:
        rule, result, tier = "ORD005", "Reentrance", "observed"
        message = f"a {name} acquired again by the thread that holds it"
        if entry.mode == SHARED and not mode_blind:
            rule, result = "ORD007", "Upgrade"
            message = f"a {name} wanted exclusive by a thread that holds it shared"
    elif not bits & _NESTABLE and wanted.order == 0:
        result = "AlreadyAcquired"
        message = f"a second {name} acquired without a nesting order"
    else:
        result = "InvalidNesting"
        message = f"a {name} acquired while one of equal or higher order is held"
    fatal = bool(bits & _RE_ACQUIRE_FATAL)
    return Finding(
        rule=rule,
        result=result,
        tier=tier,
        message=message,
        classes=(name,),
        edges=(witness,),
        schedule=witness.schedule,
        thread=witness.thread,
        fatal=fatal,
        muted=muted and not fatal,
    )
