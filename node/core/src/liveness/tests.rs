use super::*;

fn id(index: u8) -> MemberId {
    MemberId {
        node: NodeId::from_bytes([index; 32]),
        boot: 1,
        address: ([10, 0, 0, index], 7000).into(),
    }
}

const NEVER: Heard<'static> = &|_| None;

struct Bench {
    judge: Liveness,
    now: u64,
    probes: Vec<u64>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            judge: Liveness::new(id(0).node),
            now: 10_000,
            probes: Vec::new(),
        };
        bench.event(MemberEvent::Alive(id(1)));
        assert_eq!(bench.standing(), Standing::Alive);
        bench
    }

    fn standing(&self) -> Standing {
        self.judge.standing(id(1).node)
    }

    fn event(&mut self, event: MemberEvent) {
        let effects = self.judge.member(event, NEVER, self.now);
        self.note(effects);
    }

    fn note(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Probe { .. } => self.probes.push(self.now),
                Effect::Changed { node, standing } => {
                    assert_eq!(self.judge.standing(node), standing);
                }
            }
        }
    }

    fn probed(&mut self, reachable: bool) {
        let effects = self.judge.probed(id(1).node, reachable, NEVER, self.now);
        self.note(effects);
    }

    /// Lets time pass, calling only when asked to.
    fn wait(&mut self, duration: u64) {
        let end = self.now + duration;
        while let Some(due) = self.judge.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let before = self.judge.poll_timeout();
            let effects = self.judge.handle_timeout(NEVER, self.now);
            self.note(effects);
            assert_ne!(
                self.judge.poll_timeout(),
                before,
                "a busy loop at {}",
                self.now
            );
        }
        self.now = end;
    }
}

#[test]
fn gone_needs_down_a_failed_probe_and_silence() {
    let mut bench = Bench::new();
    bench.wait(500);
    bench.event(MemberEvent::Suspect(id(1)));
    assert_eq!(bench.probes, [10_500], "a suspect is probed at once");
    bench.wait(400);
    bench.probed(false);
    bench.wait(200);
    bench.event(MemberEvent::Down(id(1)));
    assert_eq!(bench.standing(), Standing::Suspect);
    bench.wait(1_399);
    assert_eq!(
        bench.standing(),
        Standing::Suspect,
        "silent for 1,999 ms only since it was doubted"
    );
    bench.wait(1);
    assert_eq!(bench.standing(), Standing::Gone);
    assert!(!bench.standing().holds_claims());
}

#[test]
fn a_suspect_alone_is_never_gone() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Suspect(id(1)));
    bench.wait(60_000);
    assert_eq!(bench.standing(), Standing::Suspect);
}

#[test]
fn an_unanswered_probe_fails_by_itself() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Down(id(1)));
    bench.wait(1_999);
    assert_eq!(bench.standing(), Standing::Suspect);
    bench.wait(1);
    assert_eq!(bench.standing(), Standing::Gone);
}

#[test]
fn whoever_answers_stays_whatever_others_say() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Down(id(1)));
    for _ in 0..50 {
        bench.wait(100);
        let probed = bench.probes.len();
        bench.probed(true);
        assert!(bench.probes.len() <= probed + 1);
        assert_eq!(bench.standing(), Standing::Suspect);
    }
    assert!(bench.probes.len() < 10, "{:?}", bench.probes);
}

#[test]
fn datagrams_that_membership_heard_count() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Down(id(1)));
    for _ in 0..10 {
        bench.now += 1_500;
        let heard = bench.now - 100;
        let effects = bench.judge.handle_timeout(&|_| Some(heard), bench.now);
        bench.note(effects);
        assert_eq!(bench.standing(), Standing::Suspect);
    }
}

#[test]
fn a_sign_of_life_takes_the_verdict_back() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Down(id(1)));
    bench.wait(3_000);
    assert_eq!(bench.standing(), Standing::Gone);
    let effects = bench.judge.heard(id(1).node, bench.now);
    bench.note(effects);
    assert_eq!(bench.standing(), Standing::Suspect);
    bench.event(MemberEvent::Alive(id(1)));
    assert_eq!(bench.standing(), Standing::Alive);
}

#[test]
fn the_verdict_stands_while_it_is_checked_again() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Down(id(1)));
    bench.wait(3_000);
    let probed = bench.probes.len();
    bench.wait(60_000);
    assert_eq!(bench.standing(), Standing::Gone);
    let again = bench.probes.len() - probed;
    assert!((4..=7).contains(&again), "{again} probes in a minute");
}

#[test]
fn a_goodbye_needs_no_witness() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Left(id(1)));
    assert_eq!(bench.standing(), Standing::Left);
    let effects = bench.judge.heard(id(1).node, bench.now);
    bench.note(effects);
    assert_eq!(
        bench.standing(),
        Standing::Left,
        "its last words may arrive late"
    );
}

#[test]
fn after_a_stall_all_evidence_is_gathered_again() {
    let mut bench = Bench::new();
    bench.event(MemberEvent::Suspect(id(1)));
    bench.probed(false);
    bench.now += 5_000;
    let effects = bench.judge.stalled(bench.now);
    bench.note(effects);
    bench.event(MemberEvent::Down(id(1)));
    assert_eq!(bench.standing(), Standing::Suspect);
    bench.probed(false);
    bench.wait(1_999);
    assert_eq!(bench.standing(), Standing::Suspect);
    bench.wait(1);
    assert_eq!(bench.standing(), Standing::Gone);
}

#[test]
fn a_stranger_known_by_its_register_is_doubted_after_a_grace() {
    let mut bench = Bench::new();
    let stranger = NodeId::from_bytes([9; 32]);
    let address = Some(([10, 0, 0, 9], 7000).into());
    let effects = bench.judge.registered(stranger, address, bench.now);
    bench.note(effects);
    bench.wait(2_999);
    assert_eq!(bench.judge.standing(stranger), Standing::Suspect);
    assert!(!bench.probes.is_empty());
    bench.wait(1);
    assert_eq!(bench.judge.standing(stranger), Standing::Gone);
}
