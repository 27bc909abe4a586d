//! What a peer may say of itself.

use super::*;

#[test]
fn bounds_are_checked() {
    let with = |change: &dyn Fn(&mut NodeReport)| {
        let mut register = (**register(1, 1, 1).view()).clone();
        change(&mut register.report);
        check(&register)
    };
    assert_eq!(
        with(&|r| r.claims = vec![claim("web"), claim("db")]),
        Ok(())
    );
    let duplicate = with(&|r| r.claims = vec![claim("web"), claim("db"), claim("web")]);
    assert!(matches!(duplicate, Err(BadRegister::DuplicateClaim(_))));
    let many = with(&|r| {
        r.claims = (0..=MAX_CLAIMS).map(|n| claim(&format!("s{n}"))).collect();
    });
    assert!(matches!(many, Err(BadRegister::TooMany { .. })));
    let long = with(&|r| r.name = "x".repeat(300));
    assert!(matches!(long, Err(BadRegister::TooLong { .. })));
    let huge = with(&|r| {
        r.claims = (0..MAX_CLAIMS)
            .map(|n| Claim {
                message: Some("x".repeat(1_000)),
                ..claim(&format!("s{n}"))
            })
            .collect();
    });
    assert!(matches!(huge, Err(BadRegister::TooLong { .. })));
}

#[test]
fn the_size_is_never_underestimated() {
    let mut register = (**register(1, u64::MAX, u64::MAX).view()).clone();
    let mut big = claim("a-service-with-a-long-name");
    big.since = u64::MAX;
    big.started_at = Some(u64::MAX);
    big.resources = Resources {
        cpu_millis: u64::MAX,
        memory: u64::MAX,
        disk: u64::MAX,
    };
    big.message = Some("no space left on device".to_owned());
    register.report.claims = vec![big; 3];
    register.report.labels = [("zone".to_owned(), "north".to_owned())].into();
    let encoded = serde_json::to_vec(&register).unwrap().len();
    // JSON spells every field name out for every claim and is the largest encoding in use.
    assert!(
        size(&register) * 2 > encoded,
        "{} against {encoded}",
        size(&register)
    );
}
