//! Which runtime an attempt gets.

use dunlin_state::model::{RuntimeKind, ServiceSpec};

use super::StartError;

/// A runtime that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Host processes.
    Process,
    /// Containers.
    Docker,
}

/// Chooses for a specification. `engine_up` says whether a container engine answers now.
pub(super) fn choose(
    spec: &ServiceSpec,
    allowed: RuntimeKind,
    engine_up: bool,
) -> Result<Choice, StartError> {
    let containers = allowed != RuntimeKind::Process;
    let processes = allowed != RuntimeKind::Docker;
    let container = || match (containers, engine_up) {
        (false, _) => Err(StartError::hopeless(
            "it asks for the docker runtime, and this node was started with --runtime process",
        )),
        (true, false) => Err(StartError::hopeless(
            "it needs a container engine, and neither Docker nor Podman answers on this node",
        )),
        (true, true) if spec.image.is_empty() => {
            Err(StartError::hopeless("it names no image to run"))
        }
        (true, true) => Ok(Choice::Docker),
    };
    let process = || match (processes, spec.entrypoint.len() + spec.command.len()) {
        (false, _) => Err(StartError::hopeless(
            "it asks for the process runtime, and this node was started with --runtime docker",
        )),
        (true, 0) if spec.image.is_empty() => Err(StartError::hopeless(
            "it names neither an image nor a command to run",
        )),
        (true, 0) => Err(StartError::hopeless(format!(
            "image '{}' needs a container engine and none answers on this node; or give the \
             service a command to run as a host process",
            spec.image
        ))),
        (true, _) => Ok(Choice::Process),
    };
    match spec.runtime {
        RuntimeKind::Process => process(),
        RuntimeKind::Docker => container(),
        RuntimeKind::Auto if !processes => container(),
        RuntimeKind::Auto if containers && engine_up && !spec.image.is_empty() => container(),
        RuntimeKind::Auto => process(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_its_runtime_or_its_reason() {
        use RuntimeKind::{Auto, Docker, Process};
        // Wanted, allowed, engine up, image, command; the choice or part of the reason.
        type Row<'a> = (
            RuntimeKind,
            RuntimeKind,
            bool,
            &'a str,
            &'a str,
            Result<Choice, &'a str>,
        );
        let table: &[Row] = &[
            (Auto, Auto, true, "img", "", Ok(Choice::Docker)),
            (Auto, Auto, true, "img", "run", Ok(Choice::Docker)),
            (Auto, Auto, true, "", "run", Ok(Choice::Process)),
            (Auto, Auto, false, "img", "run", Ok(Choice::Process)),
            (Auto, Auto, false, "img", "", Err("image 'img' needs")),
            (Auto, Auto, true, "", "", Err("neither an image nor")),
            (Auto, Process, true, "img", "run", Ok(Choice::Process)),
            (Auto, Docker, true, "", "run", Err("names no image")),
            (Auto, Docker, false, "img", "", Err("neither Docker")),
            (Process, Auto, true, "img", "run", Ok(Choice::Process)),
            (Process, Docker, true, "", "run", Err("--runtime docker")),
            (Docker, Auto, true, "img", "", Ok(Choice::Docker)),
            (Docker, Auto, false, "img", "run", Err("neither Docker")),
            (Docker, Process, true, "img", "", Err("--runtime process")),
        ];
        for (wanted, allowed, engine, image, command, expected) in table {
            let spec = ServiceSpec {
                image: (*image).to_owned(),
                command: command.split_terminator(' ').map(str::to_owned).collect(),
                runtime: *wanted,
                ..ServiceSpec::default()
            };
            let found = choose(&spec, *allowed, *engine);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, *expected),
                (Err(found), Err(part)) => assert!(found.to_string().contains(part), "{found}"),
                (found, _) => panic!("{wanted:?} {allowed:?} {engine} {image} {found:?}"),
            }
        }
    }
}
