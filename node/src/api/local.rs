//! Local users: whom the Unix socket lets in.
//!
//! The socket's file mode is the first gate. The second is the kernel's word on who connected
//! (SO_PEERCRED), because a file mode is easily widened by accident: root, the daemon's own user,
//! and with `--api-group` the members of that group.

use std::fs;

use tokio::net::UnixStream;

use super::access::Caller;

/// A group whose members may use the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) id: u32,
}

/// Whom the socket lets in.
#[derive(Debug, Clone)]
pub(crate) struct Doorman {
    own: u32,
    group: Option<Group>,
}

impl Doorman {
    pub(crate) fn new(group: Option<Group>) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self { own, group }
    }

    /// Who connected, as the kernel says.
    pub(crate) fn caller(&self, stream: &UnixStream) -> Caller {
        match stream.peer_cred() {
            Ok(peer) => self.judge(peer.uid(), peer.gid()),
            Err(error) => Caller::stranger(
                None,
                format!("the kernel does not say who you are: {error}"),
            ),
        }
    }

    fn judge(&self, uid: u32, gid: u32) -> Caller {
        let name = user_name(uid);
        let author = match &name {
            Some(name) => format!("{name} (uid {uid})"),
            None => format!("uid {uid}"),
        };
        if uid == 0 || uid == self.own {
            return Caller::local(author);
        }
        let Some(group) = &self.group else {
            return Caller::stranger(
                None,
                format!(
                    "{author} may not use this daemon: only root and its own user may; start it with --api-group to let a group in"
                ),
            );
        };
        // The groups of the peer's process, beyond its first, are not the kernel's to tell here:
        // the group file is asked as at a login.
        if gid == group.id || name.is_some_and(|name| members(&group.name).any(|m| m == name)) {
            return Caller::local(author);
        }
        Caller::stranger(
            None,
            format!(
                "{author} is not in the group '{}', whose members may use this daemon",
                group.name
            ),
        )
    }
}

/// The local group of this name; directories over the network are not asked.
pub(crate) fn group(name: &str) -> Option<Group> {
    let file = fs::read_to_string("/etc/group").ok()?;
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let id = fields.nth(1)?.parse().ok()?;
        found.then(|| Group {
            name: name.to_owned(),
            id,
        })
    })
}

/// Who is listed in that group.
fn members(group: &str) -> impl Iterator<Item = String> {
    let file = fs::read_to_string("/etc/group").unwrap_or_default();
    let line = file
        .lines()
        .find(|line| line.split(':').next() == Some(group));
    let list = line
        .and_then(|line| line.split(':').nth(3))
        .unwrap_or_default();
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    names.into_iter().filter(|name| !name.is_empty())
}

/// The name of a local user.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user id that no host gives out.
    const STRANGER: u32 = 3_999_999_999;

    #[test]
    fn root_and_the_daemons_own_user_are_let_in_and_named() {
        let doorman = Doorman {
            own: 4_242_424,
            group: None,
        };
        let root = doorman.judge(0, 0);
        assert!(!root.is_stranger());
        assert_eq!(root.author(), "root (uid 0)");
        let own = doorman.judge(4_242_424, 1);
        assert!(!own.is_stranger());
        assert_eq!(own.author(), "uid 4242424");
        assert!(doorman.judge(STRANGER, 0).is_stranger());
    }

    #[test]
    fn a_group_is_let_in_when_the_daemon_is_told_so() {
        let root = group("root").expect("every host has it");
        assert_eq!(root.id, 0);
        let other = Group {
            name: "nobody-is-in-this".into(),
            id: 4_141_414,
        };
        let doorman = Doorman {
            own: 1,
            group: Some(other),
        };
        assert!(!doorman.judge(STRANGER, 4_141_414).is_stranger());
        assert!(doorman.judge(STRANGER, 4_141_415).is_stranger());
        assert_eq!(group("no-such-group-here"), None);
    }
}
