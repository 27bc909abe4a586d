//! Containers of a demo with `--runtime docker`, through the `docker` program: only demos need
//! this, and daemons have a better way.

use std::process::{Command, Stdio};

use super::DemoError;

/// Checks that the engine answers.
pub(super) fn check() -> Result<(), DemoError> {
    docker(&["version", "--format", "{{.Server.Version}}"]).map(|_version| ())
}

/// Removes all containers with this label, running or not.
pub(super) fn remove(label: &str, value: &str) -> Result<(), DemoError> {
    let filter = format!("label={label}={value}");
    let ids = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])?;
    let ids: Vec<&str> = ids.split_ascii_whitespace().collect();
    if ids.is_empty() {
        return Ok(());
    }
    let words = [&["rm", "--force", "--volumes"], ids.as_slice()].concat();
    docker(&words).map(|_ids| ())
}

fn docker(words: &[&str]) -> Result<String, DemoError> {
    let output = Command::new("docker")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| DemoError::Docker(format!("cannot run it: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(DemoError::Docker(text.trim().chars().take(300).collect()))
}
