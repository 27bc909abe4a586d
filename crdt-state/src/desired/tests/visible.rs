use super::*;

/// Two documents that have seen the same and now write apart.
fn pair(setup: &[Command]) -> (Document, Document) {
    let mut a = Document::new(actor(1));
    let mut b = Document::new(actor(2));
    let change = a.propose(setup, "setup", at(1)).unwrap().unwrap();
    feed(&mut b, &[change]);
    (a, b)
}

#[test]
fn a_new_cluster_starts_from_one_document() {
    assert_same(&Document::new(actor(1)), &Document::new(actor(2)));
    assert_eq!(Document::new(actor(1)).id().epoch, 0);
}

#[test]
fn concurrent_edits_of_different_aspects_both_win() {
    let (mut a, mut b) = pair(&[deploy("web", spec("nginx:1"))]);
    let scaled = write(&mut a, scale("web", 7), 2);
    let imaged = write(&mut b, deploy("web", spec("nginx:2")), 2);
    feed(&mut a, &[imaged]);
    feed(&mut b, &[scaled]);
    assert_same(&a, &b);
    let web = service(&a, "web").unwrap();
    assert_eq!((web.replicas, web.spec.image.as_str()), (7, "nginx:2"));
    assert!(a.conflicts().is_empty());
}

#[test]
fn the_loser_of_two_concurrent_edits_stays_visible_until_somebody_settles_it() {
    let (mut a, mut b) = pair(&[deploy("web", spec("nginx:1"))]);
    let by_a = write(&mut a, scale("web", 3), 20);
    let by_b = write(&mut b, scale("web", 4), 10);
    feed(&mut a, &[by_b]);
    feed(&mut b, &[by_a]);
    assert_same(&a, &b);
    assert_eq!(
        service(&a, "web").unwrap().replicas,
        4,
        "equal counters: the greater actor"
    );
    let conflicts = a.conflicts();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].winner.summary, "4 replicas");
    assert_eq!(conflicts[0].lost[0].summary, "3 replicas");
    let told = conflicts[0].to_string();
    assert!(
        told.contains("changed its scale unseen") && told.contains("'3 replicas' by"),
        "{told}"
    );
    assert!(conflicts[0].lost[0].lost && !conflicts[0].lost[0].current);
    let history = a.history(&key("web"));
    let scales: Vec<_> = history
        .iter()
        .filter(|e| e.aspect == Aspect::Scale)
        .collect();
    assert_eq!(
        scales
            .iter()
            .map(|e| (e.current, e.lost))
            .collect::<Vec<_>>(),
        [(true, false), (false, true), (false, false)]
    );
    // A later edit settles it; history still tells.
    write(&mut a, scale("web", 5), 30);
    assert!(a.conflicts().is_empty());
    assert_eq!(a.history(&key("web")).iter().filter(|e| e.lost).count(), 1);
}

#[test]
fn concurrent_edits_that_agree_are_no_conflict() {
    let (mut a, mut b) = pair(&[deploy("web", spec("nginx:1"))]);
    let by_a = write(&mut a, scale("web", 3), 2);
    let by_b = write(&mut b, scale("web", 3), 2);
    feed(&mut a, &[by_b]);
    feed(&mut b, &[by_a]);
    assert_same(&a, &b);
    assert!(a.conflicts().is_empty());
}

#[test]
fn a_conflict_outlives_compaction() {
    let (mut a, mut b) = pair(&[deploy("web", spec("nginx:1"))]);
    let by_a = write(&mut a, scale("web", 3), 2);
    let by_b = write(&mut b, scale("web", 4), 2);
    feed(&mut a, &[by_b]);
    feed(&mut b, &[by_a]);
    let before = (a.conflicts(), a.history(&key("web")), a.snapshot());
    a.compact().unwrap();
    assert_eq!(
        (a.conflicts(), a.history(&key("web")), a.snapshot()),
        before
    );
}

#[test]
fn the_greater_stamp_decides_between_removing_and_deploying() {
    for (remover, survives) in [(1, true), (2, false)] {
        let (mut a, mut b) = pair(&[deploy("web", spec("nginx:1"))]);
        let changed = ServiceSpec {
            command: vec!["serve".to_owned()],
            ..spec("nginx:1")
        };
        let (removed, deployed) = if remover == 1 {
            (
                write(&mut a, remove("web"), 2),
                write(&mut b, deploy("web", changed), 2),
            )
        } else {
            (
                write(&mut b, remove("web"), 2),
                write(&mut a, deploy("web", changed), 2),
            )
        };
        let both = [removed, deployed];
        feed(&mut a, &both);
        feed(&mut b, &both);
        assert_same(&a, &b);
        assert_eq!(service(&a, "web").is_some(), survives);
        if let Some(web) = service(&a, "web") {
            assert_eq!(
                web.spec.image, "nginx:1",
                "the image came with the specification"
            );
        }
    }
}

#[test]
fn a_concurrent_scale_does_not_bring_a_removed_service_back() {
    let (mut a, mut b) = pair(&[deploy("web", spec("nginx:1"))]);
    let removed = write(&mut a, remove("web"), 2);
    let scaled = write(&mut b, scale("web", 9), 2);
    feed(&mut a, &[scaled]);
    feed(&mut b, &[removed]);
    assert_same(&a, &b);
    assert_eq!(service(&a, "web"), None);
    // The leftover does not shine through either.
    write(&mut a, deploy("web", spec("nginx:2")), 3);
    assert_eq!(service(&a, "web").unwrap().replicas, 1);
}

#[test]
fn changes_are_told_one_by_one() {
    let mut a = Document::new(actor(1));
    let mut b = Document::new(actor(2));
    let told = |b: &mut Document, change| feed(b, &[change]);
    let web = key("web");
    let change = write(&mut a, deploy("web", spec("nginx:1")), 1);
    assert_eq!(
        told(&mut b, change),
        [DesiredChange::ServiceCreated(web.clone())]
    );
    let change = write(&mut a, scale("web", 2), 2);
    let scaled = DesiredChange::ScaleChanged {
        service: web.clone(),
        replicas: 2,
    };
    assert_eq!(told(&mut b, change), [scaled]);
    let change = write(&mut a, deploy("web", spec("nginx:2")), 3);
    let respecified = DesiredChange::SpecChanged {
        service: web.clone(),
        revision: service(&a, "web").unwrap().revision,
        image_only: true,
    };
    assert_eq!(told(&mut b, change), [respecified]);
    let change = write(&mut a, stop("web"), 4);
    let stopped = DesiredChange::RunningChanged {
        service: web.clone(),
        running: false,
    };
    assert_eq!(told(&mut b, change), [stopped]);
    let change = write(&mut a, remove("web"), 5);
    assert_eq!(told(&mut b, change), [DesiredChange::ServiceRemoved(web)]);
}

#[test]
fn history_is_bounded() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx:1")), 1);
    for n in 2..40 {
        write(&mut document, scale("web", n), u64::from(n));
    }
    let history = document.history(&key("web"));
    let scales: Vec<_> = history
        .iter()
        .filter(|e| e.aspect == Aspect::Scale)
        .collect();
    assert_eq!(scales.len(), MAX_REVISIONS);
    assert_eq!(scales[0].summary, "39 replicas");
    assert!(scales[0].current && history.iter().all(|e| !e.lost));
    assert_reads_the_same_from_disk(&document);
}

#[test]
fn one_change_among_many_services_leaves_the_others_alone() {
    let mut document = Document::new(actor(1));
    let many: Vec<_> = (0..50)
        .map(|n| deploy(&format!("s{n}"), spec("x")))
        .collect();
    document.propose(&many, "ada", at(1)).unwrap();
    let before = document.snapshot();
    write(&mut document, scale("s7", 2), 2);
    let after = document.snapshot();
    for (key, service) in &after.services {
        let same = Arc::ptr_eq(&service.spec, &before.services[key].spec);
        assert!(same, "{key} has been read again");
    }
    assert_eq!(
        before.services[&key("s7")].replicas,
        1,
        "an old snapshot never changes"
    );
}
