//! Starting a container.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, RemoveContainerOptions,
};
use dunlin_core::io::{Running, RuntimeEvent, Workload, WorkloadId};
use dunlin_state::model::{Endpoint, Networks, PortSpec, PublishMode, networks_of};
use futures::StreamExt as _;

use super::super::{Live, StartContext, StartError};
use super::naming::Labelled;
use super::walls::Rooms;
use super::{Engine, Inner, create, sources};

/// The most of an engine's message that is passed on.
const MAX_MESSAGE: usize = 300;

/// Images that are being fetched: replicas of one service wait for one transfer.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    images: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Pulls {
    fn of(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are done with.
        images.retain(|name, lock| name == image || Arc::strong_count(lock) > 1);
        images.entry(image.to_owned()).or_default().clone()
    }
}

/// What creating led to.
enum Created {
    /// A container that has not been started.
    Fresh(String),
    /// It exists and runs: a repeated start.
    Running(Box<ContainerInspectResponse>),
}

impl Inner {
    /// Creates and starts the container of an attempt, fetching its image if it is missing.
    pub(super) async fn start(
        self: Arc<Self>,
        workload: &Workload,
        context: StartContext<'_>,
    ) -> Result<Live, StartError> {
        let engine = self.client().ok_or_else(|| {
            StartError::passing("the container engine has just stopped answering")
        })?;
        let name = self.owner.name(&workload.id);
        let _starting = self.waiters.starting(&name);
        let networks = networks_of(&workload.id.slot.service, &workload.spec.networks);
        let (rooms, _standing) = self.rooms(&engine, &networks).await?;
        let rooms = rooms.as_ref();
        let created = match self
            .create(&engine, &name, workload, (&context, rooms))
            .await
        {
            Err(Fault::NoImage) => {
                self.fetch(&engine, workload, &context).await?;
                self.create(&engine, &name, workload, (&context, rooms))
                    .await
            }
            other => other,
        };
        match created.map_err(|fault| fault.into_error(&workload.spec.image))? {
            Created::Running(found) => {
                let container = found.id.clone().unwrap_or_default();
                let ended = self.waiters.wait(&container);
                // It may have ended before anyone waited.
                self.review(&engine, &container, None).await;
                Ok(Live {
                    running: self.running(&engine, workload, &found).await,
                    ended,
                })
            }
            Created::Fresh(container) => {
                let live = self.run(&engine, &container, workload, (&context, rooms));
                let live = live.await;
                if live.is_err() {
                    self.discard(&engine, &container).await;
                }
                live
            }
        }
    }

    async fn run(
        &self,
        engine: &Engine,
        container: &str,
        workload: &Workload,
        (context, rooms): (&StartContext<'_>, Option<&Rooms>),
    ) -> Result<Live, StartError> {
        let _permit = self.permit(context).await?;
        if let Some(rooms) = rooms {
            self.enter(engine, container, rooms).await?;
        }
        // Before the start: it may end at once.
        let ended = self.waiters.wait(container);
        engine
            .client
            .start_container(container, None)
            .await
            .map_err(|error| refused("start", &error))?;
        let found = engine
            .inspect(container)
            .await
            .map_err(|error| refused("inspect", &error))?;
        Ok(Live {
            running: self.running(engine, workload, &found).await,
            ended,
        })
    }

    async fn create(
        &self,
        engine: &Engine,
        name: &str,
        workload: &Workload,
        (context, rooms): (&StartContext<'_>, Option<&Rooms>),
    ) -> Result<Created, Fault> {
        let _permit = self.permit(context).await.map_err(Fault::Final)?;
        let publish_on = engine.rootless.then_some(self.advertise);
        let binds = self.files.binds(workload);
        let resolver = self.resolver.as_ref();
        let volumes = self.open_volumes(engine, workload).await;
        let volumes = volumes.map_err(Fault::Final)?;
        let told = workload.tells.then(|| self.outputs.path(&workload.id));
        let mounts = create::mounts(&self.owner, workload, &volumes, binds, told);
        let mut body = create::container(&self.owner, workload, publish_on, resolver, mounts);
        if let (Some(host), Some(rooms)) = (&mut body.host_config, rooms) {
            host.network_mode = Some(rooms.first.clone());
        }
        // Twice: the second time after a container in the way has been removed.
        for last in [false, true] {
            let options = CreateContainerOptions {
                name: Some(name.to_owned()),
                ..CreateContainerOptions::default()
            };
            let error = match engine
                .client
                .create_container(Some(options), body.clone())
                .await
            {
                Ok(created) => return Ok(Created::Fresh(created.id)),
                Err(error) => error,
            };
            match status(&error) {
                Some(404) => return Err(Fault::NoImage),
                // Podman answers 500.
                Some(409 | 500) if !last && is_taken(&error) => {
                    if let Some(running) = self.clear_the_way(engine, name, workload).await? {
                        return Ok(Created::Running(Box::new(running)));
                    }
                }
                _ => return Err(Fault::Final(refused("create", &error))),
            }
        }
        Err(Fault::Final(StartError::passing(
            "its container's name is taken",
        )))
    }

    /// What to do about a container that has this attempt's name: `Some` when it is this attempt
    /// and runs, and otherwise it is removed if it is ours.
    async fn clear_the_way(
        &self,
        engine: &Engine,
        name: &str,
        workload: &Workload,
    ) -> Result<Option<ContainerInspectResponse>, Fault> {
        let found = match engine.inspect(name).await {
            Ok(found) => found,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(Fault::Final(refused("inspect", &error))),
        };
        let labels = found.config.as_ref().and_then(|c| c.labels.as_ref());
        let read = labels.and_then(|labels| self.owner.read(labels));
        if read.is_none_or(|read| read.id != workload.id) {
            return Err(Fault::Final(StartError::hopeless(format!(
                "a container named {name} exists that is not Dunlin's; remove or rename it"
            ))));
        }
        let runs = found.state.as_ref().and_then(|s| s.running) == Some(true);
        if runs {
            return Ok(Some(found));
        }
        self.discard(engine, name).await;
        Ok(None)
    }

    async fn fetch(
        &self,
        engine: &Engine,
        workload: &Workload,
        context: &StartContext<'_>,
    ) -> Result<(), StartError> {
        let image = with_tag(&workload.spec.image);
        let id = workload.id.clone();
        // Without a receiver the daemon is ending.
        let _ = context.events.send(RuntimeEvent::Preparing(id)).await;
        let lock = self.pulls.of(&image);
        let pull = async {
            let _one = lock.lock().await;
            if engine.client.inspect_image(&image).await.is_ok() {
                return Ok(());
            }
            pull(engine, &image).await
        };
        tokio::select! {
            done = pull => done,
            () = context.cancel.cancelled() => Err(StartError::Cancelled),
        }
    }

    async fn permit(
        &self,
        context: &StartContext<'_>,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, StartError> {
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(StartError::Cancelled),
            permit = self.starts.acquire() => permit.map_err(|_closed| StartError::Cancelled),
        }
    }

    /// Removes a container, dead or alive.
    pub(super) async fn discard(&self, engine: &Engine, container: &str) {
        self.sources.forget(container);
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..RemoveContainerOptions::default()
        };
        match engine
            .client
            .remove_container(container, Some(options))
            .await
        {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => tracing::warn!(container, %error, "cannot remove a container"),
        }
    }

    async fn running(
        &self,
        engine: &Engine,
        workload: &Workload,
        found: &ContainerInspectResponse,
    ) -> Running {
        let id = workload.id.clone();
        self.note_source(
            found,
            &networks_of(&id.slot.service, &workload.spec.networks),
        );
        let running = self.running_with(engine, id, &workload.spec.ports, found);
        Running {
            image_health: self.image_health(engine, found).await,
            ..running
        }
    }

    /// Remembers whose its addresses are.
    fn note_source(&self, found: &ContainerInspectResponse, networks: &Networks) {
        let ends = found.network_settings.as_ref();
        let ends = ends.and_then(|s| s.networks.as_ref()).into_iter().flatten();
        let container = found.id.as_deref().unwrap_or_default();
        let addresses = ends.flat_map(|(_name, end)| sources::addresses(end));
        self.sources.note(container, addresses, networks);
    }

    fn running_with(
        &self,
        engine: &Engine,
        id: WorkloadId,
        ports: &[PortSpec],
        found: &ContainerInspectResponse,
    ) -> Running {
        let own = match engine.rootless {
            true => None,
            false => address(found),
        };
        let endpoints = ports
            .iter()
            .filter_map(|port| {
                let address = match own {
                    Some(ip) => SocketAddr::new(ip, port.target),
                    None => self.bound(port, found)?,
                };
                Some(Endpoint {
                    target: port.target,
                    protocol: port.protocol,
                    address,
                })
            })
            .collect();
        let container = found.id.clone().unwrap_or_default();
        Running {
            id,
            workload: container.chars().take(12).collect(),
            endpoints,
            image_health: None,
        }
    }

    /// The same for a container of which only the labels are known.
    pub(super) async fn running_labelled(
        &self,
        engine: &Engine,
        labelled: &Labelled,
        found: &ContainerInspectResponse,
    ) -> Running {
        let ports: Vec<PortSpec> = labelled
            .ports
            .iter()
            .filter_map(|name| create::parse_port(name))
            .collect();
        self.note_source(found, &labelled.networks);
        let running = self.running_with(engine, labelled.id.clone(), &ports, found);
        Running {
            image_health: self.image_health(engine, found).await,
            ..running
        }
    }

    /// Where a port is published on the host.
    fn bound(&self, port: &PortSpec, found: &ContainerInspectResponse) -> Option<SocketAddr> {
        let map = found.network_settings.as_ref()?.ports.as_ref()?;
        let binding = map.get(&create::port_name(port))?.as_ref()?.first()?;
        let number = binding.host_port.as_ref()?.parse().ok()?;
        let named = binding.host_ip.as_ref().and_then(|ip| ip.parse().ok());
        let address = named
            .filter(|ip: &IpAddr| !ip.is_unspecified() && port.publish_mode != PublishMode::Host)
            .unwrap_or(self.advertise);
        Some(SocketAddr::new(address, number))
    }
}

/// The address of a container on its network.
fn address(found: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let mut names: Vec<&String> = networks.keys().collect();
    names.sort();
    names
        .into_iter()
        .find_map(|name| networks[name].ip_address.as_ref()?.parse().ok())
}

/// Why a container was not created.
enum Fault {
    /// Its image is not on this host.
    NoImage,
    /// Anything else.
    Final(StartError),
}

impl Fault {
    fn into_error(self, image: &str) -> StartError {
        match self {
            Self::NoImage => StartError::passing(format!("image '{image}' has just vanished")),
            Self::Final(error) => error,
        }
    }
}

async fn pull(engine: &Engine, image: &str) -> Result<(), StartError> {
    let options = CreateImageOptions {
        from_image: Some(image.to_owned()),
        ..CreateImageOptions::default()
    };
    let mut progress = engine.client.create_image(Some(options), None, None);
    while let Some(step) = progress.next().await {
        let message = match step {
            Ok(step) => step.error_detail.and_then(|detail| detail.message),
            Err(error) => Some(message(&error)),
        };
        if let Some(message) = message {
            return Err(StartError::Failed {
                reason: format!("cannot fetch image '{image}': {}", cut(&message)),
                hopeless: is_refusal(&message),
            });
        }
    }
    Ok(())
}

/// Whether a registry has said no, rather than not answered.
fn is_refusal(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let refusals = [
        "not found",
        "manifest unknown",
        "name unknown",
        "access denied",
        "unauthorized",
        "denied:",
        "no matching manifest",
        "invalid reference",
        "repository name must",
    ];
    refusals.iter().any(|refusal| message.contains(refusal))
        // What a resolver says of a registry's host name is about the network.
        && !message.contains("no such host")
}

pub(super) fn refused(what: &str, error: &Error) -> StartError {
    let text = message(error);
    // The engine has understood and will answer the same again. What is in use may become free,
    // but not through waiting here: another node is the better place.
    let hopeless = matches!(status(error), Some(400 | 403 | 404))
        || [
            "already allocated",
            "address already in use",
            "executable file not found",
            "no such file or directory",
        ]
        .iter()
        .any(|known| text.contains(known));
    StartError::Failed {
        reason: format!("the container engine refused to {what} it: {}", cut(&text)),
        hopeless,
    }
}

/// Whether a container could not be created because another has its name.
fn is_taken(error: &Error) -> bool {
    status(error) == Some(409) || message(error).contains("already in use by")
}

/// The HTTP status of an answer.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().take(MAX_MESSAGE).collect()
}

/// The engine fetches every tag of an image that is named without one.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.contains(':') || last.contains('@') {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_means_latest() {
        let table = [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("host:5000/a/b:2", "host:5000/a/b:2"),
            ("a@sha256:00", "a@sha256:00"),
        ];
        for (image, expected) in table {
            assert_eq!(with_tag(image), expected);
        }
    }

    #[test]
    fn a_registry_that_says_no_is_told_from_one_that_is_not_there() {
        let refusals = [
            "manifest for nginx:nope not found: manifest unknown",
            "pull access denied for nope, repository does not exist",
            "no matching manifest for linux/arm64 in the manifest list entries",
        ];
        for text in refusals {
            assert!(is_refusal(text), "{text}");
        }
        let troubles = [
            "Get https://registry-1.docker.io/v2/: dial tcp: lookup registry-1.docker.io: no such host",
            "net/http: request canceled while waiting for connection",
            "toomanyrequests: You have reached your pull rate limit",
        ];
        for text in troubles {
            assert!(!is_refusal(text), "{text}");
        }
    }
}
