//! `volumes`, of services and at the top level.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use dunlin_state::model::{VolumeMount, VolumeScope, is_volume_name};

use super::Scope;
use super::read::View;
use super::report::Report;
use super::suggest::closest;
use super::support::{TOP_VOLUME, VOLUME, VOLUME_DUNLIN};

/// Options of the short syntax that say how the engine should treat a mount; they do not change
/// what a replica sees.
const HARMLESS_OPTIONS: &[&str] = &["z", "Z", "cached", "delegated", "consistent", "nocopy"];

/// Most mounts of a service.
const MAX_MOUNTS: usize = 128;

/// Declared volumes, by their keys in the file.
pub(super) type Declared = BTreeMap<String, Volume>;

/// What the file says of a volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Volume {
    /// Its name on the nodes.
    name: String,
    scope: VolumeScope,
    allow_empty: bool,
}

const SCOPES: &[(&str, VolumeScope)] = &[
    ("node", VolumeScope::Node),
    ("replica", VolumeScope::Replica),
];

/// The volumes at the top level.
pub(super) fn declared(report: &mut Report, project: &str, view: &View<'_>) -> Declared {
    let mut declared = Declared::new();
    for (key, field) in report.mapping(view) {
        if key.starts_with("x-") {
            continue;
        }
        if let Err(message) = volume_name(key) {
            report.error(field.key_at, &field.path, message);
            continue;
        }
        let mut volume = Volume::default();
        let name = describe(report, &field, key, &mut volume);
        volume.name = name.unwrap_or(format!("{project}_{key}"));
        declared.insert(key.to_owned(), volume);
    }
    declared
}

/// Reads a volume's declaration. Returns the name that it gives, if any.
fn describe(
    report: &mut Report,
    view: &View<'_>,
    key: &str,
    volume: &mut Volume,
) -> Option<String> {
    if view.is_null() {
        return None;
    }
    let mut name = None;
    let mut external = false;
    for (field, value) in report.section(view, &TOP_VOLUME) {
        match field {
            "name" => name = report.parsed(&value, volume_name),
            "external" => external = report.external(&value),
            "driver" => {
                if report
                    .filled(&value)
                    .is_some_and(|driver| driver != "local")
                {
                    let text = "driver is not honoured yet and was ignored: volumes are local";
                    report.warn_key(&value, text);
                }
            }
            "x-dunlin" => describe_own(report, &value, volume),
            _ => report.unhandled(&value),
        }
    }
    name.or_else(|| external.then(|| key.to_owned()))
}

fn describe_own(report: &mut Report, view: &View<'_>, volume: &mut Volume) {
    for (key, field) in report.section(view, &VOLUME_DUNLIN) {
        match key {
            "scope" => volume.scope = report.choice(&field, SCOPES).unwrap_or_default(),
            "allow_empty" => volume.allow_empty = report.flag(&field).unwrap_or(false),
            _ => report.unhandled(&field),
        }
    }
}

/// The mounts of a service.
pub(super) fn mounts(report: &mut Report, scope: &Scope<'_>, view: &View<'_>) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for item in report.list(view) {
        let mount = if item.is_map() {
            long(report, scope, &item)
        } else {
            short(report, scope, &item)
        };
        let Some(mount) = mount else {
            continue;
        };
        if mounts.iter().any(|m| m.target == mount.target) {
            let text = format!("two volumes are mounted at {}", mount.target);
            report.fault(&item, text);
        } else if mounts.len() == MAX_MOUNTS {
            report.fault(&item, format!("a service has at most {MAX_MOUNTS} volumes"));
            break;
        } else {
            mounts.push(mount);
        }
    }
    mounts
}

/// `[SOURCE:]TARGET[:OPTIONS]`
fn short(report: &mut Report, scope: &Scope<'_>, view: &View<'_>) -> Option<VolumeMount> {
    let text = report.line(view)?;
    let mut parts = text.splitn(3, ':');
    let first = parts.next().unwrap_or_default();
    let Some(target) = parts.next() else {
        anonymous(report, view);
        return None;
    };
    let mut read_only = false;
    for option in parts.next().into_iter().flat_map(|o| o.split(',')) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            other if HARMLESS_OPTIONS.contains(&other) => {
                let text = format!("the option '{other}' is not honoured yet and was ignored");
                report.warn(view.at(), &view.path, text);
            }
            other => {
                let text = format!("unknown volume option '{other}'");
                report.fault_hint(view, text, "use 'ro' or 'rw'");
            }
        }
    }
    let volume = if is_path(first) {
        bind(report, scope, view, first)
    } else {
        volume(report, scope, view, first)
    }?;
    let target = target_path(report, view, target)?;
    Some(volume.mounted(target, read_only))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Volume,
    Bind,
    Tmpfs,
}

const KINDS: &[(&str, Kind)] = &[
    ("volume", Kind::Volume),
    ("bind", Kind::Bind),
    ("tmpfs", Kind::Tmpfs),
];

fn long(report: &mut Report, scope: &Scope<'_>, view: &View<'_>) -> Option<VolumeMount> {
    let mut kind = None;
    let mut typed = false;
    let (mut source, mut target) = (None, None);
    let mut read_only = false;
    for (key, field) in report.section(view, &VOLUME) {
        match key {
            "type" => {
                typed = true;
                kind = report.choice(&field, KINDS);
            }
            "source" => source = report.line(&field).map(|text| (text, field)),
            "target" => target = report.line(&field).map(|text| (text, field)),
            "read_only" => read_only = report.flag(&field).unwrap_or(false),
            _ => report.unhandled(&field),
        }
    }
    if !typed {
        let hint = "write 'type: volume' or 'type: bind'";
        report.error_hint(view.node.at, &view.path, "this volume has no type", hint);
    }
    let source = match (kind?, source) {
        (Kind::Tmpfs, _) => {
            let text = "tmpfs is not honoured yet and was ignored";
            report.warn(view.node.at, &view.path, text);
            return None;
        }
        (Kind::Volume, None) => {
            anonymous(report, view);
            return None;
        }
        (Kind::Bind, None) => {
            let text = "this bind mount has no source";
            report.error(view.node.at, &view.path, text);
            return None;
        }
        (Kind::Volume, Some((name, field))) => volume(report, scope, &field, name),
        (Kind::Bind, Some((path, field))) => bind(report, scope, &field, path),
    };
    let Some((target, field)) = target else {
        report.error(view.node.at, &view.path, "this volume has no target");
        return None;
    };
    let target = target_path(report, &field, target)?;
    Some(source?.mounted(target, read_only))
}

fn anonymous(report: &mut Report, view: &View<'_>) {
    let text = "a volume without a name is not honoured yet and was ignored: give it a name";
    report.warn(view.node.at, &view.path, text);
}

fn target_path(report: &mut Report, view: &View<'_>, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return Some(target.to_owned());
    }
    let text = format!("the place '{target}' in the container is not an absolute path");
    report.fault(view, text);
    None
}

impl Volume {
    fn mounted(self, target: String, read_only: bool) -> VolumeMount {
        VolumeMount {
            source: self.name,
            target,
            read_only,
            scope: self.scope,
            allow_empty: self.allow_empty,
        }
    }
}

fn volume(report: &mut Report, scope: &Scope<'_>, view: &View<'_>, name: &str) -> Option<Volume> {
    if let Some(real) = scope.volumes.get(name) {
        return Some(real.clone());
    }
    let text = format!("the volume '{name}' is not declared");
    let hint = match closest(name, scope.volumes.keys().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("add '{name}:' under 'volumes:' at the top level of the file"),
    };
    report.fault_hint(view, text, hint);
    None
}

fn bind(report: &mut Report, scope: &Scope<'_>, view: &View<'_>, path: &str) -> Option<Volume> {
    let full = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let Some(home) = scope.variables.get("HOME") else {
                report.fault(view, "HOME is not set, so '~' means nothing");
                return None;
            };
            PathBuf::from(format!("{home}{rest}"))
        }
        Some(_) | None => match scope.directory {
            _ if path.starts_with('/') => PathBuf::from(path),
            Some(directory) => directory.join(path),
            None => {
                let hint = "use an absolute path, or name the file instead of passing it through \
                            standard input";
                report.fault_hint(
                    view,
                    "a relative path needs a Compose file in a directory",
                    hint,
                );
                return None;
            }
        },
    };
    let text = "a bind mount needs this path on every node that may run a replica";
    report.warn(view.at(), &view.path, text);
    Some(Volume {
        name: normal(&full),
        ..Volume::default()
    })
}

fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// The path without `.` and `..`. Links are not followed: the path is for another host.
fn normal(path: &Path) -> String {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                out.push(component);
            }
        }
    }
    out.display().to_string()
}

/// Checks a volume's name as Docker does.
fn volume_name(name: &str) -> Result<String, String> {
    if is_volume_name(name) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "'{}' is not a volume name: use up to 128 of a-z, A-Z, 0-9, '_', '.' and '-'",
            name.chars().take(64).collect::<String>()
        ))
    }
}
