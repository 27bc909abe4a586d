//! Who waits for whom.

use dunlin_state::model::Condition;

use super::{bad, good};

#[test]
fn both_forms_are_understood() {
    let project = good(
        "services:\n  web:\n    image: a\n    depends_on: [cache, other/api]\n  api:\n    image: a\n    \
         depends_on:\n      cache: {condition: service_healthy}\n      \
         migrate: {condition: service_completed_successfully, required: true}\n      \
         mail: {condition: service_started, required: false}\n  cache: {image: a}\n  \
         migrate: {image: a}\n",
    );
    let said = |at: usize| -> Vec<(String, Condition, bool)> {
        let depends_on = &project.services[at].spec.depends_on;
        let all = depends_on.iter();
        all.map(|d| (d.service.to_string(), d.condition, d.required))
            .collect()
    };
    let started = Condition::ServiceStarted;
    assert_eq!(
        said(0),
        [
            ("default/cache".to_owned(), started, true),
            ("other/api".to_owned(), started, true)
        ]
    );
    // One that is not there and not required is forgotten.
    assert_eq!(
        said(1),
        [
            ("default/cache".to_owned(), Condition::ServiceHealthy, true),
            (
                "default/migrate".to_owned(),
                Condition::ServiceCompletedSuccessfully,
                true
            )
        ]
    );
}

#[test]
fn a_cycle_is_printed_once() {
    let shown = bad(
        "services:\n  web:\n    image: a\n    depends_on: [a]\n  a: {image: a, depends_on: [b]}\n  \
         b: {image: a, depends_on: [c]}\n  c: {image: a, depends_on: [a]}\n",
    );
    assert!(
        shown.contains("these services would wait for each other for ever: a -> b -> c -> a"),
        "{shown}"
    );
    assert_eq!(shown.matches("for ever").count(), 1, "{shown}");
}

#[test]
fn services_that_are_not_there_are_named() {
    let shown = bad("services:\n  web: {image: a, depends_on: [chache]}\n  cache: {image: a}\n");
    assert!(shown.contains("no service 'chache'"), "{shown}");
    assert!(shown.contains("did you mean 'cache'?"), "{shown}");
    let shown = bad(
        "services:\n  web: {image: a, depends_on: [cache]}\n  cache: {image: a, profiles: [x]}\n",
    );
    assert!(shown.contains("its profiles are not active"), "{shown}");
}
