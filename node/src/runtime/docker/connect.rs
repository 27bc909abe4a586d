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
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = socket
        .map(str::to_owned)
        .or_else(|| variable("DOCKER_HOST"));
    candidates(named, variable("XDG_RUNTIME_DIR").as_deref())
}

/// An engine that was named is the only candidate: where it is late, as after a boot, another
/// engine of the host would neither have its images nor its containers.
fn candidates(named: Option<String>, user_directory: Option<&str>) -> Vec<String> {
    if let Some(named) = named {
        return vec![named];
    }
    let mut places = vec!["/var/run/docker.sock".to_owned()];
    if let Some(directory) = user_directory {
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

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn a_named_engine_has_no_substitute() {
        let named = "unix:///srv/engine.sock";
        assert_eq!(
            candidates(Some(named.to_owned()), Some("/run/user/1")),
            [named]
        );
        let usual = candidates(None, Some("/run/user/1"));
        assert_eq!(
            usual,
            [
                "/var/run/docker.sock",
                "/run/user/1/podman/podman.sock",
                "/run/podman/podman.sock"
            ]
        );
    }
}
