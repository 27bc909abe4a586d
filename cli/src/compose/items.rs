//! `secrets` and `configs`, of services and at the top level.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dunlin_state::model::{FileMount, ItemKey, ItemKind, MAX_ITEM_BYTES, is_file_name};

use super::read::View;
use super::report::Report;
use super::suggest::closest;
use super::support::{FILE_MOUNT, Section, TOP_CONFIG, TOP_SECRET};
use super::{Context, ProjectItem, Scope};

/// Most secrets, or configs, of a service.
const MAX_MOUNTS: usize = 128;

/// What is declared at the top level: the key in the file, and the name in the cluster.
pub(super) type Declared = BTreeMap<String, String>;

/// Reads the secrets or configs at the top level, with the content of those that are not external.
pub(super) fn declared(
    report: &mut Report,
    context: &Context<'_>,
    namespace: &str,
    kind: ItemKind,
    view: &View<'_>,
    items: &mut Vec<ProjectItem>,
) -> Declared {
    let mut declared = Declared::new();
    for (key, entry) in report.mapping(view) {
        if key.starts_with("x-") {
            continue;
        }
        let read = one(report, context, kind, key, &entry);
        match ItemKey::new(namespace, &read.name) {
            Ok(name) => {
                declared.insert(key.to_owned(), read.name);
                let labels = read.labels;
                if let Some(value) = read.value {
                    items.push(ProjectItem {
                        kind,
                        key: name,
                        value,
                        labels,
                    });
                }
            }
            Err(bad) => report.error(entry.key_at, &entry.path, bad.to_string()),
        }
    }
    declared
}

struct Declaration {
    name: String,
    value: Option<Vec<u8>>,
    labels: BTreeMap<String, String>,
}

fn one(
    report: &mut Report,
    context: &Context<'_>,
    kind: ItemKind,
    key: &str,
    view: &View<'_>,
) -> Declaration {
    let mut read = Declaration {
        name: key.to_owned(),
        value: None,
        labels: BTreeMap::new(),
    };
    let (mut external, mut sources) = (false, 0);
    let section: &Section = match kind {
        ItemKind::Secret => &TOP_SECRET,
        ItemKind::Config => &TOP_CONFIG,
    };
    if !view.is_map() {
        report.wrong_kind(view, "a mapping");
        return read;
    }
    for (name, field) in report.section(view, section) {
        match name {
            "name" => {
                if let Some(name) = report.line(&field) {
                    name.clone_into(&mut read.name);
                }
            }
            "external" => external = report.flag(&field).unwrap_or(false),
            "labels" => read.labels = super::deploy::labels(report, &field),
            "file" => {
                sources += 1;
                read.value = file(report, context, &field);
            }
            "environment" => {
                sources += 1;
                read.value = variable(report, context, &field);
            }
            "content" => {
                sources += 1;
                read.value = report.text(&field).map(|text| text.as_bytes().to_vec());
            }
            _ => report.unhandled(&field),
        }
    }
    match (external, sources) {
        (true, 0) | (false, 1) => {}
        (true, _) => {
            let text = format!("an external {kind} exists already and has no content here");
            report.error(view.key_at, &view.path, text);
        }
        (false, _) => {
            let text = format!("the {kind} '{key}' needs one source of its content");
            let hint = "give it 'file:', 'environment:', or 'external: true' if it exists already";
            report.error_hint(view.key_at, &view.path, text, hint);
        }
    }
    if read
        .value
        .as_ref()
        .is_some_and(|v| v.len() > MAX_ITEM_BYTES)
    {
        let limit = MAX_ITEM_BYTES / 1024;
        let text = format!("the {kind} '{key}' has more than {limit} KiB");
        report.error(view.key_at, &view.path, text);
        read.value = None;
    }
    read
}

fn file(report: &mut Report, context: &Context<'_>, view: &View<'_>) -> Option<Vec<u8>> {
    let text = report.line(view)?;
    let path = match context.directory {
        _ if Path::new(text).is_absolute() => PathBuf::from(text),
        Some(directory) => directory.join(text),
        None => {
            let hint = "use an absolute path, or name the file instead of passing it through \
                        standard input";
            let text = "a relative path needs a Compose file in a directory";
            report.fault_hint(view, text, hint);
            return None;
        }
    };
    match context.files.read_bytes(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            report.fault(view, format!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

fn variable(report: &mut Report, context: &Context<'_>, view: &View<'_>) -> Option<Vec<u8>> {
    let name = report.line(view)?;
    let value = context.variables.get(name);
    if value.is_none() {
        report.fault(view, format!("the variable {name} is not set here"));
    }
    value.map(|value| value.as_bytes().to_vec())
}

/// The secrets or configs of a service.
pub(super) fn mounts(
    report: &mut Report,
    scope: &Scope<'_>,
    kind: ItemKind,
    view: &View<'_>,
) -> Vec<FileMount> {
    let mut mounts: Vec<FileMount> = Vec::new();
    for item in report.list(view) {
        let mount = match item.is_map() {
            true => long(report, scope, kind, &item),
            false => report.line(&item).and_then(|name| {
                let source = source(report, scope, kind, &item, name)?;
                // Docker calls the file as the Compose file calls the secret.
                let target = if source == name { "" } else { name };
                Some(FileMount {
                    source,
                    target: target.to_owned(),
                    ..FileMount::default()
                })
            }),
        };
        let Some(mount) = mount else {
            continue;
        };
        let taken = mounts.iter().any(|m| m.file_name() == mount.file_name());
        if taken {
            let text = format!("two {kind}s have the file name '{}'", mount.file_name());
            report.fault(&item, text);
        } else if mounts.len() == MAX_MOUNTS {
            report.fault(&item, format!("a service has at most {MAX_MOUNTS} {kind}s"));
            break;
        } else {
            mounts.push(mount);
        }
    }
    mounts
}

fn long(
    report: &mut Report,
    scope: &Scope<'_>,
    kind: ItemKind,
    view: &View<'_>,
) -> Option<FileMount> {
    let mut mount = FileMount::default();
    let mut named = None;
    for (name, field) in report.section(view, &FILE_MOUNT) {
        match name {
            "source" => {
                named = report.line(&field);
                let source = named.and_then(|name| source(report, scope, kind, &field, name));
                mount.source = source.unwrap_or_default();
            }
            "target" => {
                mount.target = report.parsed(&field, target).unwrap_or_default();
            }
            "uid" => mount.uid = report.number(&field, 0, u32::MAX - 1),
            "gid" => mount.gid = report.number(&field, 0, u32::MAX - 1),
            "mode" => mount.mode = report.parsed(&field, mode),
            _ => report.unhandled(&field),
        }
    }
    let Some(named) = named else {
        report.fault(view, format!("it does not say which {kind}: add 'source:'"));
        return None;
    };
    if mount.target.is_empty() && mount.source != named {
        named.clone_into(&mut mount.target);
    }
    (!mount.source.is_empty()).then_some(mount)
}

fn source(
    report: &mut Report,
    scope: &Scope<'_>,
    kind: ItemKind,
    view: &View<'_>,
    name: &str,
) -> Option<String> {
    let declared = match kind {
        ItemKind::Secret => &scope.secrets,
        ItemKind::Config => &scope.configs,
    };
    if let Some(real) = declared.get(name) {
        return Some(real.clone());
    }
    let text = format!("the {kind} '{name}' is not declared");
    let hint = match closest(name, declared.keys().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("add it under '{kind}s:' at the top level of the file"),
    };
    report.fault_hint(view, text, hint);
    None
}

fn target(text: &str) -> Result<String, String> {
    let mut parts = text
        .strip_prefix('/')
        .into_iter()
        .flat_map(|t| t.split('/'));
    let absolute = text.starts_with('/') && parts.all(|part| !matches!(part, "" | "." | ".."));
    match is_file_name(text) || absolute {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "'{text}' is neither a file name nor an absolute path without '..'"
        )),
    }
}

/// YAML takes `0440` for a number in base 8, and Docker the text as well.
fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        Ok(_) | Err(_) => Err(format!(
            "'{text}' is not a mode: write permission bits in base 8, such as 0440"
        )),
    }
}
