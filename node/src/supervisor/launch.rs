//! Starting the workload.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::cgroup::CgroupPlan;
use super::ports::{self, Ports};
use super::record::{GivenPort, LaunchSpec, Paths, RunRecord, boot_id};
use super::{Refusal, names, proc, sys};
use crate::runtime::Deadline;

/// A workload that runs.
#[derive(Debug)]
pub(super) struct Launched {
    /// What is told to the daemon.
    pub(super) record: RunRecord,
    /// Its first process.
    pub(super) leader: Pid,
    /// Becomes readable when that one has ended.
    pub(super) leader_fd: OwnedFd,
    /// Read end of its standard output.
    pub(super) out: OwnedFd,
    /// Read end of its standard error.
    pub(super) err: OwnedFd,
    /// The FIFO with orders.
    pub(super) control: File,
    /// Its cgroup, if it has one.
    pub(super) cgroup: Option<CgroupPlan>,
    /// When it has to be dead, unless it is told of a later time.
    pub(super) dead_by: Option<Deadline>,
    /// Size at which a log file is put aside.
    pub(super) log_file_bytes: u64,
    /// Keeps its ports reserved.
    pub(super) _ports: Ports,
}

impl Launched {
    /// Kills it again, for want of a record.
    pub(super) fn abandon(self) {
        let _ = rustix::process::kill_process_group(self.leader, Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
        }
        let _ = rustix::process::waitpid(Some(self.leader), rustix::process::WaitOptions::empty());
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }
}

/// Starts what the specification says.
pub(super) fn launch(paths: &Paths, spec: &LaunchSpec) -> Result<Launched, Refusal> {
    // Orphans of the workload come to this process and not to init, so that it can end them.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let user = spec.user.as_deref().map(User::find).transpose()?;
    let program = program(spec)?;
    let working_dir = working_dir(paths, spec, user.as_ref())?;
    for volume in &spec.volumes {
        give(volume, user.as_ref())?;
    }
    let ports = ports::choose(&spec.ports, spec.address)?;
    let control = open_control(&paths.control())
        .map_err(|e| Refusal::passing(format!("cannot make the control pipe: {e}")))?;
    let (cgroup, mut notes) = enter_cgroup(spec.cgroup.as_ref());
    if let Some(text) = &spec.resolv_conf {
        notes.extend(names::give(paths, text).err());
    }

    let mut command = Command::new(&program);
    command
        .arg0(&spec.argv[0])
        .args(&spec.argv[1..])
        .current_dir(&working_dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    set_environment(&mut command, spec, &ports.given, user.as_ref());
    if let Some(user) = &user
        && !user.is_self()
    {
        command.uid(user.uid).gid(user.gid);
    }
    let procs = cgroup.as_ref().map(CgroupPlan::open_procs);
    sys::bind_to_parent(&mut command, procs.unwrap_or_default());
    let running = spawn(command, notes, &ports);
    match running {
        Ok((record, leader, leader_fd, out, err)) => Ok(Launched {
            record,
            leader,
            leader_fd,
            out,
            err,
            control,
            cgroup,
            dead_by: spec.dead_by,
            log_file_bytes: spec.log_file_bytes,
            _ports: ports,
        }),
        Err(error) => {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            Err(cannot_execute(&program, &error))
        }
    }
}

type Spawned = (RunRecord, Pid, OwnedFd, OwnedFd, OwnedFd);

fn spawn(mut command: Command, notes: Vec<String>, ports: &Ports) -> io::Result<Spawned> {
    let mut child = command.spawn()?;
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let leader = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(missing)?;
    let leader_fd = rustix::process::pidfd_open(leader, PidfdFlags::empty())?;
    let out = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
    let err = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
    for pipe in [&out, &err] {
        rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)?;
    }
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let record = RunRecord {
        boot: boot_id(),
        supervisor: proc::stamp(me).ok_or_else(missing)?,
        // A child that has ended at once is a zombie until it is reaped, and still has a stamp.
        workload: proc::stamp(leader.as_raw_nonzero().get()).ok_or_else(missing)?,
        ports: ports.given.clone(),
        notes,
    };
    Ok((record, leader, leader_fd, out, err))
}

fn cannot_execute(program: &Path, error: &io::Error) -> Refusal {
    let program = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::hopeless(format!(
            "cannot execute {program}: the interpreter it names is not on this node"
        )),
        io::ErrorKind::PermissionDenied => Refusal::hopeless(format!(
            "cannot execute {program}: permission denied (is it executable, and may the user \
             enter the working directory?)"
        )),
        io::ErrorKind::InvalidInput => {
            Refusal::hopeless("its command or environment holds a NUL byte")
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            Refusal::hopeless(format!(
                "cannot execute {program}: it is no program for this machine"
            ))
        }
        _ => Refusal::passing(format!("cannot execute {program}: {error}")),
    }
}

fn enter_cgroup(plan: Option<&CgroupPlan>) -> (Option<CgroupPlan>, Vec<String>) {
    let Some(plan) = plan else {
        return (None, Vec::new());
    };
    match plan.create() {
        Ok(()) => (Some(plan.clone()), plan.apply_limits()),
        Err(error) => (None, vec![format!("limits not enforced: {error}")]),
    }
}

/// Opened for reading and writing, so that it never reports the end of a writer.
fn open_control(path: &Path) -> io::Result<File> {
    match rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
}

/// Gives the command the workload's environment and nothing of this process's.
pub(super) fn set_environment(
    command: &mut Command,
    spec: &LaunchSpec,
    ports: &[GivenPort],
    user: Option<&User>,
) {
    command.env_clear();
    if let Some(user) = user {
        command.env("HOME", &user.home).env("USER", &user.name);
    } else if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    command.env("HOST", spec.address.to_string());
    command.envs(&spec.environment);
    for given in ports {
        command.env(
            format!("DUNLIN_PORT_{}", given.target),
            given.port.to_string(),
        );
    }
    if let Some(first) = ports.first() {
        command.env("PORT", first.port.to_string());
    }
}

/// Finds the program: `dunlin` is this very executable, so that examples need no installation.
pub(super) fn program(spec: &LaunchSpec) -> Result<PathBuf, Refusal> {
    let name = spec
        .argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Refusal::hopeless("it has no command to run"))?;
    if name == "dunlin" {
        return Ok(spec.dunlin.clone());
    }
    if name.contains('/') {
        let path = match &spec.working_dir {
            Some(directory) => directory.join(name),
            None => PathBuf::from(name),
        };
        return match path.is_file() {
            true => Ok(path),
            false => Err(Refusal::hopeless(format!(
                "no program '{name}' on this node"
            ))),
        };
    }
    let search = spec.environment.get("PATH").map_or("", String::as_str);
    std::env::split_paths(search)
        .map(|directory| directory.join(name))
        .find(|path| {
            path.metadata()
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| Refusal::hopeless(format!("no program '{name}' on this node's PATH")))
}

/// Where the workload is started, made if it is the attempt's own directory.
pub(super) fn working_dir(
    paths: &Paths,
    spec: &LaunchSpec,
    user: Option<&User>,
) -> Result<PathBuf, Refusal> {
    if let Some(directory) = &spec.working_dir {
        return if directory.is_dir() {
            Ok(directory.clone())
        } else {
            Err(Refusal::hopeless(format!(
                "no working directory {} on this node",
                directory.display()
            )))
        };
    }
    // Another user may not enter the daemon's data directory.
    if let Some(user) = user.filter(|user| !user.is_self()) {
        return Ok(match user.home.is_dir() {
            true => user.home.clone(),
            false => PathBuf::from("/"),
        });
    }
    let directory = paths.work();
    std::fs::create_dir_all(&directory)
        .map_err(|e| Refusal::passing(format!("cannot make {}: {e}", directory.display())))?;
    Ok(directory)
}

fn give(volume: &Path, user: Option<&User>) -> Result<(), Refusal> {
    let Some(user) = user.filter(|user| !user.is_self()) else {
        return Ok(());
    };
    std::os::unix::fs::chown(volume, Some(user.uid), Some(user.gid))
        .map_err(|e| Refusal::passing(format!("cannot hand over {}: {e}", volume.display())))
}

/// The numbers of `user[:group]` on this host, for files that are to be that user's.
pub(crate) fn user_ids(text: &str) -> Result<(u32, u32), String> {
    let user = User::find(text).map_err(|refusal| refusal.reason)?;
    Ok((user.uid, user.gid))
}

/// Whom a workload runs as.
#[derive(Debug)]
pub(super) struct User {
    name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    home: PathBuf,
}

impl User {
    /// Finds `user[:group]`, each a name or a number, in this host's files.
    pub(super) fn find(text: &str) -> Result<Self, Refusal> {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let user = Self::parse(text, &passwd, &group)?;
        if !user.is_self() && !rustix::process::geteuid().is_root() {
            return Err(Refusal::hopeless(format!(
                "running as '{text}' needs a daemon with root"
            )));
        }
        Ok(user)
    }

    fn parse(text: &str, passwd: &str, groups: &str) -> Result<Self, Refusal> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        let unknown =
            |what: &str, name: &str| Refusal::hopeless(format!("no {what} '{name}' on this node"));
        let entry = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let hit = fields.len() >= 6 && (fields[0] == name || fields[2] == name);
            hit.then(|| Some((fields[2].parse().ok()?, fields[3].parse().ok()?, fields[5])))?
        });
        let (uid, own_gid, home) = match entry {
            Some(entry) => entry,
            None => (
                name.parse().ok().ok_or_else(|| unknown("user", name))?,
                0,
                "/",
            ),
        };
        let gid = match group {
            None => own_gid,
            Some(group) => groups
                .lines()
                .find_map(|line| {
                    let fields: Vec<&str> = line.split(':').collect();
                    let hit = fields.len() >= 3 && fields[0] == group;
                    hit.then(|| fields[2].parse().ok())?
                })
                .or_else(|| group.parse().ok())
                .ok_or_else(|| unknown("group", group))?,
        };
        Ok(Self {
            name: name.to_owned(),
            uid,
            gid,
            home: PathBuf::from(home),
        })
    }

    /// Whether this is who the daemon runs as anyway.
    pub(super) fn is_self(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
            && self.gid == rustix::process::getegid().as_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:www:/srv:/bin/false\nbad";
    const GROUP: &str = "root:x:0:\nstaff:x:50:a,b";

    #[test]
    fn users_are_found_by_name_and_number() {
        let table = [
            ("web", Some((33, 34, "/srv"))),
            ("33", Some((33, 34, "/srv"))),
            ("web:staff", Some((33, 50, "/srv"))),
            ("web:7", Some((33, 7, "/srv"))),
            ("1234", Some((1234, 0, "/"))),
            ("1234:1235", Some((1234, 1235, "/"))),
            ("nobody-here", None),
            ("web:nobody-here", None),
            ("", None),
        ];
        for (text, expected) in table {
            let user = User::parse(text, PASSWD, GROUP).ok();
            let found = user
                .as_ref()
                .map(|u| (u.uid, u.gid, u.home.to_str().unwrap()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
