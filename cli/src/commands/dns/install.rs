//! `dunlin dns install` and `dunlin dns uninstall`
//!
//! What is to be done is planned first, from what the host is, so that `--dry-run` tells exactly what
//! would happen. Everything written carries a mark, and only what carries it is removed.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use dunlin_api::{DnsStatus, Exit};

use crate::context::Context;
use crate::failure::Failure;

/// The first line of what this command writes.
const MARK: &str = "# Written by `dunlin dns install`; `dunlin dns uninstall` undoes it.";

/// Where systemd-resolved keeps its state while it runs.
const RESOLVED: &str = "/run/systemd/resolve";
const DROP_IN: &str = "/etc/systemd/resolved.conf.d/dunlin.conf";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What was there before; a daemon finds the host's resolvers in it.
const BEFORE: &str = "/etc/resolv.conf.before-dunlin";

/// The port that a resolv.conf means.
const PORT: u16 = 53;

/// Words of `dunlin dns install` and `uninstall`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Write(PathBuf, String),
    Move(PathBuf, PathBuf),
    Remove(PathBuf),
    /// A command; a failure is told and undoes nothing.
    Run(&'static [&'static str]),
}

const RELOAD: Step = Step::Run(&["systemctl", "restart", "systemd-resolved"]);

/// Has the host ask this node's server.
pub(super) async fn install(args: &InstallArgs, context: &mut Context) -> Result<Exit, Failure> {
    let server = super::server(context).await?;
    let steps = plan_install(Path::new("/"), &server)?;
    carry_out(&steps, args.dry_run, context)
}

/// Has the host ask whom it asked before. Needs no daemon.
pub(super) fn uninstall(args: &InstallArgs, context: &mut Context) -> Result<Exit, Failure> {
    let steps = plan_uninstall(Path::new("/"));
    if steps.is_empty() {
        context
            .out
            .note("nothing of `dunlin dns install` is on this host")?;
    }
    carry_out(&steps, args.dry_run, context)
}

/// The path below `root`, which is another folder in tests.
fn at(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn plan_install(root: &Path, server: &DnsStatus) -> Result<Vec<Step>, Failure> {
    let addresses = server.addresses.iter().filter_map(|a| a.parse().ok());
    let usable: Vec<SocketAddr> = addresses
        .filter(|a: &SocketAddr| !a.ip().is_unspecified())
        .collect();
    let refused = |message: &str, hint: &str| Failure::Refused {
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    };
    let Some(first) = usable.first() else {
        return Err(refused(
            "this node's DNS server has no address to be asked at",
            "start the daemon with --dns and an address of this host",
        ));
    };
    if at(root, RESOLVED).is_dir() {
        let text = format!(
            "{MARK}\n[Resolve]\nDNS={first}\nDomains=~{}\n",
            server.suffix
        );
        return Ok(vec![Step::Write(at(root, DROP_IN), text), RELOAD]);
    }
    let Some(on_port) = usable.iter().find(|a| a.port() == PORT) else {
        return Err(refused(
            &format!("this node answers names at {first}, and {RESOLV_CONF} cannot name a port"),
            "start the daemon with --dns and port 53 of an address of this host, such as \
             127.0.0.1:53",
        ));
    };
    let current = at(root, RESOLV_CONF);
    let before = fs::read_to_string(&current).unwrap_or_default();
    // Search domains and options of the host stay as they are.
    let kept = before
        .lines()
        .filter(|l| !l.trim_start().starts_with("nameserver") && *l != MARK);
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    let text = format!("{MARK}\n{kept}nameserver {}\n", on_port.ip());
    let mut steps = Vec::new();
    if !is_ours(&current) && current.symlink_metadata().is_ok() {
        steps.push(Step::Move(current.clone(), at(root, BEFORE)));
    }
    steps.push(Step::Write(current, text));
    Ok(steps)
}

fn plan_uninstall(root: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    let drop_in = at(root, DROP_IN);
    if is_ours(&drop_in) {
        steps.extend([Step::Remove(drop_in), RELOAD]);
    }
    let (current, before) = (at(root, RESOLV_CONF), at(root, BEFORE));
    if is_ours(&current) {
        steps.push(Step::Remove(current.clone()));
        if before.symlink_metadata().is_ok() {
            steps.push(Step::Move(before, current));
        }
    }
    steps
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}

fn carry_out(steps: &[Step], dry_run: bool, context: &mut Context) -> Result<Exit, Failure> {
    for step in steps {
        context.out.line(tell(step, dry_run))?;
        if !dry_run {
            perform(step).map_err(|source| Failure::System {
                message: format!("cannot do this: {}", tell(step, true)),
                source,
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn tell(step: &Step, dry_run: bool) -> String {
    let would = if dry_run { "would " } else { "" };
    match step {
        Step::Write(path, text) => {
            let lines: String = text.lines().map(|line| format!("\n    {line}")).collect();
            format!("{would}write {}:{lines}", path.display())
        }
        Step::Move(from, to) => format!("{would}move {} to {}", from.display(), to.display()),
        Step::Remove(path) => format!("{would}remove {}", path.display()),
        Step::Run(words) => format!("{would}run {}", words.join(" ")),
    }
}

fn perform(step: &Step) -> io::Result<()> {
    match step {
        Step::Write(path, text) => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, text)
        }
        Step::Move(from, to) => fs::rename(from, to),
        Step::Remove(path) => fs::remove_file(path),
        Step::Run(words) => {
            let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
            let status = Command::new(program).args(arguments).status()?;
            match status.success() {
                true => Ok(()),
                false => Err(io::Error::other(format!("it ended with {status}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> DnsStatus {
        DnsStatus {
            addresses: vec![address.to_owned()],
            suffix: "dunlin.internal".to_owned(),
            for_replicas: None,
        }
    }

    fn do_all(steps: &[Step]) {
        let files = steps.iter().filter(|step| !matches!(step, Step::Run(_)));
        files.for_each(|step| perform(step).unwrap());
    }

    fn host(files: &[(&str, &str)]) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("dunlin-dns-{}-{number}", std::process::id()));
        for (path, text) in files {
            perform(&Step::Write(at(&root, path), (*text).to_owned())).unwrap();
        }
        root
    }

    #[test]
    fn resolv_conf_is_replaced_and_put_back() {
        let text = "search corp.example\nnameserver 10.0.0.2\noptions edns0\n";
        let root = host(&[(RESOLV_CONF, text)]);
        let read = || fs::read_to_string(at(&root, RESOLV_CONF)).unwrap();
        for _twice in 0..2 {
            do_all(&plan_install(&root, &server("10.93.0.1:53")).unwrap());
            let expected =
                format!("{MARK}\nsearch corp.example\noptions edns0\nnameserver 10.93.0.1\n");
            assert_eq!(read(), expected);
            assert_eq!(fs::read_to_string(at(&root, BEFORE)).unwrap(), text);
        }
        do_all(&plan_uninstall(&root));
        assert_eq!(read(), text);
        assert_eq!(plan_uninstall(&root), []);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_port_goes_into_systemd_resolved_only() {
        let root = host(&[(RESOLV_CONF, "nameserver 127.0.0.53\n")]);
        let error = plan_install(&root, &server("127.0.0.1:5300")).unwrap_err();
        assert!(error.to_string().contains("cannot name a port"), "{error}");
        fs::create_dir_all(at(&root, RESOLVED)).unwrap();
        do_all(&plan_install(&root, &server("127.0.0.1:5300")).unwrap());
        let written = fs::read_to_string(at(&root, DROP_IN)).unwrap();
        assert!(written.ends_with("DNS=127.0.0.1:5300\nDomains=~dunlin.internal\n"));
        assert_eq!(
            plan_uninstall(&root),
            [Step::Remove(at(&root, DROP_IN)), RELOAD]
        );
        do_all(&plan_uninstall(&root));
        assert_eq!(plan_uninstall(&root), []);
        fs::remove_dir_all(root).unwrap();
    }
}
