//! `dunlin install`
//!
//! Makes this host start the daemon when it boots: this very program, a unit of systemd, manual
//! pages and completions. Everything is written beside its place first and then renamed, so that a
//! daemon that runs, and replicas that it started, keep the program that they have open.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use dunlin_api::Exit;

use super::man;
use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Output;

/// What systemd is told; also an example of its own.
const UNIT: &str = include_str!("../../../examples/systemd/dunlin.service");

const PROGRAM: &str = "usr/local/bin/dunlin";
const UNIT_FILE: &str = "etc/systemd/system/dunlin.service";
const ENVIRONMENT: &str = "etc/dunlin/environment";
const MAN: &str = "usr/local/share/man/man1";

/// Where shells look for what completes commands that are not the distribution's.
const COMPLETIONS: [(Shell, &str); 3] = [
    (
        Shell::Bash,
        "usr/local/share/bash-completion/completions/dunlin",
    ),
    (Shell::Zsh, "usr/local/share/zsh/site-functions/_dunlin"),
    (
        Shell::Fish,
        "usr/local/share/fish/vendor_completions.d/dunlin.fish",
    ),
];

/// Words of `dunlin install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin install                             the first host, or an upgrade
  dunlin install --join dunlin2-…            a host that joins
  dunlin install --root /mnt                 into the image of another host")]
pub struct InstallArgs {
    /// The cluster to join at the first start, by its ticket
    #[arg(
        long,
        value_name = "TICKET",
        env = "DUNLIN_TICKET",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// Where the host's files are
    #[arg(long, default_value = "/", value_name = "DIRECTORY")]
    pub root: PathBuf,
}

/// Installs, and says what to do next. Nothing is started.
pub fn run(args: &InstallArgs, json: bool, out: &mut Output) -> Result<Exit, Failure> {
    let own = std::env::current_exe().map_err(|source| Failure::System {
        message: "cannot find this program".to_owned(),
        source,
    })?;
    let files = install(args, &own)?;
    if json {
        out.json(&serde_json::json!({ "files": files }))?;
    } else {
        for file in files.iter().filter(|f| !f.starts_with(args.root.join(MAN))) {
            out.line(file.display().to_string())?;
        }
        out.line(args.root.join(MAN).join("dunlin*.1").display().to_string())?;
        out.line("")?;
        out.line(
            "next: systemctl daemon-reload && systemctl enable dunlin && systemctl restart dunlin",
        )?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// The files that were written.
fn install(args: &InstallArgs, own: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let program = args.root.join(PROGRAM);
    let here = own.canonicalize().ok();
    // Run from its place, it is there already.
    if here.is_none() || here != program.canonicalize().ok() {
        let bytes = fs::read(own).map_err(trouble("read", own))?;
        put(&program, &bytes, 0o755)?;
    }
    files.push(program);
    let unit = args.root.join(UNIT_FILE);
    put(&unit, UNIT.as_bytes(), 0o644)?;
    files.push(unit);
    if let Some(ticket) = args.join.as_deref().filter(|ticket| !ticket.is_empty()) {
        let environment = args.root.join(ENVIRONMENT);
        // Whoever reads it can join.
        put(
            &environment,
            format!("DUNLIN_TICKET={ticket}\n").as_bytes(),
            0o600,
        )?;
        files.push(environment);
    }
    for (shell, place) in COMPLETIONS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "dunlin", &mut script);
        let place = args.root.join(place);
        put(&place, &script, 0o644)?;
        files.push(place);
    }
    files.extend(man::write_pages(&args.root.join(MAN))?);
    Ok(files)
}

/// Writes a file beside its place and renames it, so that it is there whole or not at all.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(trouble("make", folder))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        // One that an earlier try has left may have another mode.
        if beside.exists() {
            fs::remove_file(&beside)?;
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(trouble("write", path))
}

fn trouble(verb: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let message = format!(
        "cannot {verb} {} (this needs root, or another --root)",
        path.display()
    );
    move |source| Failure::System { message, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    fn installed(join: Option<&str>) -> (tempfile::TempDir, Vec<PathBuf>) {
        let root = tempfile::tempdir().unwrap();
        let args = InstallArgs {
            join: join.map(str::to_owned),
            root: root.path().to_owned(),
        };
        let own = root.path().join("built");
        fs::write(&own, "#!/bin/sh\n").unwrap();
        let files = install(&args, &own).unwrap();
        // Again, as an upgrade.
        assert_eq!(install(&args, &own).unwrap(), files);
        (root, files)
    }

    #[test]
    fn everything_is_in_its_place_and_nothing_besides() {
        let (root, files) = installed(None);
        for file in &files {
            assert!(file.exists(), "{}", file.display());
        }
        let mode = |path: &str| {
            let found = fs::metadata(root.path().join(path));
            found.unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode(PROGRAM), 0o755);
        assert_eq!(mode(UNIT_FILE), 0o644);
        assert!(!root.path().join(ENVIRONMENT).exists());
        let beside = fs::read_dir(root.path().join("usr/local/bin")).unwrap();
        assert_eq!(
            beside.count(),
            1,
            "what was written beside its place is gone"
        );
    }

    #[test]
    fn a_ticket_is_for_root_alone() {
        let (root, files) = installed(Some("dunlin2-x"));
        let environment = root.path().join(ENVIRONMENT);
        assert!(files.contains(&environment));
        let text = fs::read_to_string(&environment).unwrap();
        assert_eq!(text, "DUNLIN_TICKET=dunlin2-x\n");
        let mode = fs::metadata(environment).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_unit_starts_what_is_installed_and_leaves_replicas_alone() {
        for line in [
            "ExecStart=/usr/local/bin/dunlin up",
            "EnvironmentFile=-/etc/dunlin/environment",
            "KillMode=process",
            "Delegate=yes",
        ] {
            assert!(UNIT.lines().any(|l| l == line), "{line}");
        }
    }

    /// What systemd itself says, where it is installed.
    #[test]
    fn systemd_understands_the_unit() {
        let (root, _files) = installed(None);
        let program = root.path().join(PROGRAM).display().to_string();
        let unit = root.path().join("dunlin.service");
        fs::write(&unit, UNIT.replace("/usr/local/bin/dunlin", &program)).unwrap();
        let verified = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&unit)
            .output();
        let Ok(verified) = verified else {
            println!("there is no systemd-analyze on this host");
            return;
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let complaints: Vec<&str> = said
            .lines()
            .filter(|l| l.contains("dunlin.service"))
            .collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("built");
        fs::write(&own, "").unwrap();
        // A file where a folder must be; root may write everywhere else.
        fs::write(root.path().join("usr"), "").unwrap();
        let args = InstallArgs {
            join: None,
            root: root.path().to_owned(),
        };
        let error = install(&args, &own).unwrap_err().to_string();
        assert!(
            error.contains("usr/local/bin") && error.contains("--root"),
            "{error}"
        );
    }
}
