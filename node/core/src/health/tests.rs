use dunlin_state::model::{HealthCheck, HealthTest, HttpTest, ServiceSpec};
use proptest::prelude::*;

use super::{Ask, Monitor, Plan, Verdict};

fn check(test: HealthTest) -> HealthCheck {
    HealthCheck {
        test,
        interval_ms: 10_000,
        timeout_ms: 1_000,
        retries: 3,
        ..HealthCheck::default()
    }
}

fn tcp() -> HealthCheck {
    check(HealthTest::Tcp(None))
}

fn monitor(adjust: impl FnOnce(&mut ServiceSpec)) -> Monitor {
    let mut spec = ServiceSpec::default();
    adjust(&mut spec);
    Monitor::new(Plan::of(Some(&spec), None, true), 0)
}

/// Asks at the due time and answers at once; returns the time and what followed.
fn turn(monitor: &mut Monitor, result: &Result<(), String>) -> (u64, Vec<Verdict>) {
    let at = monitor.poll_timeout().unwrap();
    let asks = monitor.handle_timeout(at);
    assert!(!asks.is_empty(), "a timeout that is due asks");
    let verdicts = asks
        .iter()
        .map(|ask| monitor.handle_probed(ask.check, ask.seq, result, at, 0))
        .collect();
    (at, verdicts)
}

fn bad() -> Result<(), String> {
    Err("no".to_owned())
}

#[test]
fn without_a_check_the_port_decides_once() {
    let mut monitor = monitor(|_| {});
    assert!(!monitor.is_ready());
    for _ in 0..100 {
        let (_, verdicts) = turn(&mut monitor, &bad());
        assert_eq!(verdicts, [Verdict::Same], "patience has no end");
    }
    let (at, verdicts) = turn(&mut monitor, &Ok(()));
    assert!(at < 120_000);
    assert_eq!(verdicts, [Verdict::Ready]);
    assert_eq!(monitor.poll_timeout(), None);
    assert!(Monitor::new(Plan::of(None, None, false), 0).is_ready());
}

#[test]
fn failures_at_the_start_count_when_dockers_schedule_would_have_counted_them() {
    let mut monitor = monitor(|s| {
        s.health = Some(HealthCheck {
            start_period_ms: 5_000,
            ..tcp()
        });
    });
    loop {
        let (at, verdicts) = turn(&mut monitor, &bad());
        if at < 35_000 {
            assert_eq!(verdicts, [Verdict::Same], "at {at}");
        } else {
            assert!(matches!(&verdicts[..], [Verdict::Dead(why)] if why.contains("no")));
            break;
        }
    }
    let (_, verdicts) = turn(&mut monitor, &bad());
    assert!(
        !matches!(verdicts[0], Verdict::Dead(_)),
        "condemned only once"
    );
}

#[test]
fn both_thresholds_hold_it_where_it_is() {
    let mut monitor = monitor(|s| {
        s.readiness = Some(HealthCheck {
            successes: 2,
            retries: 2,
            ..tcp()
        });
    });
    let answers = [
        (Ok(()), Verdict::Same),
        (bad(), Verdict::Same),
        (Ok(()), Verdict::Same),
        (Ok(()), Verdict::Ready),
        (bad(), Verdict::Same),
        (Ok(()), Verdict::Same),
        (bad(), Verdict::Same),
        (
            bad(),
            Verdict::NotReady("the TCP health check fails: no".to_owned()),
        ),
        (Ok(()), Verdict::Same),
        (Ok(()), Verdict::Ready),
    ];
    for (index, (answer, expected)) in answers.into_iter().enumerate() {
        let (_, verdicts) = turn(&mut monitor, &answer);
        assert_eq!(verdicts, [expected], "answer {index}");
    }
}

#[test]
fn traffic_and_restarts_are_decided_apart() {
    let http = HealthTest::Http(HttpTest::default());
    let mut monitor = monitor(|s| {
        s.readiness = Some(check(http));
        s.liveness = Some(check(HealthTest::Shell("true".to_owned())));
    });
    let asks = monitor.handle_timeout(0);
    let [ready, alive] = &asks[..] else {
        panic!("{asks:?}")
    };
    let answer = |monitor: &mut Monitor, ask: &Ask, result| {
        monitor.handle_probed(ask.check, ask.seq, &result, 0, 0)
    };
    assert_eq!(answer(&mut monitor, alive, Ok(())), Verdict::Same);
    assert_eq!(answer(&mut monitor, ready, Ok(())), Verdict::Ready);
    for round in 1.. {
        let now = monitor.poll_timeout().unwrap();
        let mut last = Verdict::Same;
        for ask in monitor.handle_timeout(now) {
            let result = if ask.check == alive.check {
                bad()
            } else {
                Ok(())
            };
            let verdict = monitor.handle_probed(ask.check, ask.seq, &result, now, 0);
            if verdict != Verdict::Same {
                last = verdict;
            }
        }
        if matches!(last, Verdict::Dead(_)) {
            assert!(monitor.is_ready(), "the other check decides about traffic");
            break;
        }
        assert!(round < 20, "it is condemned after three failures");
    }
}

#[test]
fn who_listens_again_asks_again_at_once() {
    let mut monitor = monitor(|s| s.health = Some(tcp()));
    let unheard = monitor.handle_timeout(0);
    assert!(monitor.poll_timeout().unwrap() > 700);
    monitor.listen_again(700);
    assert_eq!(monitor.poll_timeout(), Some(700));
    let again = monitor.handle_timeout(700);
    let late = monitor.handle_probed(0, unheard[0].seq, &bad(), 700, 0);
    let heard = monitor.handle_probed(0, again[0].seq, &Ok(()), 700, 0);
    assert_eq!((late, heard), (Verdict::Same, Verdict::Ready));
}

#[test]
fn an_answer_to_an_earlier_question_is_not_heard() {
    let mut monitor = monitor(|s| s.health = Some(tcp()));
    let first = monitor.handle_timeout(0);
    let again = monitor.poll_timeout().unwrap();
    assert!(again > 1_000, "a lost answer is waited for");
    let second = monitor.handle_timeout(again);
    let old = monitor.handle_probed(0, first[0].seq, &Ok(()), again, 0);
    assert_eq!(old, Verdict::Same);
    let new = monitor.handle_probed(0, second[0].seq, &Ok(()), again, 0);
    assert_eq!(new, Verdict::Ready);
    let twice = monitor.handle_probed(0, second[0].seq, &bad(), again, 0);
    assert_eq!(twice, Verdict::Same);
    assert_eq!(monitor.handle_probed(9, 1, &bad(), again, 0), Verdict::Same);
}

#[test]
fn what_the_image_says_is_taken_when_the_specification_says_nothing() {
    let image = check(HealthTest::Shell("true".to_owned()));
    let asks = |spec: &ServiceSpec| {
        let plan = Plan::of(Some(spec), Some(&image), true);
        Monitor::new(plan, 0).handle_timeout(0).len()
    };
    let mut spec = ServiceSpec::default();
    assert_eq!(asks(&spec), 1);
    spec.readiness = Some(tcp());
    assert_eq!(asks(&spec), 2, "the image's check decides about restarts");
    spec.liveness = Some(check(HealthTest::None));
    assert_eq!(asks(&spec), 1);
    spec.readiness = Some(check(HealthTest::None));
    let plan = Plan::of(Some(&spec), Some(&image), true);
    assert!(Monitor::new(plan, 0).is_ready(), "nothing is checked");
}

proptest! {
    /// Whatever is answered: probes never come faster than the bound, a spurious timeout asks
    /// nothing, and it is ready exactly as the verdicts say.
    #[test]
    fn verdicts_tell_every_change(
        answers in proptest::collection::vec(any::<bool>(), 1..200),
        random in any::<u64>(),
        retries in 0..5_u32,
        successes in 0..5_u32,
    ) {
        let mut monitor = monitor(|s| s.readiness = Some(HealthCheck { retries, successes, ..tcp() }));
        let mut ready = monitor.is_ready();
        let mut before = None;
        for good in answers {
            let at = monitor.poll_timeout().unwrap();
            prop_assert!(before.is_none_or(|b| at >= b + 45), "{before:?} {at}");
            before = Some(at);
            let asks = monitor.handle_timeout(at);
            prop_assert_eq!(monitor.handle_timeout(at), vec![]);
            let result = if good { Ok(()) } else { bad() };
            match monitor.handle_probed(0, asks[0].seq, &result, at, random) {
                Verdict::Same => {}
                Verdict::Ready => ready = true,
                Verdict::NotReady(_) => ready = false,
                Verdict::Dead(why) => prop_assert!(false, "{}", why),
            }
            prop_assert_eq!(monitor.is_ready(), ready);
        }
    }
}
