//! Containers that call each other as programs do: by a short name, which their C library looks up
//! at the daemon's DNS server, at a virtual address, which the daemon's proxy carries to any host.
//!
//! A caller is ready when its call is answered, or, where networks should keep it apart, when the
//! name is known and the call is not answered. So what the nodes say of readiness is the verdict.

use std::time::{Duration, Instant};

use dunlin_state::model::{HealthCheck, HealthTest, PortSpec, RuntimeKind, ServiceSpec};

use super::{deploy, exactly, remove};
use crate::lab::engine::IMAGE;
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab};

/// The port of the specification, which no host has open.
const PORT: u16 = 8_080;

/// How long one call may take: longer than a replica of a lost host is waited for.
const CALL: u64 = 20_000;

/// Seconds until all callers are ready.
const PATIENCE: u64 = 60;

pub(super) async fn run(lab: &mut Lab, figures: &mut Figures) -> Result<(), LabError> {
    let hosts = lab.hosts.len();
    let each = u32::try_from(hosts).unwrap_or(u32::MAX);
    let serve = format!("exec busybox httpd -f -p {PORT} -h /etc");
    let mut server = container(&serve, &["back"])?;
    server.ports = vec![PortSpec {
        target: PORT,
        ..PortSpec::default()
    }];
    server.placement.max_per_node = Some(1);
    deploy(lab, 0, "server", server, each).await?;
    exactly(lab, "server", hosts, PATIENCE).await?;

    for (caller, name, figure) in [
        (
            "by-name",
            "server",
            "docker-names: called by a service's name",
        ),
        (
            "by-namespace",
            "server.default",
            "docker-names: with its namespace",
        ),
        (
            "by-task",
            "tasks.server",
            "docker-names: any replica's name",
        ),
        ("by-slot", "0.server", "docker-names: one replica's name"),
    ] {
        let start = Instant::now();
        let spec = caller_of(&call(name), &["back", "front"])?;
        deploy(lab, 0, caller, spec, each).await?;
        exactly(lab, caller, hosts, PATIENCE).await?;
        figures.add(figure, start.elapsed());
    }
    // The same call, by those that share no network with it.
    let refused = format!("! {}", call("server"));
    deploy(lab, 0, "outside", caller_of(&refused, &["front"])?, each).await?;
    exactly(lab, "outside", hosts, PATIENCE).await?;
    isolated(lab).await?;
    for name in [
        "outside",
        "by-slot",
        "by-task",
        "by-namespace",
        "by-name",
        "server",
    ] {
        remove(lab, name).await?;
    }
    Ok(())
}

/// A command of bash that calls a name and reads the answer's first line.
fn call(name: &str) -> String {
    format!(
        "( exec 3<>/dev/tcp/{name}/{PORT} && printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&3 && \
         read -r line <&3 && [[ $line == HTTP/1.?\\ 200* ]] )"
    )
}

fn container(script: &str, networks: &[&str]) -> Result<ServiceSpec, LabError> {
    let named = networks.iter().map(|name| name.parse());
    let named = named.collect::<Result<_, _>>();
    Ok(ServiceSpec {
        image: IMAGE.to_owned(),
        command: ["bash", "-c", script].map(str::to_owned).to_vec(),
        runtime: RuntimeKind::Docker,
        networks: named.map_err(|e| LabError::new("network", e))?,
        stop_grace_ms: Some(1_000),
        ..ServiceSpec::default()
    })
}

/// A container that is ready when its call ends well, one on each host.
fn caller_of(call: &str, networks: &[&str]) -> Result<ServiceSpec, LabError> {
    let mut spec = container("exec sleep 10000", networks)?;
    spec.placement.max_per_node = Some(1);
    spec.readiness = Some(HealthCheck {
        test: HealthTest::Exec(["bash", "-c", call].map(str::to_owned).to_vec()),
        interval_ms: 1_000,
        timeout_ms: CALL,
        retries: 1_000,
        ..HealthCheck::default()
    });
    Ok(spec)
}

/// Whether every host has refused somebody for networks: what did not answer was not merely broken.
async fn isolated(lab: &Lab) -> Result<(), LabError> {
    for host in &lab.hosts {
        crate::lab::within(
            "calls that were refused for networks",
            Duration::from_secs(20),
            async || {
                let text = host.client().metrics().await;
                let text = text.map_err(|e| LabError::new("metrics", e))?;
                let mut lines = text.lines();
                Ok(lines.any(|line| {
                    line.contains("reason=\"isolated\"") && !line.trim_end().ends_with(" 0")
                }))
            },
        )
        .await?;
    }
    Ok(())
}
