//! Finding a container engine.

use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use tracing::debug;

use super::Engine;

/// An engine that takes longer to say its version is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Seconds after which a request is given up: creating a container on a busy host takes long.
const REQUEST_TIMEOUT_S: u64 = 120;

/// Connects to the engine at this socket, or to the first that answers at the usual places.
pub(super) async fn connect(socket: Option<&str>) -> Option<Engine> {
    for place in places(socket) {
        match tokio::time::timeout(CONNECT_TIMEOUT, try_connect(&place)).await {
            Ok(Ok(engine)) => return Some(engine),
            Ok(Err(error)) => debug!(%place, %error, "no container engine"),
            Err(_) => debug!(%place, "the container engine does not answer in time"),
        }
    }
    None
}

/// Whether a socket exists at any of the places, so that an engine may be about to answer.
pub(super) fn may_come(socket: Option<&str>) -> bool {
    places(socket).iter().any(|place| {
        let path = place.strip_prefix("unix://").unwrap_or(place);
        Path::new(path).exists()
    })
}

fn places(socket: Option<&str>) -> Vec<String> {
    if let Some(socket) = socket {
        return vec![socket.to_owned()];
    }
    let mut places: Vec<String> = std::env::var("DOCKER_HOST").into_iter().collect();
    places.push("/var/run/docker.sock".to_owned());
    if let Ok(directory) = std::env::var("XDG_RUNTIME_DIR") {
        places.push(format!("{directory}/podman/podman.sock"));
    }
    places.push("/run/podman/podman.sock".to_owned());
    places
}

async fn try_connect(place: &str) -> Result<Engine, bollard::errors::Error> {
    let remote = place.starts_with("tcp://") || place.starts_with("http://");
    let client = if remote {
        Docker::connect_with_http(place, REQUEST_TIMEOUT_S, API_DEFAULT_VERSION)?
    } else {
        Docker::connect_with_socket(place, REQUEST_TIMEOUT_S, API_DEFAULT_VERSION)?
    };
    let client = client.negotiate_version().await?;
    let version = client.version().await?.version.unwrap_or_default();
    let security = client.info().await?.security_options.unwrap_or_default();
    Ok(Engine {
        client,
        version,
        rootless: security.iter().any(|option| option.contains("rootless")),
    })
}
