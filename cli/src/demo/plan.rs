//! What is deployed, and whom to kill (pure).

use std::collections::BTreeMap;
use std::path::Path;

use dunlin_api::Replica;
use dunlin_state::model::{RuntimeKind, ServiceKey, ServiceSpec, VolumeMount};

use super::DemoArgs;
use super::layout::Member;
use crate::compose::{self, Disk};

/// The file that is deployed.
const EXAMPLE: &str = include_str!("../../../examples/hello/compose.yaml");

/// Where the program is mounted into containers.
const PROGRAM_IN_CONTAINER: &str = "/dunlin";

/// The example, published on a port that is free here, and for containers with an image into which
/// this program is mounted.
pub(super) fn example(
    args: &DemoArgs,
    program: &Path,
    published: u16,
) -> Result<(ServiceKey, ServiceSpec), String> {
    let variables = BTreeMap::new();
    let context = compose::Context {
        file: "examples/hello/compose.yaml",
        directory: None,
        project: None,
        namespace: None,
        variables: &variables,
        files: &Disk,
    };
    let project = compose::parse(EXAMPLE, &context).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        errors.join("\n")
    })?;
    let mut services = project.services.into_iter();
    let service = services.next().ok_or("it has no service")?;
    let mut spec = service.spec;
    let port = spec.ports.first_mut().ok_or("it has no port")?;
    port.published = Some(published);
    let target = port.target;
    if args.runtime == RuntimeKind::Docker {
        spec.runtime = RuntimeKind::Docker;
        spec.image.clone_from(&args.image);
        spec.command = vec![PROGRAM_IN_CONTAINER.to_owned(), "whoami".to_owned()];
        spec.environment
            .insert("PORT".to_owned(), target.to_string());
        spec.volumes.push(VolumeMount {
            source: program.display().to_string(),
            target: PROGRAM_IN_CONTAINER.to_owned(),
            read_only: true,
            ..VolumeMount::default()
        });
    }
    Ok((service.key, spec))
}

/// Whom to kill: the first daemon, which made the cluster, if it has a replica, since a cluster
/// without a master does not miss it; else the one with the most replicas. Also its id and how many
/// replicas it has.
pub(super) fn victim(members: &[Member], replicas: &[Replica]) -> (Member, String, u32) {
    let count = |member: &Member| {
        let name = member.name();
        let here = replicas
            .iter()
            .filter(|r| r.node_name == name && !r.superseded);
        u32::try_from(here.count()).unwrap_or(u32::MAX)
    };
    let first = members.first().filter(|m| count(m) > 0);
    let chosen = first.or_else(|| members.iter().max_by_key(|m| count(m)));
    let victim = chosen.copied().unwrap_or(Member(1));
    let name = victim.name();
    let id = replicas.iter().find(|r| r.node_name == name);
    let id = id.map_or(String::new(), |r| r.node.to_string());
    (victim, id, count(&victim))
}
