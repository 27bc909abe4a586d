//! Constraints as people write them.

use std::str::FromStr;

use thiserror::Error;

use super::{Constraint, ConstraintOp, compile};

/// Values in the list of `in`: each is compared on every node for every bid.
const MAX_VALUES: usize = 64;

/// Operators of signs, the longer ones before those that they begin with.
const SIGNS: [(&str, ConstraintOp); 9] = [
    ("==", ConstraintOp::Equal),
    ("=~", ConstraintOp::Matches),
    ("!=", ConstraintOp::NotEqual),
    ("!~", ConstraintOp::MatchesNot),
    ("<=", ConstraintOp::AtMost),
    (">=", ConstraintOp::AtLeast),
    ("<", ConstraintOp::Less),
    (">", ConstraintOp::Greater),
    ("=", ConstraintOp::Equal),
];

/// What is wrong with the text of a constraint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}; {hint}")]
pub struct BadConstraint {
    /// The fault.
    pub text: String,
    /// What to write instead.
    pub hint: String,
    /// Where it is: characters from the beginning of the text.
    pub at: usize,
}

impl FromStr for Constraint {
    type Err = BadConstraint;

    /// Reads `node.labels.zone == north`, with or without blanks. The key is not checked here
    /// ([`Constraint::is_known_key`]); operator and value are.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = |rest: &str| text.chars().count() - rest.chars().count();
        let start = text.trim_start();
        let end = start.find(|c: char| c.is_whitespace() || "=!<>~".contains(c));
        let (key, rest) = start.split_at(end.unwrap_or(start.len()));
        let rest = rest.trim_start();
        let Some((op, value)) = operator(rest) else {
            return Err(no_operator(text, rest, at(rest)));
        };
        if key.is_empty() {
            return Err(BadConstraint {
                text: format!("'{}' names nothing to compare", short(text)),
                hint: "write for example 'node.labels.zone == north'".to_owned(),
                at: 0,
            });
        }
        let value = value.trim();
        let place = match value.is_empty() {
            true => at(rest),
            false => at(value_start(text, value)),
        };
        let value = if op.takes_list() {
            list(value, op).map_err(|e| e.at(place))?
        } else {
            value.to_owned()
        };
        let constraint = Self::new(key, op, value);
        match constraint.fault() {
            None => Ok(constraint),
            Some((text, hint)) => Err(BadConstraint {
                text,
                hint,
                at: place,
            }),
        }
    }
}

impl BadConstraint {
    fn at(self, at: usize) -> Self {
        Self { at, ..self }
    }
}

impl Constraint {
    /// What is wrong with its value, and what to write: it may have come from another member, and
    /// not from a text. The key is not looked at.
    pub fn fault(&self) -> Option<(String, String)> {
        let (op, shown) = (self.op, short(&self.value));
        if self.values().any(|value| value.is_empty()) {
            let hint = match op {
                ConstraintOp::In | ConstraintOp::NotIn => {
                    format!("write '{} {op} (one, two)'", self.key)
                }
                _ => format!("write '{} {op} VALUE'", self.key),
            };
            return Some((format!("'{}' has no value to compare with", self.key), hint));
        }
        match op {
            ConstraintOp::Equal | ConstraintOp::NotEqual => None,
            ConstraintOp::In | ConstraintOp::NotIn => {
                let many = self.values().count() > MAX_VALUES;
                many.then(|| {
                    let text = format!("more than {MAX_VALUES} values stand in a list");
                    (text, "use a label of its own for them, or '=~'".to_owned())
                })
            }
            ConstraintOp::Matches | ConstraintOp::MatchesNot => {
                let fault = compile(&self.value).err()?;
                let why = fault.to_string();
                let why = why.lines().last().unwrap_or_default().trim();
                let why = why.strip_prefix("error: ").unwrap_or(why);
                let hint = "write a regular expression such as '^web-[0-9]+$'";
                let text = format!("'{shown}' is not a usable regular expression: {why}");
                Some((text, hint.to_owned()))
            }
            ConstraintOp::Less
            | ConstraintOp::AtMost
            | ConstraintOp::Greater
            | ConstraintOp::AtLeast => {
                let text = format!("'{shown}' is neither a number nor a version");
                let hint = "write for example 'node.cpus >= 4', 'node.memory >= 16g' or \
                            'node.kernel >= 6.1'";
                (!self.is_orderable(&self.value)).then(|| (text, hint.to_owned()))
            }
        }
    }
}

/// The operator that a text begins with, and what follows it.
fn operator(rest: &str) -> Option<(ConstraintOp, &str)> {
    let sign = SIGNS
        .iter()
        .find_map(|(sign, op)| Some((*op, rest.strip_prefix(sign)?)));
    sign.or_else(|| {
        let (first, after) = word(rest);
        if first.eq_ignore_ascii_case("in") {
            return Some((ConstraintOp::In, after));
        }
        let (second, after) = word(after.trim_start());
        let not_in = first.eq_ignore_ascii_case("not") && second.eq_ignore_ascii_case("in");
        not_in.then_some((ConstraintOp::NotIn, after))
    })
}

/// The letters that a text begins with.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphabetic());
    text.split_at(end.unwrap_or(text.len()))
}

fn no_operator(text: &str, rest: &str, at: usize) -> BadConstraint {
    let found = rest.split_whitespace().next().unwrap_or_default();
    BadConstraint {
        text: match found {
            "" => format!("'{}' compares nothing", short(text)),
            found => format!("'{}' is not a comparison", short(found)),
        },
        hint:
            "write 'node.labels.zone == north', or one of !=, in (a, b), not in (a, b), =~, !~, <, \
               <=, > and >="
                .to_owned(),
        at,
    }
}

/// `(a, b)`, with its blanks made uniform.
fn list(text: &str, op: ConstraintOp) -> Result<String, BadConstraint> {
    let inside = text
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    let Some(inside) = inside else {
        return Err(BadConstraint {
            text: format!("'{op}' needs a list in parentheses"),
            hint: format!("write '{op} (north, south)'"),
            at: 0,
        });
    };
    let values: Vec<&str> = inside.split(',').map(str::trim).collect();
    Ok(values.join(", "))
}

/// The rest of `text` from where `value`, which is a part of it, begins.
fn value_start<'a>(text: &'a str, value: &str) -> &'a str {
    let trimmed = text.trim_end();
    let from = trimmed.len().saturating_sub(value.len());
    text.get(from..).unwrap_or_default()
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
