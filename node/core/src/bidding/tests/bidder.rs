use super::*;

/// A bidder on a node with two cores.
struct Bench {
    bidder: Bidder,
    desired: Desired,
    held: BTreeSet<Slot>,
    refused: Option<Reason>,
    lacks: Vec<Reason>,
    makes_room: bool,
}

impl Bench {
    fn new(cpu_millis: u64) -> Self {
        Self {
            bidder: Bidder::default(),
            desired: desired(cpu_millis, 100),
            held: BTreeSet::new(),
            refused: None,
            lacks: Vec::new(),
            makes_room: false,
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Bidder, &Market<'_>) -> T) -> T {
        let own = || NodeView::conditions(id(1), &report(2_000), Standing::Alive, &self.desired);
        let market = Market {
            desired: &self.desired,
            own: &own,
            refuse: &|_, _| self.refused.clone(),
            holds: &|_, slot| self.held.contains(&slot),
            lacks: &|_, _, _| self.lacks.clone(),
            makes_room: &|_| self.makes_room,
            moves: &|| false,
            force: &|_, _, _, slots| Ok(vec![-7; slots as usize]),
        };
        act(&mut self.bidder, &market)
    }

    fn tell(&mut self, message: Message, now: u64) -> Vec<BidderEffect> {
        self.with(|bidder, market| bidder.handle(id(9), message, market, now))
    }
}

fn sent(effects: Vec<BidderEffect>) -> Option<Message> {
    effects.into_iter().find_map(|e| match e {
        BidderEffect::Send { to, message } => {
            assert_eq!(to, id(9));
            Some(message)
        }
        BidderEffect::Take { .. } | BidderEffect::Evict { .. } => None,
    })
}

fn bid_scores(effects: Vec<BidderEffect>) -> usize {
    match sent(effects) {
        Some(Message::Bid { scores, .. }) => scores.len(),
        other => panic!("no bid: {other:?}"),
    }
}

#[test]
fn nothing_is_offered_twice_until_the_offer_ends() {
    let mut bench = Bench::new(500);
    assert_eq!(bid_scores(bench.tell(call(1, "r1", 3), 0)), 3);
    assert_eq!(bid_scores(bench.tell(call(2, "r1", 3), 0)), 1);
    let refused = sent(bench.tell(call(3, "r1", 3), 0));
    let busy = Message::Refusal {
        round: round(3),
        reasons: vec![Reason::Busy],
    };
    assert_eq!(refused, Some(busy));
    // Released by an empty award.
    let release = Message::Award {
        round: round(1),
        slots: Vec::new(),
    };
    assert_eq!(bench.tell(release, 10), []);
    assert_eq!(bid_scores(bench.tell(call(4, "r1", 9), 10)), 3);
    // Lapsed.
    assert_eq!(bench.bidder.poll_timeout(), Some(OFFER_MS));
    let _ = bench.bidder.handle_timeout(10 + OFFER_MS);
    assert_eq!(bid_scores(bench.tell(call(5, "r1", 9), 4_000)), 4);
    assert_eq!(bench.tell(call(5, "r1", 9), 4_000), [], "a repeated call");
}

#[test]
fn an_award_is_taken_once_in_time_and_only_as_far_as_it_was_offered() {
    let mut bench = Bench::new(1_000);
    assert_eq!(bid_scores(bench.tell(call(1, "r1", 5), 0)), 2);
    let award = Message::Award {
        round: round(1),
        slots: (0..3).map(|n| (Slot::Replica(n), 7)).collect(),
    };
    let effects = bench.tell(award.clone(), 5);
    let taken = effects
        .iter()
        .filter(|e| matches!(e, BidderEffect::Take { epoch: 7, .. }))
        .count();
    assert_eq!(taken, 2);
    let refused = |slots: Vec<Slot>| Message::AwardRefused {
        round: round(1),
        slots,
        reason: Reason::Lapsed,
    };
    assert_eq!(sent(effects), Some(refused(vec![Slot::Replica(2)])));
    let all = (0..3).map(Slot::Replica).collect();
    assert_eq!(sent(bench.tell(award, 6)), Some(refused(all)));
}

#[test]
fn awards_of_held_or_unwanted_slots_are_refused() {
    let mut bench = Bench::new(0);
    bench.held.insert(Slot::Replica(0));
    assert_eq!(bid_scores(bench.tell(call(1, "r1", 3), 0)), 3);
    let slots = [Slot::Replica(0), Slot::Replica(100), Slot::Node(id(1))];
    let award = Message::Award {
        round: round(1),
        slots: slots.iter().map(|s| (*s, 1)).collect(),
    };
    let effects = bench.tell(award, 5);
    let takes = effects
        .iter()
        .any(|e| matches!(e, BidderEffect::Take { .. }));
    assert!(!takes && effects.len() == 3, "{effects:?}");
}

#[test]
fn a_call_about_an_unknown_revision_waits_for_it_and_no_longer() {
    let mut bench = Bench::new(500);
    assert_eq!(bench.tell(call(1, "r2", 1), 0), []);
    assert_eq!(bench.tell(call(2, "r3", 1), 0), []);
    bench.desired.services.get_mut(&web()).unwrap().revision = "r2".to_owned();
    let effects = bench.with(|bidder, market| bidder.desired_changed(market, 100));
    assert_eq!(bid_scores(effects), 1);
    let late = bench.bidder.handle_timeout(BID_WINDOW_MS);
    let stale = Message::Refusal {
        round: round(2),
        reasons: vec![Reason::StaleSpec],
    };
    assert_eq!(sent(late), Some(stale));
}

#[test]
fn calls_beyond_the_bound_are_refused() {
    let mut bench = Bench::new(0);
    let refused = (0..5_000)
        .filter(|seq| {
            matches!(
                sent(bench.tell(call(*seq, "r1", 1), 0)),
                Some(Message::Refusal { .. })
            )
        })
        .count();
    assert_eq!(refused, 5_000 - 2_048);
}

proptest! {
    /// Whatever auctioneers ask and award in whatever order, the bidder never promises more than
    /// the node has.
    #[test]
    fn offers_and_takes_never_exceed_the_capacity(
        steps in proptest::collection::vec((0..3u8, 0..12u64, 0..6u32, 0..2_000u64), 1..60),
    ) {
        let mut bench = Bench::new(400);
        let mut taken = 0;
        let mut now = 0;
        for (kind, seq, slots, pause) in steps {
            now += pause;
            let _ = bench.bidder.handle_timeout(now);
            let message = match kind {
                0 => call(seq, "r1", slots),
                _ => Message::Award {
                    round: round(seq),
                    slots: (0..slots).map(|n| (Slot::Replica(n), 1)).collect(),
                },
            };
            let own_taken = taken;
            let desired = bench.desired.clone();
            let own = || {
                let mut view =
                    NodeView::conditions(id(1), &report(2_000), Standing::Alive, &desired);
                view.committed.cpu_millis = own_taken;
                view
            };
            let market = Market {
                desired: &desired,
                own: &own,
                refuse: &|_, _| None,
                holds: &|_, _| false,
                lacks: &|_, _, _| Vec::new(),
                makes_room: &|_| false,
                moves: &|| false,
                force: &|_, _, _, _| Err(Vec::new()),
            };
            let effects = bench.bidder.handle(id(9), message, &market, now);
            taken += effects
                .iter()
                .filter(|e| matches!(e, BidderEffect::Take { .. }))
                .count() as u64 * 400;
            let mut view = NodeView::conditions(id(1), &report(2_000), Standing::Alive, &desired);
            bench.bidder.add_offers(&mut view);
            prop_assert!(taken + view.offered.cpu_millis <= 2_000);
        }
    }
}
