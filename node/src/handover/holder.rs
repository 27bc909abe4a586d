//! The process that holds listening sockets while no daemon runs.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dunlin_lb::publish::Sockets;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, chmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use super::packets::{Head, acknowledge, patient, receive, receive_all, send_all};
use super::{PATIENCE, SOCKET};
use crate::vips;

/// How long the daemon may take to end after it has handed its sockets over: its parts get 5 s.
const ENDING: Duration = Duration::from_secs(20);

/// Holds the sockets that come through standard input until the next daemon of this data directory
/// asks for them, or the time is over.
pub fn main(data_dir: &Path) -> ExitCode {
    // Fails only for who leads a session already.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"dunlin-hold");
    match hold(data_dir) {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell.
        Err(_nobody_is_served) => ExitCode::FAILURE,
    }
}

fn hold(data_dir: &Path) -> io::Result<()> {
    let daemon = rustix::io::dup(rustix::stdio::stdin())?;
    patient(&daemon, PATIENCE)?;
    let (head, sockets) = receive_all(&daemon)?;
    let desk = Desk::open(data_dir.join(SOCKET))?;
    acknowledge(&daemon)?;
    let taken = desk.serve(&daemon, &head, &sockets);
    drop(desk);
    if !taken && head.has_routes {
        forget_routes(&head);
    }
    Ok(())
}

fn forget_routes(head: &Head) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    if let Ok(runtime) = runtime {
        runtime.block_on(vips::forget_routes(head.range()));
    }
}

/// Where the next daemon asks; its file goes with it.
struct Desk {
    path: PathBuf,
    socket: OwnedFd,
}

impl Desk {
    fn open(path: PathBuf) -> io::Result<Self> {
        // That of a holder which was killed.
        let _none = std::fs::remove_file(&path);
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        chmod(&path, Mode::RUSR | Mode::WUSR)?;
        listen(&socket, 1)?;
        Ok(Self { path, socket })
    }

    /// Whether a daemon has taken the sockets before the time was over.
    fn serve(&self, daemon: &OwnedFd, head: &Head, sockets: &Sockets) -> bool {
        let mut until = Instant::now() + ENDING;
        let mut ended = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(daemon, PollFlags::IN),
            ];
            let watched = if ended { &mut fds[..1] } else { &mut fds[..] };
            let Ok(limit) = Timespec::try_from(left) else {
                return false;
            };
            match poll(watched, Some(&limit)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
            let asked = !watched[0].revents().is_empty();
            // Nothing more is said on the link: that it can be read means that it has ended.
            if !ended && !watched[1].revents().is_empty() {
                ended = true;
                until = Instant::now() + Duration::from_millis(head.hold_ms);
            }
            if asked && self.give(head, sockets).is_ok() {
                return true;
            }
        }
    }

    fn give(&self, head: &Head, sockets: &Sockets) -> io::Result<()> {
        let client = accept_with(&self.socket, SocketFlags::CLOEXEC)?;
        let own = rustix::process::geteuid();
        if socket_peercred(client.as_fd())?.uid != own {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        patient(&client, PATIENCE)?;
        send_all(&client, head, sockets)?;
        receive(&client).map(drop)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}
