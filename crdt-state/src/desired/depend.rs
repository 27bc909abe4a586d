//! Services that wait for each other.

use std::collections::BTreeSet;

use crate::model::{ServiceKey, ServiceSpec};

/// A cycle of dependencies that `start` is part of or leads to, if there is one. `spec` looks up
/// services; those that do not exist depend on nothing.
pub fn dependency_cycle<'a>(
    start: &ServiceKey,
    spec: impl Fn(&ServiceKey) -> Option<&'a ServiceSpec>,
) -> Option<Vec<ServiceKey>> {
    let of = |key: &ServiceKey| {
        let found = spec(key);
        let dependencies = found.into_iter().flat_map(|s| &s.depends_on);
        dependencies.map(|d| d.service.clone()).collect::<Vec<_>>()
    };
    // A walk with its own stack: the depth is that of what people deploy.
    let mut path = vec![(start.clone(), of(start))];
    let mut done: BTreeSet<ServiceKey> = BTreeSet::new();
    while let Some((_, ahead)) = path.last_mut() {
        let Some(next) = ahead.pop() else {
            done.extend(path.pop().map(|(key, _)| key));
            continue;
        };
        if let Some(first) = path.iter().position(|(key, _)| *key == next) {
            return Some(path.drain(first..).map(|(key, _)| key).collect());
        }
        if !done.contains(&next) {
            let ahead = of(&next);
            path.push((next, ahead));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Condition, Dependency};

    fn waits_for(names: &[&str]) -> ServiceSpec {
        let depends_on = names.iter().map(|name| Dependency {
            service: key(name),
            condition: Condition::default(),
            required: true,
        });
        ServiceSpec {
            depends_on: depends_on.collect(),
            ..ServiceSpec::default()
        }
    }

    fn key(name: &str) -> ServiceKey {
        name.parse().unwrap()
    }

    fn cycle(services: &[(&str, &[&str])], start: &str) -> Option<String> {
        let specs: Vec<_> = services
            .iter()
            .map(|(name, on)| (key(name), waits_for(on)))
            .collect();
        let spec = |wanted: &ServiceKey| {
            let found = specs.iter().find(|(key, _)| key == wanted);
            found.map(|(_, spec)| spec)
        };
        let found = dependency_cycle(&key(start), spec)?;
        let names: Vec<&str> = found.iter().map(ServiceKey::name).collect();
        Some(names.join(" "))
    }

    #[test]
    fn a_diamond_is_no_cycle() {
        let diamond: &[(&str, &[&str])] = &[
            ("a", &["b", "c"]),
            ("b", &["d"]),
            ("c", &["d", "nobody"]),
            ("d", &[]),
        ];
        assert_eq!(cycle(diamond, "a"), None);
    }

    #[test]
    fn cycles_are_found_from_outside_and_named_without_the_way_to_them() {
        let services: &[(&str, &[&str])] =
            &[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])];
        assert_eq!(cycle(services, "a").as_deref(), Some("b c"));
        assert_eq!(cycle(services, "c").as_deref(), Some("c b"));
        assert_eq!(cycle(services, "d"), None);
        assert_eq!(cycle(&[("a", &["a"])], "a").as_deref(), Some("a"));
    }
}
