"""A race that freely running threads ran into, brought under control.

    python examples/free_mode.py

In free mode nobody decides the schedule: the threads run as the system likes, with naps between
their operations. The order in which the operations took effect is written down, and a failing order
is run again under control. Where it fails there too it has a token, and can be made minimal. What
is found when differs from run to run; what is left of it does not.
"""

from harness import Condition, Mutex, explore, minimize, parallel, replay


def program() -> None:
    """A gate that opens once: who looks before and waits after is not told."""
    mutex = Mutex("gate")
    opened = Condition(mutex, "opened")
    state = {"open": False}

    def visitor() -> None:
        with mutex:
            is_open = state["open"]
        if not is_open:
            with mutex:
                opened.wait()

    def keeper() -> None:
        with mutex:
            state["open"] = True
            opened.notify_all()

    parallel(visitor, keeper)


if __name__ == "__main__":
    report = explore(program, mode="free", schedules=2_000)
    print(f"free: {report.verdict}\n")
    if report.failure is not None:
        again = replay(program, report.failure.token)
        assert again is not None
        assert again.digest == report.failure.digest
        print(minimize(program, again).text())
