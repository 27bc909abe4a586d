//! A container engine of its own for each host: a dockerd in the host's network namespace.
//!
//! It gets a mount namespace too, with an empty `/run/docker`, because several dockerds on one
//! machine would share that folder otherwise. All that it mounts goes when its last process does.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::net::LabError;

/// The image that every engine of a lab has: a static busybox, and bash with the libraries that it
/// needs, since only what is linked to the host's C library looks names up as programs do.
pub const IMAGE: &str = "dunlin-lab:latest";

/// How long an engine that was asked to end may take before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long its helper, containerd, may outlive it: it is killed with it.
const HELPER_PATIENCE: Duration = Duration::from_secs(5);

/// Where distributions put what a lab needs.
const BIN: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// One engine; it is ended when dropped.
#[derive(Debug)]
pub(super) struct Engine {
    namespace: String,
    folder: PathBuf,
    /// Whether its containers outlive it.
    keeps: bool,
    child: Option<Child>,
    /// It was sent a signal to end.
    stopped: bool,
    /// Where an engine that was stopped has its mounts, of which its containers need theirs.
    mounts: Option<File>,
}

/// Why no lab with engines can run on this machine, or nothing.
pub(super) fn missing() -> Option<String> {
    // Only root can read this folder.
    if fs::read_dir("/proc/1/fd").is_err() {
        return Some("it needs root".to_owned());
    }
    ["dockerd", "docker", "busybox", "bash", "unshare"]
        .into_iter()
        .find(|name| program(name).is_none())
        .map(|name| format!("there is no {name} on this machine"))
}

fn program(name: &str) -> Option<PathBuf> {
    BIN.iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

/// Copies bash and what `ldd` says that it needs, each to where it is here.
fn put_bash(image: &Path) -> Result<(), LabError> {
    let trouble = |e: std::io::Error| LabError::new("make an image", e);
    let bash = program("bash").ok_or_else(|| LabError::broken("no bash"))?;
    let needs = checked(
        "ask what bash needs",
        Command::new("ldd").arg(&bash).output(),
    )?;
    let libraries = needs
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for source in libraries.map(Path::new) {
        let target = image.join(source.strip_prefix("/").unwrap_or(source));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(trouble)?;
        }
        fs::copy(source, target).map_err(trouble)?;
    }
    fs::copy(&bash, image.join("bin/bash")).map_err(trouble)?;
    Ok(())
}

impl Engine {
    pub(super) fn new(namespace: String, folder: PathBuf, keeps: bool) -> Self {
        Self {
            namespace,
            folder,
            keeps,
            child: None,
            stopped: false,
            mounts: None,
        }
    }

    /// Starts it, unless it runs. It takes a while to answer.
    pub(super) fn start(&mut self) -> Result<(), LabError> {
        if self.child.is_some() {
            return Ok(());
        }
        let trouble = |e: std::io::Error| LabError::new("start a container engine", e);
        fs::create_dir_all(&self.folder).map_err(trouble)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .map_err(trouble)?;
        // Pid files that outlived an engine would keep the next one from starting.
        let _none_at_first = fs::remove_file(self.folder.join("pid"));
        self.forget_helper();
        let prepare = "mkdir -p /run/docker && mount -t tmpfs lab /run/docker && exec \"$@\"";
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        match &self.mounts {
            Some(mounts) => {
                let (lab, file) = (std::process::id(), mounts.as_raw_fd());
                command.arg(format!("--mount=/proc/{lab}/fd/{file}"))
            }
            None => command.args(["unshare", "--mount", "sh", "-c", prepare, "sh"]),
        };
        command
            .arg("dockerd")
            .arg("--data-root")
            .arg(self.data())
            .arg("--exec-root")
            .arg(self.folder.join("exec"))
            .arg("--pidfile")
            .arg(self.folder.join("pid"))
            .args(["--host", &self.address()])
            .args(self.keeps.then_some("--live-restore"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(trouble)?)
            .stderr(log);
        self.child = Some(command.spawn().map_err(trouble)?);
        self.stopped = false;
        Ok(())
    }

    /// Waits until the helper of an engine that has ended is gone too, and removes its pid file: where
    /// nobody has reaped it, or the number is another's by now, an engine would wait for it in vain.
    fn forget_helper(&self) {
        let file = self.folder.join("exec/containerd/containerd.pid");
        let Ok(pid) = fs::read_to_string(&file) else {
            return;
        };
        let line = format!("/proc/{}/cmdline", pid.trim());
        let data = self.folder.display().to_string();
        let runs = || fs::read_to_string(&line).is_ok_and(|line| line.contains(&data));
        let start = Instant::now();
        while runs() && start.elapsed() < HELPER_PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !runs() {
            let _gone_already = fs::remove_file(file);
        }
    }

    /// How it ended, if it did so without having been asked to.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = match &mut self.child {
            Some(child) if !self.stopped => child.try_wait().ok().flatten()?,
            Some(_) | None => return None,
        };
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        Some(format!("{status}, after: {last}"))
    }

    /// Where it listens, as `DOCKER_HOST` wants it.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.folder.join("sock").display())
    }

    /// Its process: what it was started through becomes it.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it answers.
    pub(super) fn answers(&self) -> bool {
        self.docker(&["version"]).is_ok()
    }

    /// Gives it [`IMAGE`].
    pub(super) fn load_image(&self) -> Result<(), LabError> {
        let trouble = |e: std::io::Error| LabError::new("make an image", e);
        let bin = self.folder.join("image/bin");
        fs::create_dir_all(&bin).map_err(trouble)?;
        let busybox = program("busybox").ok_or_else(|| LabError::broken("no busybox"))?;
        fs::copy(busybox, bin.join("busybox")).map_err(trouble)?;
        symlink("busybox", bin.join("sleep")).map_err(trouble)?;
        put_bash(&self.folder.join("image"))?;
        let archive = self.folder.join("image.tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(self.folder.join("image"))
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .output();
        checked("pack an image", packed)?;
        self.docker(&["import", &archive.display().to_string(), IMAGE])
            .map(|_id| ())
    }

    /// How many containers run: none while it was not started.
    pub(super) fn running(&self) -> Result<usize, LabError> {
        if self.child.is_none() {
            return Ok(0);
        }
        Ok(self.docker(&["ps", "-q"])?.lines().count())
    }

    /// Its containers, dead ones too, with the process and the addresses that it knows of each.
    pub(super) fn story(&self) -> Vec<String> {
        let all = self.docker(&["ps", "-aq"]).unwrap_or_default();
        let list: Vec<&str> = all.lines().collect();
        if list.is_empty() {
            return Vec::new();
        }
        let shape = "{{.Name}} {{.State.Status}} since {{.State.StartedAt}}, process {{.State.Pid}} at \
                     {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let told = self.docker(&[&["inspect", "--format", shape], list.as_slice()].concat());
        let told = told.unwrap_or_else(|error| error.to_string());
        told.lines().map(str::to_owned).collect()
    }

    fn docker(&self, arguments: &[&str]) -> Result<String, LabError> {
        let output = Command::new("docker")
            .args(["--host", &self.address()])
            .args(arguments)
            .output();
        checked("call a container engine", output)
    }

    /// Whether a process is the engine, one of its helpers, or in one of its containers. All of
    /// them have its data folder among their mounts, wherever their parents went.
    pub(super) fn owns(&self, pid: u32) -> bool {
        let data = self.data().display().to_string();
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|m| m.contains(&data))
    }

    /// Takes note that all its processes have been killed.
    fn was_killed(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Sends it a signal to end it. Its containers may go on, as far as it lets them.
    pub(super) fn stop(&mut self, signal: &str) -> Result<(), LabError> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        let space = |pid: &str| format!("/proc/{pid}/ns/mnt");
        let inode = |path: &str| fs::metadata(path).map(|m| m.ino()).ok();
        let (own, its) = (space("self"), space(&child.id().to_string()));
        // One that was started a moment ago may not have got it yet.
        if inode(&own) != inode(&its) {
            self.mounts = File::open(its).ok();
        }
        self.stopped = true;
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).arg(child.id().to_string());
        checked("end a container engine", kill.output()).map(drop)
    }

    /// Waits for the end of the one that was stopped, but not for ever, and starts it again.
    pub(super) fn restart(&mut self) -> Result<(), LabError> {
        self.wait_for_end();
        self.was_killed();
        self.start()
    }

    /// Ends it for good.
    pub(super) fn retire(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("note: a container engine did not end by itself: {error}");
        }
        self.was_killed();
    }

    /// Takes note that everything on its host was killed: all that it mounted is gone.
    pub(super) fn lost_power(&mut self) {
        self.was_killed();
        self.mounts = None;
    }

    fn wait_for_end(&mut self) {
        let start = Instant::now();
        let Some(child) = &mut self.child else {
            return;
        };
        while matches!(child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Removes all containers and asks it to end.
    fn end(&mut self) -> Result<(), LabError> {
        if self.child.is_none() {
            return Ok(());
        }
        let all = self.docker(&["ps", "-aq"])?;
        let list: Vec<&str> = all.lines().collect();
        if !list.is_empty() {
            self.docker(&[&["rm", "-f"], list.as_slice()].concat())?;
        }
        self.stop("TERM")?;
        self.wait_for_end();
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.retire();
    }
}

fn checked(what: &str, output: std::io::Result<Output>) -> Result<String, LabError> {
    let output = output.map_err(|e| LabError::new(what, e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::new(what, complaint))
}
