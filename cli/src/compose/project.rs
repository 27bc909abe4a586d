//! A whole file: its name, its namespace, its volumes and its services.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{ItemKind, PublishMode, ServiceKey};

use super::fault::{ComposeError, Position};
use super::ports::{PlacedPort, collide};
use super::read::View;
use super::report::Report;
use super::service::service;
use super::source::Source;
use super::support::{TOP, TOP_DUNLIN};
use super::volumes::{Declared, declared};
use super::{
    Context, MAX_FILE_BYTES, Project, ProjectService, Scope, depend, items, job, networks, tree,
};

/// Most services in one file.
const MAX_SERVICES: usize = 1_000;

/// Reads a Compose file, or finds all its faults.
pub fn parse(text: &str, context: &Context<'_>) -> Result<Project, Vec<ComposeError>> {
    // The parser counts columns without a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(context.file, text);
    let mut report = Report::new(&source);
    let project = read(text, context, &mut report);
    let warnings = report.finish()?;
    Ok(Project {
        warnings,
        ..project.unwrap_or_else(|| unreadable(context))
    })
}

/// What stands for a file that could not be read; its faults are returned instead.
fn unreadable(context: &Context<'_>) -> Project {
    Project {
        name: project_name(context),
        namespace: ServiceKey::DEFAULT_NAMESPACE.to_owned(),
        services: Vec::new(),
        items: Vec::new(),
        warnings: Vec::new(),
    }
}

fn read(text: &str, context: &Context<'_>, report: &mut Report) -> Option<Project> {
    if text.len() > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES / 1024;
        let size = text.len() / 1024;
        let text = format!("the file has {size} KiB; at most {limit} KiB are read");
        report.error(Position::default(), "", text);
        return None;
    }
    let clean = report.is_clean();
    let Some(root) = tree::load(text, context.variables, report) else {
        if clean && report.is_clean() {
            report.error(Position::default(), "", "the file is empty");
        }
        return None;
    };
    let root = View::root(&root);
    if !root.is_map() {
        report.fault_hint(
            &root,
            "this is not a Compose file",
            "it starts with 'services:'",
        );
        return None;
    }
    let mut top = Top::default();
    for (key, field) in report.section(&root, &TOP) {
        top.field(report, key, field);
    }
    Some(top.project(report, context))
}

#[derive(Default)]
struct Top<'n> {
    name: Option<String>,
    namespace: Option<String>,
    services: Option<View<'n>>,
    volumes: Option<View<'n>>,
    networks: Option<View<'n>>,
    secrets: Option<View<'n>>,
    configs: Option<View<'n>>,
}

impl<'n> Top<'n> {
    fn field(&mut self, report: &mut Report, key: &str, field: View<'n>) {
        match key {
            "name" => self.name = report.parsed(&field, checked_project_name),
            "services" => self.services = Some(field),
            "volumes" => self.volumes = Some(field),
            "networks" => self.networks = Some(field),
            "secrets" => self.secrets = Some(field),
            "configs" => self.configs = Some(field),
            "x-dunlin" => {
                for (key, field) in report.section(&field, &TOP_DUNLIN) {
                    match key {
                        "namespace" => self.namespace = report.parsed(&field, checked_namespace),
                        _ => report.unhandled(&field),
                    }
                }
            }
            _ => report.unhandled(&field),
        }
    }

    fn project(self, report: &mut Report, context: &Context<'_>) -> Project {
        let given = context.project.map(str::to_owned);
        let name = given.or(self.name).unwrap_or_else(|| project_name(context));
        let namespace = match context.namespace {
            Some(given) => match checked_namespace(given) {
                Ok(namespace) => Some(namespace),
                Err(message) => {
                    report.error(Position::default(), "", message);
                    None
                }
            },
            None => self.namespace,
        };
        let namespace = namespace.unwrap_or_else(|| ServiceKey::DEFAULT_NAMESPACE.to_owned());
        let volumes = match &self.volumes {
            Some(view) if !view.is_null() => declared(report, &name, view),
            Some(_) | None => Declared::new(),
        };
        let networks = match &self.networks {
            Some(view) if !view.is_null() => networks::declared(report, view),
            Some(_) | None => networks::Declared::new(),
        };
        let mut items = Vec::new();
        let mut declare = |report: &mut Report, kind, view: &Option<View<'_>>| match view {
            Some(view) if !view.is_null() => {
                items::declared(report, context, &namespace, kind, view, &mut items)
            }
            Some(_) | None => items::Declared::new(),
        };
        let secrets = declare(report, ItemKind::Secret, &self.secrets);
        let configs = declare(report, ItemKind::Config, &self.configs);
        let scope = Scope {
            variables: context.variables,
            directory: context.directory,
            files: context.files,
            volumes,
            networks,
            secrets,
            configs,
            profiles: active_profiles(context.variables),
        };
        let services = match &self.services {
            Some(view) => services(report, &scope, &namespace, view),
            None => {
                let text = "the file has no 'services'";
                report.error(Position::default(), "", text);
                Vec::new()
            }
        };
        Project {
            name,
            namespace,
            services,
            items,
            warnings: Vec::new(),
        }
    }
}

fn services(
    report: &mut Report,
    scope: &Scope<'_>,
    namespace: &str,
    view: &View<'_>,
) -> Vec<ProjectService> {
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    let mut published: Vec<(String, PlacedPort)> = Vec::new();
    let entries = report.mapping(view);
    if view.is_map() && entries.is_empty() {
        report.fault(view, "the file has no services");
    }
    for (count, (name, entry)) in entries.into_iter().enumerate() {
        if count == MAX_SERVICES {
            let text = format!("a file has at most {MAX_SERVICES} services");
            report.error(entry.key_at, &entry.path, text);
            break;
        }
        let key = match ServiceKey::new(namespace, name) {
            Ok(key) => key,
            Err(error) => {
                let message = error.to_string();
                match fitting_name(name) {
                    Some(name) => {
                        let hint = format!("name it '{name}'");
                        report.error_hint(entry.key_at, &entry.path, message, hint);
                    }
                    None => report.error(entry.key_at, &entry.path, message),
                }
                // Its other faults are reported too, under a name that fits.
                let Ok(key) = ServiceKey::new(namespace, "unnamed") else {
                    continue;
                };
                key
            }
        };
        match service(report, scope, &key, &entry) {
            Some(mut read) => {
                let ports = std::mem::take(&mut read.ports);
                check_ports(report, &mut published, name, ports);
                found.push(read);
            }
            None => left_out.push(key),
        }
    }
    depend::check(report, &mut found, &left_out);
    job::by_dependents(report, &mut found);
    found.into_iter().map(|read| read.service).collect()
}

/// Reports ports that another service of the file publishes too. Ports of mode `host` may stand on
/// different nodes.
fn check_ports(
    report: &mut Report,
    published: &mut Vec<(String, PlacedPort)>,
    service: &str,
    ports: Vec<PlacedPort>,
) {
    let host = |p: &PlacedPort| p.spec.publish_mode == PublishMode::Host;
    for port in ports.into_iter().filter(|p| p.spec.published.is_some()) {
        let clash = published
            .iter()
            .find(|(_, other)| collide(&other.spec, &port.spec) && !(host(other) && host(&port)));
        if let Some((owner, other)) = clash {
            let number = port.spec.published.unwrap_or(0);
            let text = format!("port {number} is published by the service '{owner}' too");
            let related = (other.at, "it is published first");
            report.error_related(port.at, &port.path, text, related);
        } else {
            published.push((service.to_owned(), port));
        }
    }
}

fn checked_namespace(text: &str) -> Result<String, String> {
    // The service's part is checked where it is read.
    match ServiceKey::new(text, "any") {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn checked_project_name(text: &str) -> Result<String, String> {
    if normal_project_name(text) == text {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "'{text}' is not a project name: use a-z, 0-9, '_' and '-', and start with a letter or \
             a digit"
        ))
    }
}

/// The project's name when the file gives none, as Compose finds it.
fn project_name(context: &Context<'_>) -> String {
    let variable = context.variables.get("COMPOSE_PROJECT_NAME");
    let directory = context.directory.and_then(|d| d.file_name());
    let directory = directory.map(|name| name.to_string_lossy().into_owned());
    let candidates = [variable.cloned(), directory];
    let mut normal = candidates
        .into_iter()
        .flatten()
        .map(|n| normal_project_name(&n));
    normal
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "default".to_owned())
}

fn normal_project_name(text: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let lower = text.to_ascii_lowercase();
    let name: String = lower.chars().filter(kept).take(63).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

/// The DNS label nearest to `name`, to be suggested.
fn fitting_name(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase().replace(['_', '.', ' '], "-");
    let name = lower.trim_matches('-');
    ServiceKey::new(ServiceKey::DEFAULT_NAMESPACE, name)
        .ok()
        .map(|_| name.to_owned())
}

fn active_profiles(variables: &BTreeMap<String, String>) -> BTreeSet<String> {
    let list = variables.get("COMPOSE_PROFILES");
    let names = list.into_iter().flat_map(|l| l.split(',')).map(str::trim);
    names.filter(|n| !n.is_empty()).map(str::to_owned).collect()
}
