//! Faults, and what striking one does to the world and to what is being measured.

use rand::RngExt as _;

use super::world::{SECOND, World};
use super::{check, workload};

/// Something that goes wrong, or gets right again.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The daemon dies.
    Kill(usize),
    /// The host loses power.
    PowerOff(usize),
    /// The daemon starts again.
    Start(usize),
    /// These hosts (as bits of their index) are cut off from the others.
    Split(u64),
    /// Packets from one host to all others vanish; the way back works.
    OneWay(usize),
    /// All links are whole again.
    Heal,
    /// The daemon freezes for so many microseconds.
    Stall(usize, u64),
    /// A third of the daemons freezes for half a second to two seconds.
    StallThird,
    /// The disk refuses writes, or takes them again.
    DiskFull(usize, bool),
    /// A workload dies.
    WorkloadDies(usize),
    /// A workload whose health is checked answers nobody for so many microseconds.
    Sicken(usize, u64),
    /// The wall clock jumps by so many milliseconds.
    ClockJump(usize, i64),
    /// All hosts lose power.
    Blackout,
    /// A member says what is not so.
    Lie(usize),
}

/// Makes it so.
pub(super) fn strike(world: &mut World, fault: Fault) {
    world.outcome.faults += 1;
    world.note(format!("{fault:?}"));
    match fault {
        Fault::Kill(host) | Fault::PowerOff(host) if !world.hosts[host].is_up() => {}
        Fault::Kill(host) => {
            workload::asker_gone(world, host);
            workload::forget_spreading(world);
            check::watch_crash(world, host, false);
            world.kill(host);
        }
        Fault::PowerOff(host) => {
            workload::asker_gone(world, host);
            workload::forget_spreading(world);
            check::watch_crash(world, host, true);
            world.power_off(host);
        }
        Fault::Start(host) => {
            if !world.hosts[host].is_up() {
                check::forget_crash(world, host);
                world.start(host, None);
            }
        }
        Fault::Split(side) => split(world, side),
        Fault::OneWay(host) => {
            (0..world.hosts.len()).for_each(|to| world.network.cut(host, to));
            cut_off(world);
        }
        Fault::Heal => world.network.heal(),
        Fault::Stall(host, micros) => stall(world, host, micros),
        Fault::StallThird => {
            for host in 0..world.hosts.len() {
                let micros = world.rng.random_range(SECOND / 2..2 * SECOND);
                // Two stalls with nothing in between would be one of up to four seconds.
                let rested = world.hosts[host].stalled_until + SECOND <= world.now;
                if world.rng.random_bool(1.0 / 3.0) && rested {
                    stall(world, host, micros);
                }
            }
        }
        Fault::DiskFull(host, full) => world.hosts[host].disk.full = full,
        Fault::WorkloadDies(host) => {
            let event = world.hosts[host].runtime.crash_one(&mut world.rng);
            if let Some(event) = event {
                world.tell(host, dunlin_core::io::Input::Runtime(event));
            }
        }
        Fault::Sicken(host, micros) => {
            let until = world.now + micros;
            let slot = world.hosts[host].runtime.sicken_one(until, &mut world.rng);
            if let Some(slot) = slot {
                world.note(format!("n{host}: {slot} is unwell"));
            }
        }
        Fault::ClockJump(host, by) => world.hosts[host].skew += by,
        Fault::Lie(host) => world.lie(host),
        Fault::Blackout => {
            for host in 0..world.hosts.len() {
                workload::asker_gone(world, host);
                world.power_off(host);
            }
            workload::forget_spreading(world);
            check::forget_lost(world);
        }
    }
}

fn stall(world: &mut World, host: usize, micros: u64) {
    let until = world.now + micros;
    let stalled = &mut world.hosts[host].stalled_until;
    *stalled = until.max(*stalled);
    workload::forget_spreading(world);
}

fn split(world: &mut World, side: u64) {
    let inside = |host: usize| side >> (host % 64) & 1 == 1;
    for a in 0..world.hosts.len() {
        for b in 0..world.hosts.len() {
            if inside(a) != inside(b) {
                world.network.cut(a, b);
            }
        }
    }
    cut_off(world);
}

/// While links are cut, times mean nothing.
fn cut_off(world: &mut World) {
    world.links_changed();
    workload::forget_spreading(world);
    check::forget_lost(world);
}
