use super::*;

/// An auctioneer that ranks `rank`-th among five nodes.
struct Hall {
    auctioneer: Auctioneer,
    cluster: Cluster,
    desired: Desired,
    now: u64,
}

impl Hall {
    fn new(rank: usize, replicas: u32) -> Self {
        let desired = desired(500, replicas);
        let clusters = (0..5).map(|index| {
            let mut cluster = Cluster::new(id(index));
            for other in 0..5 {
                let _ = cluster.set_standing(id(other), Standing::Alive, &desired);
                let register = NodeRegister {
                    node: id(other),
                    version: Version { boot: 1, seq: 1 },
                    report: report(2_000),
                };
                let _ = cluster.set_register(&Arc::new(register), true);
            }
            let _ = cluster.set_service(&web(), &desired);
            cluster
        });
        let mut ranked = clusters.filter(|c| c.my_rank(&web()) == Some(rank));
        let cluster = ranked.next().unwrap();
        Self {
            auctioneer: Auctioneer::new(cluster.me(), 1, 1),
            cluster,
            desired,
            now: 10_000,
        }
    }

    fn with(
        &mut self,
        act: impl FnOnce(&mut Auctioneer, Floor<'_>, Now) -> Vec<AuctionEffect>,
    ) -> Vec<(NodeId, Message)> {
        let floor = Floor {
            cluster: &self.cluster,
            desired: &self.desired,
            open: true,
        };
        let now = Now {
            mono: self.now,
            wall: self.now,
        };
        let effects = act(&mut self.auctioneer, floor, now);
        let sends = effects.into_iter().filter_map(|e| match e {
            AuctionEffect::Send { to, message } => Some((to, message)),
            AuctionEffect::Unplaced { .. } => None,
        });
        sends.collect()
    }

    fn review(&mut self) -> Vec<(NodeId, Message)> {
        self.with(|a, floor, now| a.review(&web(), floor, now))
    }

    fn tell(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        self.with(|a, floor, now| a.handle(from, message, floor, now))
    }

    /// Lets time pass; returns what was sent and when.
    fn wait(&mut self, duration: u64) -> Vec<(u64, NodeId, Message)> {
        let end = self.now + duration;
        let mut sent = Vec::new();
        while let Some(due) = self.auctioneer.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let messages = self.with(Auctioneer::handle_timeout);
            sent.extend(messages.into_iter().map(|(to, m)| (self.now, to, m)));
        }
        self.now = end;
        sent
    }

    fn refuse_all(&mut self, calls: &[(NodeId, Message)]) {
        for (to, message) in calls {
            if let Message::Call { round, .. } = message {
                let refusal = Message::Refusal {
                    round: *round,
                    reasons: vec![Reason::DiskFailing],
                };
                let _ = self.tell(*to, refusal);
            }
        }
    }
}

fn open_round(calls: &[(NodeId, Message)]) -> RoundId {
    match &calls[0].1 {
        Message::Call { round, .. } => *round,
        other => panic!("no call: {other:?}"),
    }
}

#[test]
fn a_round_closes_when_all_have_answered_and_awards_the_best() {
    let mut hall = Hall::new(0, 4);
    let calls = hall.review();
    assert_eq!(calls.len(), 5);
    let round = open_round(&calls);
    for (index, (to, _)) in calls.iter().enumerate() {
        let scores = vec![-(index as i64), -10 - index as i64];
        let out = hall.tell(*to, Message::Bid { round, scores });
        assert_eq!(out.is_empty(), index < 4);
        if index == 4 {
            let awards: Vec<(NodeId, usize)> = out
                .iter()
                .map(|(to, m)| match m {
                    Message::Award { slots, .. } => (*to, slots.len()),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<(NodeId, usize)> = calls
                .iter()
                .enumerate()
                .map(|(i, (to, _))| (*to, usize::from(i < 4)))
                .collect();
            assert_eq!(awards, expected, "losers are released");
        }
    }
    // Pending slots are not auctioned again before their time.
    assert!(hall.review().is_empty());
    let again = hall.wait(2_000);
    assert_eq!(again.first().map(|(at, ..)| *at), Some(11_500));
    let late = hall.tell(
        id(0),
        Message::Bid {
            round,
            scores: vec![1],
        },
    );
    let release = Message::Award {
        round,
        slots: Vec::new(),
    };
    assert_eq!(late, [(id(0), release)]);
}

#[test]
fn epochs_grow_with_every_award() {
    let mut hall = Hall::new(0, 1);
    let mut epochs = Vec::new();
    let mut calls = hall.review();
    for _ in 0..3 {
        let round = open_round(&calls);
        let mut out = Vec::new();
        for (to, _) in &calls {
            out.extend(hall.tell(
                *to,
                Message::Bid {
                    round,
                    scores: vec![1],
                },
            ));
        }
        for (to, message) in out {
            if let Message::Award { slots, .. } = message
                && let Some((slot, epoch)) = slots.first()
            {
                epochs.push(*epoch);
                let refused = Message::AwardRefused {
                    round,
                    slots: vec![*slot],
                    reason: Reason::Lapsed,
                };
                let _ = hall.tell(to, refused);
            }
        }
        let sent = hall.wait(300);
        calls = sent.into_iter().map(|(_, to, m)| (to, m)).take(5).collect();
    }
    assert_eq!(epochs, [1, 2, 3]);
}

#[test]
fn silent_candidates_delay_a_round_by_its_window_only() {
    let mut hall = Hall::new(0, 1);
    let calls = hall.review();
    let round = open_round(&calls);
    let _ = hall.tell(
        calls[0].0,
        Message::Bid {
            round,
            scores: vec![5],
        },
    );
    let sent = hall.wait(1_000);
    assert_eq!(sent.first().map(|(at, ..)| *at), Some(10_500));
    // With most answers there, it is much less.
    let mut hall = Hall::new(0, 1);
    let calls = hall.review();
    let round = open_round(&calls);
    for (to, _) in &calls[..4] {
        let _ = hall.tell(
            *to,
            Message::Bid {
                round,
                scores: vec![5],
            },
        );
    }
    let sent = hall.wait(1_000);
    assert_eq!(sent.first().map(|(at, ..)| *at), Some(10_150));
    // Nobody waits for a node that is known to be lost.
    let mut hall = Hall::new(0, 1);
    let calls = hall.review();
    let round = open_round(&calls);
    for (to, _) in &calls[..4] {
        let _ = hall.tell(
            *to,
            Message::Bid {
                round,
                scores: vec![5],
            },
        );
    }
    let lost = calls[4].0;
    let awards = hall.with(|a, floor, now| a.node_lost(lost, floor, now));
    assert_eq!(awards.len(), 4);
}

#[test]
fn what_nobody_takes_is_asked_for_ever_more_rarely_until_something_changes() {
    let mut hall = Hall::new(0, 2);
    let mut rounds = Vec::new();
    let mut calls = hall.review();
    while rounds.len() < 8 {
        rounds.push(hall.now);
        hall.refuse_all(&calls);
        let due = hall.auctioneer.poll_timeout().unwrap();
        let sent = hall.wait(due - hall.now);
        calls = sent.into_iter().map(|(_, to, m)| (to, m)).collect();
    }
    let gaps: Vec<u64> = rounds.windows(2).map(|w| w[1] - w[0]).collect();
    assert!((250..=300).contains(&gaps[0]), "{gaps:?}");
    assert!(
        gaps.windows(2).all(|g| g[1] > g[0] || g[0] >= 5_000),
        "{gaps:?}"
    );
    assert!((5_000..=6_000).contains(&gaps[6]), "{gaps:?}");
    hall.refuse_all(&calls);
    hall.auctioneer.nudge(hall.now);
    let next = hall.auctioneer.poll_timeout().unwrap() - hall.now;
    assert!(next <= 100, "{next}");
    let last = hall.auctioneer.last_round(&web()).unwrap();
    assert_eq!((last.asked, last.refusals.len()), (5, 5));
}

#[test]
fn the_next_in_rank_takes_over_a_vacancy_that_nobody_fills() {
    for (rank, expected) in [(1, 11_500), (2, 13_000)] {
        let mut hall = Hall::new(rank, 1);
        assert!(hall.review().is_empty());
        let sent = hall.wait(4_000);
        assert_eq!(sent.first().map(|(at, ..)| *at), Some(expected));
    }
    // Not while a better one is seen at work.
    let mut hall = Hall::new(1, 1);
    let _ = hall.review();
    for _ in 0..10 {
        hall.auctioneer.heard_call(&web(), id(9), hall.now);
        let _ = hall.review();
        assert!(hall.wait(5_000).is_empty());
    }
    assert!(!hall.wait(3_000).is_empty());
}

proptest! {
    /// Every slot goes to at most one node, no node gets more than it offered or what is forbidden
    /// to it, no slot is left that somebody could have taken, and better scores come first.
    #[test]
    fn assignments_cover_what_can_be_covered(
        offers in proptest::collection::btree_map(
            0..8u8,
            proptest::collection::vec(-1_000..1_000i64, 0..6),
            0..6,
        ),
        slots in proptest::collection::btree_set(0..20u32, 0..12),
        forbidden in proptest::collection::btree_set((0..20u32, 0..8u8), 0..6),
    ) {
        let slots: Vec<u32> = slots.into_iter().collect();
        let candidates: BTreeSet<NodeId> = offers.keys().map(|n| id(*n)).collect();
        let mut round = Round::new(web(), "r1".to_owned(), slots.clone(), false, candidates, 0);
        for (node, scores) in &offers {
            let mut scores = scores.clone();
            // Marginal scores fall.
            scores.sort_by(|a, b| b.cmp(a));
            prop_assert!(round.bid(id(*node), scores));
        }
        let is_forbidden = |slot: u32, node: NodeId| forbidden.contains(&(slot, node.as_bytes()[0]));
        let awards = round.assign(&slots, crate::placement::Domains::default(), is_forbidden);
        let mut given = BTreeSet::new();
        for (node, won) in &awards {
            prop_assert!(won.len() <= offers[&node.as_bytes()[0]].len());
            for slot in won {
                prop_assert!(given.insert(*slot), "slot {slot} twice");
                prop_assert!(slots.contains(slot) && !is_forbidden(*slot, *node));
            }
        }
        if forbidden.is_empty() {
            let offered: usize = offers.values().map(Vec::len).sum();
            prop_assert_eq!(given.len(), slots.len().min(offered));
            // The scores that won are the best ones.
            let mut all: Vec<i64> = offers.values().flatten().copied().collect();
            all.sort_by(|a, b| b.cmp(a));
            let mut won: Vec<i64> = Vec::new();
            for (node, slots) in &awards {
                let mut scores = offers[&node.as_bytes()[0]].clone();
                scores.sort_by(|a, b| b.cmp(a));
                won.extend(&scores[..slots.len()]);
            }
            won.sort_by(|a, b| b.cmp(a));
            prop_assert_eq!(&won[..], &all[..won.len()]);
        }
    }
}
