//! `environment` and `env_file`.

use std::collections::BTreeMap;
use std::path::Path;

use super::Scope;
use super::fault::Position;
use super::interpolate::{Variables, interpolate};
use super::read::View;
use super::report::Report;
use super::source::Source;
use super::support::ENV_FILE;

/// Variables that the daemon sets for each replica; a value given here would be replaced.
const RESERVED_PREFIX: &str = "DUNLIN_";

/// Variables of a service: those of its files, then its own.
pub(super) fn environment(
    report: &mut Report,
    scope: &Scope<'_>,
    files: Option<&View<'_>>,
    own: Option<&View<'_>>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if let Some(view) = files {
        env_files(report, scope, view, &mut variables);
    }
    let Some(view) = own else {
        return variables;
    };
    let mut seen: BTreeMap<String, Position> = BTreeMap::new();
    for (name, value, item) in report.assignments(view) {
        if let Some(first) = seen.insert(name.clone(), item.key_at) {
            let text = format!("the variable {name} is given twice");
            report.error_related(item.key_at, &item.path, text, (first, "it is given first"));
            continue;
        }
        if name.starts_with(RESERVED_PREFIX) {
            let text = format!("{name} is set by Dunlin for each replica and will be replaced");
            report.warn_key(&item, text);
        }
        match value.or_else(|| scope.variables.get(&name).cloned()) {
            Some(value) => {
                variables.insert(name, value);
            }
            None => {
                let text = format!("{name} has no value and is not set here, so it was left out");
                report.warn_key(&item, text);
                variables.remove(&name);
            }
        }
    }
    variables
}

fn env_files(
    report: &mut Report,
    scope: &Scope<'_>,
    view: &View<'_>,
    into: &mut BTreeMap<String, String>,
) {
    let items = if view.is_list() {
        report.list(view)
    } else {
        vec![view.clone()]
    };
    for item in items {
        let mut path = None;
        let mut required = true;
        let mut raw = false;
        if item.is_map() {
            for (key, field) in report.section(&item, &ENV_FILE) {
                match key {
                    "path" => path = report.filled(&field).map(|text| (text, field)),
                    "required" => required = report.flag(&field).unwrap_or(true),
                    "format" => raw = report.choice(&field, &[("raw", true)]).unwrap_or(false),
                    _ => report.unhandled(&field),
                }
            }
            if path.is_none() {
                report.fault(&item, "env_file needs a path");
            }
        } else {
            path = report.filled(&item).map(|text| (text, item.clone()));
        }
        if let Some((path, place)) = path {
            let wanted = EnvFile {
                path,
                required,
                raw,
            };
            env_file(report, scope, &place, &wanted, into);
        }
    }
}

struct EnvFile<'a> {
    path: &'a str,
    required: bool,
    raw: bool,
}

fn env_file(
    report: &mut Report,
    scope: &Scope<'_>,
    view: &View<'_>,
    wanted: &EnvFile<'_>,
    into: &mut BTreeMap<String, String>,
) {
    let path = Path::new(wanted.path);
    if path.is_absolute() {
        let text = "an absolute path ties this file to one host";
        report.warn(view.at(), &view.path, text);
    } else if scope.directory.is_none() {
        let text = "a relative env_file needs a Compose file that stands in a directory";
        let hint = "name the file instead of passing it through standard input";
        report.fault_hint(view, text, hint);
        return;
    }
    let full = scope.directory.unwrap_or(Path::new("/")).join(path);
    let text = match scope.files.read(&full) {
        Ok(text) => text,
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            if wanted.required || !missing {
                let text = format!("cannot read {}: {error}", full.display());
                report.fault(view, text);
            }
            return;
        }
    };
    let name = full.display().to_string();
    let source = Source::new(&name, &text);
    let mut inner = Report::new(&source);
    read_env_file(&mut inner, &text, wanted.raw, scope.variables, into);
    match inner.finish() {
        Ok(warnings) => warnings.into_iter().for_each(|w| report.push_warning(w)),
        Err(errors) => errors.into_iter().for_each(|e| report.push(e)),
    }
}

/// Reads lines of `NAME=VALUE`. Later values go before earlier ones, and may refer to them.
pub(super) fn read_env_file(
    report: &mut Report,
    text: &str,
    raw: bool,
    outside: &Variables,
    into: &mut BTreeMap<String, String>,
) {
    let mut known = outside.clone();
    for (index, line) in text.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let lead = line.len() - line.trim_start().len();
        let at = Position {
            line: number,
            column: u32::try_from(lead + 1).unwrap_or(u32::MAX),
            width: u32::try_from(trimmed.chars().count()).unwrap_or(u32::MAX),
        };
        let assignment = trimmed
            .strip_prefix("export ")
            .unwrap_or(trimmed)
            .trim_start();
        let (name, value) = match assignment.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value)),
            None => (assignment, None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) || name.contains('\0') {
            let hint = "write NAME=value, one a line";
            report.error_hint(at, "", format!("'{name}' is not a variable name"), hint);
            continue;
        }
        let value = match value {
            None => outside.get(name).cloned(),
            Some(value) if raw => Some(value.to_owned()),
            Some(value) => match env_value(value.trim(), &known) {
                Ok(value) => Some(value),
                Err(message) => {
                    report.error(at, name, message);
                    continue;
                }
            },
        };
        if let Some(value) = value.filter(|v| !v.contains('\0')) {
            known.insert(name.to_owned(), value.clone());
            into.insert(name.to_owned(), value);
        }
    }
}

/// A value of an env file: single quotes take it literally, double quotes know escapes, and
/// unquoted a ` #` starts a comment.
fn env_value(text: &str, known: &Variables) -> Result<String, String> {
    let close = |quote: char, rest: &str| match rest.trim() {
        "" => Ok(()),
        after if after.starts_with('#') => Ok(()),
        _ => Err(format!("there is text after the closing {quote}")),
    };
    let expand =
        |text: &str| interpolate(text, known, &mut Vec::new()).map_err(|finding| finding.text);
    if let Some(rest) = text.strip_prefix('\'') {
        let (inner, after) = rest.split_once('\'').ok_or("the quote ' is not closed")?;
        close('\'', after)?;
        return Ok(inner.to_owned());
    }
    if let Some(rest) = text.strip_prefix('"') {
        let mut inner = String::new();
        let mut chars = rest.char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    close('"', &rest[index + 1..])?;
                    return expand(&inner);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => inner.push('\n'),
                    Some('t') => inner.push('\t'),
                    Some('r') => inner.push('\r'),
                    Some('$') => inner.push_str("$$"),
                    Some(c @ ('"' | '\\')) => inner.push(c),
                    Some(c) => {
                        inner.push('\\');
                        inner.push(c);
                    }
                    None => break,
                },
                c => inner.push(c),
            }
        }
        return Err("the quote \" is not closed on its line".to_owned());
    }
    let end = text.find(" #").unwrap_or(text.len());
    expand(text[..end].trim_end())
}
