"""A condition variable that is signalled before anybody waits for it.

    python examples/lost_wakeup.py

``take`` looks at the flag, lets go of the lock, and only then waits: the notification may fall in
between. The cure is to look again under the lock, as ``Condition.wait_for`` does.
"""

from collections.abc import Callable

from harness import Condition, Mutex, Shared, explore, parallel


def mailbox(*, careful: bool) -> Callable[[], None]:
    """Make a program in which one thread posts and another takes."""

    def program() -> None:
        mutex = Mutex("mailbox")
        posted = Condition(mutex, "posted")
        full = Shared(value=False, name="full")

        def post() -> None:
            with mutex:
                full.set(True)
                posted.notify()

        def take() -> None:
            if careful:
                with mutex:
                    posted.wait_for(full.get)
                return
            with mutex:
                empty = not full.get()
            if empty:
                with mutex:
                    posted.wait()

        parallel(post, take)

    return program


if __name__ == "__main__":
    for careful in (False, True):
        report = explore(mailbox(careful=careful), "dfs", schedules=None)
        print(f"careful={careful}: {report.verdict}, {report.reason}")
        if report.failure is not None:
            print(f"\n{report.failure.text()}\n")
