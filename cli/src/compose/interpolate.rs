//! `${VARIABLE}` in values, by the rules of the Compose specification.

use std::collections::BTreeMap;

/// How deep defaults may nest, as in `${A:-${B:-${C}}}`. People need two.
const MAX_DEPTH: usize = 8;

/// Longest value that interpolation may give, in bytes: environments are at most 128 KiB on Linux.
const MAX_VALUE_BYTES: usize = 128 * 1024;

/// What interpolation found: `dollar` counts the dollar signs before the one it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) dollar: usize,
    pub(super) text: String,
    pub(super) hint: Option<String>,
}

/// The variables that values may refer to.
pub(super) type Variables = BTreeMap<String, String>;

/// Replaces variables in `text`. A variable that is not set becomes empty and is reported in
/// `unset`.
pub(super) fn interpolate(
    text: &str,
    variables: &Variables,
    unset: &mut Vec<Finding>,
) -> Result<String, Finding> {
    let mut run = Run {
        variables,
        unset,
        text,
        at: 0,
        dollars: 0,
        out_bytes: 0,
    };
    run.until_end(0, false)
}

struct Run<'a> {
    variables: &'a Variables,
    unset: &'a mut Vec<Finding>,
    text: &'a str,
    at: usize,
    dollars: usize,
    out_bytes: usize,
}

/// What follows the name inside the braces.
enum Operator {
    Default { also_empty: bool },
    Required { also_empty: bool },
    Alternative { also_empty: bool },
}

impl<'a> Run<'a> {
    /// Copies and replaces up to the end, or in braces up to the `}` that closes them.
    fn until_end(&mut self, depth: usize, in_braces: bool) -> Result<String, Finding> {
        let start = self.dollars.saturating_sub(1);
        let mut out = String::new();
        while let Some(c) = self.peek() {
            if in_braces && c == '}' {
                return Ok(out);
            }
            if c == '$' {
                let value = self.dollar(depth)?;
                self.out_bytes += value.len();
                if self.out_bytes > MAX_VALUE_BYTES {
                    let limit = MAX_VALUE_BYTES / 1024;
                    return Err(self.fault(format!("the value grows beyond {limit} KiB")));
                }
                out.push_str(&value);
            } else {
                out.push(c);
                self.at += c.len_utf8();
            }
        }
        if in_braces {
            return Err(Finding {
                dollar: start,
                text: "'${' is not closed".to_owned(),
                hint: Some("add '}', or write '$$' for a literal dollar sign".to_owned()),
            });
        }
        Ok(out)
    }

    /// Replaces what starts with the dollar sign here.
    fn dollar(&mut self, depth: usize) -> Result<String, Finding> {
        self.at += 1;
        self.dollars += 1;
        match self.peek() {
            Some('$') => {
                self.at += 1;
                self.dollars += 1;
                Ok("$".to_owned())
            }
            Some('{') => {
                self.at += 1;
                self.braced(depth)
            }
            Some(c) if starts_name(c) => {
                let name = self.name();
                Ok(self.value_of(name))
            }
            // Compose leaves any other dollar sign alone, as in `^a$`.
            Some(_) | None => Ok("$".to_owned()),
        }
    }

    /// Replaces `NAME…}`; the braces are open.
    fn braced(&mut self, depth: usize) -> Result<String, Finding> {
        let dollar = self.dollars - 1;
        let fault = |text: String, hint: Option<&str>| Finding {
            dollar,
            text,
            hint: hint.map(str::to_owned),
        };
        if depth >= MAX_DEPTH {
            let text = format!("defaults are nested more than {MAX_DEPTH} deep");
            return Err(fault(text, None));
        }
        let name = self.name();
        if name.is_empty() {
            let hint = "names have letters, digits and '_'; write '$$' for a literal dollar sign";
            let text = "'${' is not followed by a variable name".to_owned();
            return Err(fault(text, Some(hint)));
        }
        let Some(operator) = self.operator() else {
            return match self.peek() {
                Some('}') => {
                    self.at += 1;
                    Ok(self.value_of(name))
                }
                Some(c) => {
                    let text = format!("'{c}' after '${{{name}' is not understood");
                    let hint = "use ':-default', '-default', ':?message', '?message', ':+other' \
                                or '+other'";
                    Err(fault(text, Some(hint)))
                }
                None => Err(fault(
                    format!("'${{{name}' is not closed"),
                    Some("add '}', or write '$$' for a literal dollar sign"),
                )),
            };
        };
        // The other branch's text must be skipped all the same, but its unset variables are no news.
        let known = self.unset.len();
        let rest = self.until_end(depth + 1, true)?;
        self.at += 1;
        let value = self.variables.get(name);
        let set = |also_empty: bool| value.is_some_and(|v| !(also_empty && v.is_empty()));
        let (used, answer) = match operator {
            Operator::Default { also_empty } if set(also_empty) => (false, value.cloned()),
            Operator::Default { .. } => (true, Some(rest)),
            Operator::Alternative { also_empty } if set(also_empty) => (true, Some(rest)),
            Operator::Alternative { .. } => (false, None),
            Operator::Required { also_empty } if set(also_empty) => (false, value.cloned()),
            Operator::Required { .. } if rest.is_empty() => {
                return Err(fault(format!("the variable {name} is required"), None));
            }
            Operator::Required { .. } => {
                return Err(fault(
                    format!("the variable {name} is required: {rest}"),
                    Some("set it in the environment or in a .env file next to this one"),
                ));
            }
        };
        if !used {
            self.unset.truncate(known);
        }
        Ok(answer.unwrap_or_default())
    }

    fn operator(&mut self) -> Option<Operator> {
        let rest = self.text.get(self.at..)?;
        let (also_empty, mark) = match rest.strip_prefix(':') {
            Some(after) => (true, after.chars().next()),
            None => (false, rest.chars().next()),
        };
        let operator = match mark? {
            '-' => Operator::Default { also_empty },
            '?' => Operator::Required { also_empty },
            '+' => Operator::Alternative { also_empty },
            _ => return None,
        };
        self.at += 1 + usize::from(also_empty);
        Some(operator)
    }

    fn value_of(&mut self, name: &str) -> String {
        if let Some(value) = self.variables.get(name) {
            return value.clone();
        }
        self.unset.push(Finding {
            dollar: self.dollars - 1,
            text: format!("the variable {name} is not set and was replaced by nothing"),
            hint: None,
        });
        String::new()
    }

    /// The name here; empty when there is none.
    fn name(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let inner = |c: char| c == '_' || c.is_ascii_alphanumeric();
        let end = match rest.chars().next() {
            Some(c) if starts_name(c) => rest.find(|c| !inner(c)).unwrap_or(rest.len()),
            Some(_) | None => 0,
        };
        self.at += end;
        &rest[..end]
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn fault(&self, text: String) -> Finding {
        Finding {
            dollar: self.dollars.saturating_sub(1),
            text,
            hint: None,
        }
    }
}

fn starts_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}
