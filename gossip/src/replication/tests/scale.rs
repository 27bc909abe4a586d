//! Many nodes, joined as the overlay joins them.

use dunlin_state::Now;

use super::super::*;
use super::world::{World, deploy, named, service};
use crate::overlay::{self, Overlay};

/// Links hosts as their overlays want it.
fn overlaid(size: usize, seed: u64) -> World {
    let mut world = World::new(size, seed);
    for host in 0..size {
        let mut overlay = Overlay::new(world.ids[host], 1);
        for other in 0..size {
            overlay.handle(overlay::Input::Alive(world.ids[other]), Now::default());
        }
        for wanted in overlay.wanted() {
            let other = world.ids.iter().position(|id| id == wanted).unwrap();
            world.link(host, other);
        }
    }
    world.run(200);
    world
}

#[test]
fn news_reaches_two_hundred_nodes_in_a_few_hops() {
    let size = 200;
    let mut world = overlaid(size, 1);
    world.sync_ms = (0, 0);
    let (start, before) = (world.now, world.messages);
    world.propose(0, vec![deploy("hello")]);
    let holders = |w: &World| {
        let hosts = 0..size;
        hosts
            .filter(|h| {
                w.machine(*h)
                    .desired()
                    .services
                    .contains_key(&service("hello"))
            })
            .count()
    };
    // Each hop takes 1 ms.
    assert!(world.run_until(start + 5, |w| holders(w) * 100 >= size * 98));
    println!("98 % of {size} after {} hops", world.now - start);
    assert!(world.run_until(start + 10_000, |w| holders(w) == size));
    println!(
        "all after {} ms, {} messages",
        world.now - start,
        world.messages - before
    );

    let (start, before) = (world.now, world.messages);
    world.tell(0, Input::Report(named("zero")));
    let seen = |w: &World| {
        (0..size)
            .filter(|h| !w.machine(*h).observed().is_empty())
            .count()
    };
    assert!(world.run_until(start + 35, |w| seen(w) * 100 >= size * 98));
    println!("register at 98 % of {size} after {} ms", world.now - start);
    assert!(world.run_until(start + 10_000, |w| seen(w) == size));
    println!(
        "all after {} ms, {} messages",
        world.now - start,
        world.messages - before
    );
    assert_eq!(world.offences(), 0);
}
