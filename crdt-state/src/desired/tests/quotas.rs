//! Quotas of namespaces.

use super::*;
use crate::model::{Excess, Mode, Quota, QuotaOf, Resources, Usage};

fn quota(namespace: &str, quota: Quota) -> Command {
    Command::SetQuota {
        namespace: namespace.to_owned(),
        quota,
    }
}

fn reserving(cpu_millis: u64) -> ServiceSpec {
    ServiceSpec {
        reservation: Resources {
            cpu_millis,
            memory: 1 << 20,
            disk: 0,
        },
        ..spec("web:1")
    }
}

fn replicas(replicas: u64) -> Quota {
    Quota {
        replicas: Some(replicas),
        ..Quota::default()
    }
}

fn refused(document: &mut Document, commands: &[Command]) -> String {
    document
        .propose(commands, "ada", at(90))
        .expect_err("it is over the quota")
        .to_string()
}

#[test]
fn what_is_wanted_is_summed_over_a_namespace() {
    let mut document = Document::new(actor(1));
    let mut global = reserving(100);
    global.mode = Mode::Global;
    for (name, spec) in [
        ("shop/web", reserving(250)),
        ("shop/agent", global),
        ("shop/off", reserving(1_000)),
        ("other", reserving(4_000)),
    ] {
        write(&mut document, deploy(name, spec), 1);
    }
    write(&mut document, scale("shop/web", 3), 2);
    write(&mut document, stop("shop/off"), 3);
    let usage = Usage {
        cpu_millis: 850,
        memory: 4 << 20,
        replicas: 4,
    };
    assert_eq!(snapshot_of(&document).usage("shop"), usage);
    assert_eq!(snapshot_of(&document).usage("nothing"), Usage::default());
}

#[test]
fn more_than_the_quota_is_refused_with_numbers_and_less_is_not() {
    let mut document = Document::new(actor(1));
    let bounds = Quota {
        cpu_millis: Some(1_000),
        memory: Some(64 << 20),
        replicas: Some(5),
    };
    write(&mut document, quota("shop", bounds), 1);
    write(&mut document, deploy("shop/web", reserving(400)), 2);
    write(&mut document, scale("shop/web", 2), 3);
    let told = refused(&mut document, &[scale("shop/web", 3)]);
    let expected = "namespace 'shop' would want 1.200 of 1.000 cores of its quota, and wants 800 now \
                    (thousandths of a core); remove or shrink something there, or have an admin raise \
                    it with 'dunlin namespace set-quota shop'";
    assert_eq!(told, expected);
    let told = refused(&mut document, &[deploy("shop/web", reserving(501))]);
    assert!(told.contains("1.002 of 1.000 cores"), "{told}");
    // Of one request only the end counts, and other namespaces do not.
    let swap = [
        deploy("shop/new", reserving(400)),
        scale("shop/web", 1),
        deploy("elsewhere/web", reserving(9_000)),
    ];
    document.propose(&swap, "ada", at(4)).unwrap().unwrap();
    // Stopped services want nothing, until they are started.
    write(&mut document, stop("shop/new"), 5);
    write(&mut document, scale("shop/web", 2), 6);
    let start = Command::SetRunning {
        service: key("shop/new"),
        running: true,
    };
    assert!(refused(&mut document, &[start]).contains("cores"));
}

#[test]
fn a_quota_below_use_stops_nothing_and_lets_nothing_in() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", reserving(1)), 1);
    write(&mut document, scale("web", 4), 2);
    write(&mut document, quota("default", replicas(2)), 3);
    assert_eq!(service(&document, "web").unwrap().replicas, 4);
    let excess = Excess {
        of: QuotaOf::Replicas,
        wanted: 4,
        allowed: 2,
    };
    assert_eq!(snapshot_of(&document).over_quota("default"), [excess]);
    assert_eq!(excess.to_string(), "4 of 2 replicas");
    assert!(refused(&mut document, &[scale("web", 5)]).contains("5 of 2 replicas"));
    assert!(refused(&mut document, &[deploy("b", reserving(1))]).contains("5 of 2 replicas"));
    // Less is fine although it is still too much, and so is another specification.
    write(&mut document, scale("web", 3), 4);
    write(&mut document, deploy("web", reserving(2)), 5);
    let back = Command::Rollout {
        service: key("web"),
        revision: None,
        change: RolloutChange::Rollback { reason: None },
    };
    write(&mut document, back, 6);
    write(&mut document, quota("default", Quota::default()), 7);
    assert!(snapshot_of(&document).quotas.is_empty());
    write(&mut document, scale("web", 9), 8);
}

#[test]
fn quotas_travel_converge_and_survive_compaction() {
    let mut a = Document::new(actor(1));
    write(&mut a, quota("shop", replicas(1)), 1);
    let mut b = Document::load(&a.save(), &[], actor(2)).unwrap();
    write(&mut a, quota("shop", replicas(2)), 2);
    write(&mut b, quota("shop", replicas(3)), 3);
    write(&mut b, quota("other", replicas(7)), 4);
    sync(&mut a, &mut b);
    assert_same(&a, &b);
    assert_eq!(snapshot_of(&a).quotas.get("shop"), Some(&replicas(3)));
    a.compact().unwrap();
    assert_eq!(snapshot_of(&a).quotas.get("other"), Some(&replicas(7)));
    assert_reads_the_same_from_disk(&a);
    assert_eq!(
        a.audit().iter().filter(|r| r.key == "quota/shop").count(),
        3
    );
}

#[test]
fn a_namespace_has_a_proper_name() {
    let mut document = Document::new(actor(1));
    for bad in ["", "Shop", "a/b", "-a"] {
        let told = document.propose(&[quota(bad, replicas(1))], "ada", at(1));
        assert!(matches!(told, Err(Rejection::BadNamespace(_))), "{bad:?}");
    }
}
