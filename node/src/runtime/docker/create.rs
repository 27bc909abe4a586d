//! From a specification to what the engine is asked to create.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding, PortMap,
};
use dunlin_core::io::Workload;
use dunlin_state::model::{PortSpec, Protocol, PublishMode, Resources, VolumeId, VolumeMount};

use super::super::files::Bind;
use super::super::{LOG_FILE_BYTES, Resolver, environment, outputs};
use super::naming::Owner;
use super::volumes::Opened;

/// Nanoseconds of a millisecond.
const NANOS: i64 = 1_000_000;
/// The least CPU limit that the engine accepts, a hundredth of a core.
const MIN_CPU_MILLIS: u64 = 10;

/// The container of an attempt. `publish_on` is set where containers have no address that the
/// host can reach: then every port is published there, on a port that the engine chooses.
pub(super) fn container(
    owner: &Owner,
    workload: &Workload,
    publish_on: Option<IpAddr>,
    resolver: Option<&Resolver>,
    mounts: Vec<Mount>,
) -> ContainerCreateBody {
    let spec = &workload.spec;
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let search = |r: &Resolver| r.search(workload.id.slot.service.namespace()).to_vec();
    let exposed: Vec<String> = spec.ports.iter().map(port_name).collect();
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: some(&spec.entrypoint),
        cmd: some(&spec.command),
        env: Some(environment(workload)),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        hostname: spec.hostname.clone(),
        labels: Some(owner.labels(workload)),
        exposed_ports: some(&exposed),
        stop_signal: spec.stop_signal.clone(),
        healthcheck: Some(super::health::none()),
        host_config: Some(HostConfig {
            dns: resolver.map(|r| vec![r.address.to_string()]),
            dns_search: resolver.map(search),
            dns_options: resolver.map(|_| vec![Resolver::DOTS.to_owned()]),
            log_config: Some(log_config()),
            port_bindings: Some(bindings(&spec.ports, publish_on)),
            mounts: Some(mounts),
            ..limits(spec.limit)
        }),
        ..ContainerCreateBody::default()
    }
}

/// A port as the engine writes it.
pub(super) fn port_name(port: &PortSpec) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.target)
}

/// Reads a port as the engine writes it.
pub(super) fn parse_port(name: &str) -> Option<PortSpec> {
    let (target, protocol) = name.split_once('/')?;
    Some(PortSpec {
        target: target.parse().ok()?,
        protocol: match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        },
        ..PortSpec::default()
    })
}

fn environment(workload: &Workload) -> Vec<String> {
    let mut environment = environment::of_replica(workload);
    let ports = &workload.spec.ports;
    for port in ports {
        environment.insert(
            format!("DUNLIN_PORT_{}", port.target),
            port.target.to_string(),
        );
    }
    if workload.tells {
        environment.insert(outputs::VARIABLE.to_owned(), outputs::MOUNT.to_owned());
    }
    if let Some(first) = ports.first() {
        let first = first.target.to_string();
        environment.entry("PORT".to_owned()).or_insert(first);
    }
    environment
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn limits(limit: Resources) -> HostConfig {
    let cpus = std::thread::available_parallelism().map_or(u64::MAX, |n| n.get() as u64);
    // The engine refuses a limit above what the host has, which would limit nothing anyway.
    let cpu = (limit.cpu_millis > 0 && limit.cpu_millis < cpus.saturating_mul(1000))
        .then(|| clamp(limit.cpu_millis.max(MIN_CPU_MILLIS)).saturating_mul(NANOS));
    let memory = (limit.memory > 0).then(|| clamp(limit.memory));
    HostConfig {
        nano_cpus: cpu,
        memory,
        // Memory and swap together: a replica that swaps is over its limit all the same.
        memory_swap: memory,
        ..HostConfig::default()
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn log_config() -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), LOG_FILE_BYTES.to_string()),
            ("max-file".to_owned(), "2".to_owned()),
        ])),
    }
}

fn bindings(ports: &[PortSpec], publish_on: Option<IpAddr>) -> PortMap {
    let mut map = PortMap::new();
    for port in ports {
        let fixed = match port.publish_mode {
            PublishMode::Host => port.published.map(|number| PortBinding {
                host_ip: port.host_ip.clone(),
                host_port: Some(number.to_string()),
            }),
            PublishMode::Ingress => None,
        };
        let chosen = publish_on.map(|address| PortBinding {
            host_ip: Some(address.to_string()),
            host_port: None,
        });
        if let Some(binding) = fixed.or(chosen) {
            map.entry(port_name(port))
                .or_insert_with(|| Some(Vec::new()))
                .get_or_insert_default()
                .push(binding);
        }
    }
    map
}

/// The mounts of a container: the volumes of its specification, whose directories are given, and
/// its secrets and configs, and its file of outputs.
pub(super) fn mounts(
    owner: &Owner,
    workload: &Workload,
    volumes: &[Option<Opened>],
    binds: Vec<Bind>,
    outputs: Option<PathBuf>,
) -> Vec<Mount> {
    let own = outputs.map(|path| Mount {
        typ: Some(MountType::BIND),
        source: Some(path.to_string_lossy().into_owned()),
        target: Some(outputs::MOUNT.to_owned()),
        ..Mount::default()
    });
    let named = workload.spec.volumes.iter().zip(volumes);
    let named = named.map(|(mount, volume)| match volume {
        None => bind_mount(mount),
        Some((volume, _)) => volume_mount(owner, mount, volume),
    });
    let files = binds.into_iter().map(file_mount);
    named.chain(files).chain(own).collect()
}

fn bind_mount(mount: &VolumeMount) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}

/// See [`super::volumes`].
fn volume_mount(owner: &Owner, mount: &VolumeMount, volume: &VolumeId) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(owner.volume_name(volume)),
        ..bind_mount(mount)
    }
}

fn file_mount(bind: Bind) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.to_string_lossy().into_owned()),
        target: Some(bind.target),
        read_only: Some(true),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use dunlin_core::io::WorkloadId;
    use dunlin_state::model::{NodeId, ServiceSpec, Slot, SlotId, VolumeScope};

    use super::*;
    use std::path::Path;

    use crate::runtime::VolumeRoot;

    fn body(spec: ServiceSpec, publish_on: Option<IpAddr>) -> ContainerCreateBody {
        resolving(spec, publish_on, None)
    }

    fn resolving(
        spec: ServiceSpec,
        publish_on: Option<IpAddr>,
        resolver: Option<&Resolver>,
    ) -> ContainerCreateBody {
        let node = NodeId::from_bytes([1; 32]);
        let workload = Workload {
            id: WorkloadId {
                slot: SlotId {
                    service: "shop/web".parse().unwrap(),
                    slot: Slot::Replica(0),
                },
                epoch: 7,
                attempt: 0,
            },
            revision: "r".into(),
            spec: Arc::new(spec),
            node_name: "n".into(),
            node,
            volumes: BTreeSet::new(),
            given: BTreeMap::new(),
            tells: false,
            lease_ms: None,
        };
        let owner = Owner::new("c", node);
        let root = VolumeRoot::below(Path::new("/data"));
        let volumes = workload.spec.volumes.iter().map(|mount| {
            let volume = mount.volume(&workload.id.slot)?;
            let path = root.path(&volume);
            Some((volume, path))
        });
        let volumes: Vec<_> = volumes.collect();
        let mounts = mounts(&owner, &workload, &volumes, Vec::new(), None);
        container(&owner, &workload, publish_on, resolver, mounts)
    }

    fn port(target: u16, published: Option<u16>, mode: PublishMode) -> PortSpec {
        PortSpec {
            target,
            published,
            publish_mode: mode,
            ..PortSpec::default()
        }
    }

    #[test]
    fn the_image_keeps_its_own_command_unless_told_otherwise() {
        let body = body(ServiceSpec::default(), None);
        assert_eq!(
            (body.cmd, body.entrypoint, body.exposed_ports),
            (None, None, None)
        );
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.nano_cpus), (None, None));
        assert_eq!(host.restart_policy, None);
    }

    #[test]
    fn names_are_looked_for_in_the_own_namespace_first() {
        let resolver = Resolver {
            address: [10, 93, 0, 1].into(),
            suffix: "dunlin.internal".to_owned(),
        };
        let body = resolving(ServiceSpec::default(), None, Some(&resolver));
        let host = body.host_config.unwrap();
        assert_eq!(host.dns.unwrap(), ["10.93.0.1"]);
        let search = ["shop.dunlin.internal", "dunlin.internal"];
        assert_eq!(host.dns_search.unwrap(), search);
        assert_eq!(host.dns_options.unwrap(), ["ndots:2"]);
    }

    #[test]
    fn limits_are_in_the_engines_units() {
        let limit = |cpu_millis, memory| {
            let spec = ServiceSpec {
                limit: Resources {
                    cpu_millis,
                    memory,
                    disk: 0,
                },
                ..ServiceSpec::default()
            };
            let host = body(spec, None).host_config.unwrap();
            (host.nano_cpus, host.memory, host.memory_swap)
        };
        assert_eq!(
            limit(500, 1 << 20),
            (Some(500_000_000), Some(1 << 20), Some(1 << 20))
        );
        assert_eq!(limit(1, 0), (Some(10_000_000), None, None));
        assert_eq!(limit(u64::MAX, u64::MAX).0, None);
    }

    #[test]
    fn only_host_ports_are_bound_unless_containers_cannot_be_reached() {
        let spec = ServiceSpec {
            ports: vec![
                port(80, Some(8080), PublishMode::Ingress),
                port(443, Some(8443), PublishMode::Host),
            ],
            ..ServiceSpec::default()
        };
        let bound = |on| {
            let map = body(spec.clone(), on).host_config.unwrap().port_bindings;
            let mut list: Vec<(String, Option<String>)> = map
                .unwrap()
                .into_iter()
                .map(|(name, list)| (name, list.unwrap()[0].host_port.clone()))
                .collect();
            list.sort();
            list
        };
        let fixed = ("443/tcp".to_owned(), Some("8443".to_owned()));
        assert_eq!(bound(None), std::slice::from_ref(&fixed));
        let address = "10.0.0.1".parse().ok();
        assert_eq!(bound(address), [fixed, ("80/tcp".to_owned(), None)]);
    }

    #[test]
    fn a_volume_of_the_engine_stands_for_our_directory() {
        let volume = |source: &str, scope| VolumeMount {
            source: source.into(),
            target: "/data".into(),
            read_only: true,
            scope,
            ..VolumeMount::default()
        };
        let spec = ServiceSpec {
            volumes: vec![
                volume("data", VolumeScope::Node),
                volume("data", VolumeScope::Replica),
                volume("/srv/data", VolumeScope::Node),
            ],
            ..ServiceSpec::default()
        };
        let mounts = body(spec, None).host_config.unwrap().mounts.unwrap();
        let node = &NodeId::from_bytes([1; 32]).to_string()[..6];
        let names: Vec<&str> = mounts.iter().filter_map(|m| m.source.as_deref()).collect();
        let expected = [
            format!("dunlin-n-{node}-shop.data"),
            format!("dunlin-r-{node}-shop.web.0.data"),
            "/srv/data".to_owned(),
        ];
        assert_eq!(names, expected);
        assert_eq!(mounts[0].typ, Some(MountType::VOLUME));
        assert_eq!(mounts[1].read_only, Some(true));
        assert_eq!(mounts[2].typ, Some(MountType::BIND));
    }
}
