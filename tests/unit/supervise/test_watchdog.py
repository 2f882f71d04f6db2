from __future__ import annotations

import dataclasses

import psutil
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.progress import Progress, Stage
from ctrkit.supervise.sampler import ProcessSample, TreeSample
from ctrkit.supervise.time_limits import StageLimit
from ctrkit.supervise.watchdog import (
    LOOK_AGAIN_S,
    Decision,
    Keep,
    Silence,
    Suspect,
    Verdict,
    add_look,
    is_quiet,
    judge,
    step_seconds,
)

LIMIT = StageLimit(idle_s=60, burning_s=600, reason="a test")


def tree(taken_s: float, wanted_s: float = 0.0, *states: str) -> TreeSample:
    processes = tuple(
        ProcessSample(
            pid=100 + index, parent_pid=1, name="p", status=state, cpu_s=0, queued_s=0, rss_bytes=0
        )
        for index, state in enumerate(states or (psutil.STATUS_SLEEPING,))
    )
    return TreeSample(taken_s=taken_s, cpu_s=wanted_s, wanted_s=wanted_s, processes=processes)


def silence(samples: list[TreeSample], since_s: float = 0.0) -> Silence:
    found = Silence.begin(since_s)
    for sample in samples:
        found = add_look(found, sample)
    return found


def verdict_of(samples: list[TreeSample], limit: StageLimit = LIMIT) -> Decision:
    return judge(silence(samples), samples[-1].taken_s, Stage.STEP, limit)


def idle(until_s: int) -> list[TreeSample]:
    return [tree(float(second), 0.0) for second in range(until_s + 1)]


def test_within_the_limit_nothing_is_said() -> None:
    assert verdict_of(idle(59)) == Keep()


def test_over_the_limit_it_looks_twice() -> None:
    assert verdict_of(idle(60)) == Suspect()
    assert judge(Silence.begin(0), 100, Stage.STEP, LIMIT) == Suspect()
    assert isinstance(verdict_of(idle(62)), Verdict)


def test_an_idle_tree_is_a_deadlock_with_stage_and_limit() -> None:
    found = verdict_of(idle(62))
    assert isinstance(found, Verdict)
    assert found.verdict == "deadlock"
    assert "stage 'step'" in found.reason
    assert "a test" in found.reason


def test_a_burning_tree_is_extended_then_stalled() -> None:
    burning = [tree(float(second), 0.9 * second) for second in range(602)]
    assert verdict_of(burning[:599]) == Keep()
    found = verdict_of(burning)
    assert isinstance(found, Verdict)
    assert found.verdict == "stalled"
    assert "0.9 cores" in found.reason


def test_time_in_which_other_jobs_had_the_cores_is_added_up_to_three_times() -> None:
    def crowded(until_s: int, share: float) -> Decision:
        samples = [
            dataclasses.replace(tree(float(second), float(second)), cpu_s=share * second)
            for second in range(until_s + 1)
        ]
        return verdict_of(samples, dataclasses.replace(LIMIT, burning_s=120))

    assert crowded(239, share=0.5) == Keep()
    assert isinstance(crowded(243, share=0.5), Verdict)
    assert crowded(359, share=0.1) == Keep()
    assert isinstance(crowded(361, share=0.1), Verdict)
    assert isinstance(crowded(121, share=1.0), Verdict)


def test_what_burned_until_now_is_not_dead_at_its_first_pause() -> None:
    burned = [tree(float(second), float(min(second, 100))) for second in range(140)]
    assert verdict_of(burned[:104]) == Keep()
    assert verdict_of(burned[:114]) == Keep()
    found = verdict_of(burned[:118])
    assert isinstance(found, Verdict)
    assert found.verdict == "deadlock"


def test_any_stopped_process_is_stalled() -> None:
    states = (psutil.STATUS_SLEEPING, psutil.STATUS_STOPPED)
    found = verdict_of([tree(float(second), 0.0, *states) for second in range(63)])
    assert isinstance(found, Verdict)
    assert found.verdict == "stalled"
    assert "process 101 is stopped" in found.reason


def test_the_time_for_which_it_was_stopped_from_outside_does_not_count() -> None:
    stopped = [tree(float(second), 0.0, psutil.STATUS_STOPPED) for second in range(51)]
    going = [tree(float(second), 0.0) for second in range(51, 120)]
    assert verdict_of(stopped + going[:40]) == Keep()
    found = verdict_of(stopped + going)
    assert isinstance(found, Verdict)
    assert found.verdict == "deadlock"


def test_uninterruptible_io_gets_three_limits() -> None:
    waiting = [tree(float(second), 0.0, psutil.STATUS_DISK_SLEEP) for second in range(183)]
    assert verdict_of(waiting[:170]) == Keep()
    found = verdict_of(waiting)
    assert isinstance(found, Verdict)
    assert found.verdict == "stalled"
    assert "uninterruptible I/O" in found.reason


def asleep(until_s: int, *, pid: int = 100) -> list[TreeSample]:
    process = ProcessSample(
        pid=pid, parent_pid=1, name="p", status=psutil.STATUS_SLEEPING, cpu_s=0, queued_s=0,
        rss_bytes=0, on_timer=True,
    )  # fmt: skip
    return [
        TreeSample(taken_s=float(second), cpu_s=0, wanted_s=0, processes=(process,))
        for second in range(until_s + 1)
    ]


def test_one_that_is_awaited_and_sleeps_on_a_timer_gets_three_limits() -> None:
    for until_s, verdict in ((170, None), (183, "deadlock")):
        samples = asleep(until_s)
        found = judge(silence(samples), until_s, Stage.STEP, LIMIT, {100})
        assert (found.verdict if isinstance(found, Verdict) else None) == verdict
    # not one that nobody waits for: a helper of the user's may sleep for ever
    found = judge(silence(asleep(62)), 62, Stage.STEP, LIMIT, {101})
    assert isinstance(found, Verdict)
    assert found.verdict == "deadlock"


def test_a_supervisor_that_did_not_run_excuses_the_gap() -> None:
    gap = [*idle(30), tree(500.0), tree(501.0), tree(502.0)]
    assert silence(gap).length_s(502) == 32
    assert verdict_of(gap) == Keep()


@given(
    seconds=st.lists(st.floats(0.1, 2.9), min_size=1, max_size=80),
    shares=st.lists(st.floats(0, 4), min_size=80, max_size=80),
)
def test_no_verdict_before_the_limit_is_over(seconds: list[float], shares: list[float]) -> None:
    now_s, wanted_s, found = 0.0, 0.0, Silence.begin(0.0)
    for second, share in zip(seconds, shares, strict=False):
        now_s, wanted_s = now_s + second, wanted_s + share * second
        found = add_look(found, tree(now_s, wanted_s))
        decision = judge(found, now_s, Stage.STEP, LIMIT)
        if isinstance(decision, Verdict):
            assert now_s >= LIMIT.idle_s + LOOK_AGAIN_S
        if len(found.looks) > 2:  # no more looks are kept than are needed
            assert found.looks[-1].taken_s - found.looks[1].taken_s < LOOK_AGAIN_S


def test_quiet_is_idle_for_longer_than_a_step_takes() -> None:
    assert not is_quiet(silence(idle(4)), 4, [])
    assert is_quiet(silence(idle(6)), 6, [])
    assert not is_quiet(silence(idle(6)), 6, [4.0])
    assert not is_quiet(silence([tree(float(s), float(s)) for s in range(9)]), 8, [])


PROGRESS = Progress(
    pid=1, stage=Stage.STEP, epoch=1, step=5, steps=0, rows=0, writes=9, written_s=10.0,
    wait_s=0.0, loss=0.0,
)  # fmt: skip


def test_step_seconds_are_a_mean_over_the_steps_between_two_readings() -> None:
    later = dataclasses.replace(PROGRESS, step=9, written_s=12.0)
    assert step_seconds(PROGRESS, later, workers=2) == 0.5
    assert step_seconds(PROGRESS, later, workers=6) is None  # from the pre-filled queue
    assert step_seconds(None, later, workers=0) is None
    assert step_seconds(PROGRESS, PROGRESS, workers=0) is None
    assert step_seconds(PROGRESS, dataclasses.replace(later, epoch=2), workers=0) is None
    validating = dataclasses.replace(later, stage=Stage.VALIDATION)
    assert step_seconds(PROGRESS, validating, workers=0) is None


def test_who_waits_for_another_host_has_longer() -> None:
    def samples(until_s: int, on_network: bool) -> list[TreeSample]:
        return [
            dataclasses.replace(
                one,
                processes=tuple(
                    dataclasses.replace(process, on_network=on_network) for process in one.processes
                ),
            )
            for one in idle(until_s)
        ]

    def judged(until_s: int, awaited: set[int], *, on_network: bool = True) -> Decision:
        looks = samples(until_s, on_network)
        return judge(silence(looks), looks[-1].taken_s, Stage.FIRST_BATCH, LIMIT, awaited)

    assert judged(100, {100}) == Keep()
    assert isinstance(judged(100, {100}, on_network=False), Verdict)
    assert isinstance(judged(100, {999}), Verdict)  # the loop waits for another one
    late = judged(182, {100})
    assert isinstance(late, Verdict)
    assert late.verdict == "deadlock"
    assert "process 100 is connected with another host" in late.reason
