//! What every command works with: the node to ask, the namespace, the output.

use std::path::{Path, PathBuf};

use dunlin_api::client::Client;
use dunlin_state::model::ServiceKey;

use crate::failure::Failure;
use crate::output::Output;

/// What every command works with.
pub struct Context {
    /// The node to ask.
    pub client: Client,
    /// Whether answers are for programs.
    pub json: bool,
    /// The namespace of names that name none.
    pub namespace: Option<String>,
    /// Where words go.
    pub out: Output,
}

impl Context {
    /// Reads `name` or `namespace/name`.
    pub fn service(&self, text: &str) -> Result<ServiceKey, Failure> {
        let key = match (text.contains('/'), &self.namespace) {
            (false, Some(namespace)) => ServiceKey::new(namespace, text),
            (true, _) | (false, None) => text.parse(),
        };
        key.map_err(|bad| Failure::usage(bad.to_string()))
    }

    /// A service's name as this command's user would write it: short where that is clear.
    pub fn display(&self, key: &ServiceKey) -> String {
        let implied = self.namespace.as_deref();
        if key.namespace() == implied.unwrap_or(ServiceKey::DEFAULT_NAMESPACE) {
            key.name().to_owned()
        } else {
            key.to_string()
        }
    }
}

/// Where the daemon of this user listens when nobody says otherwise: `/run/dunlin/api.sock` for
/// root, `dunlin/api.sock` in the user's runtime directory, or in their data directory where there
/// is none (cron, containers).
pub fn default_socket() -> PathBuf {
    let root = rustix::process::geteuid().is_root();
    socket_for(
        root,
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        &default_data_dir(),
    )
}

/// Where the daemon of this user keeps its state when nobody says otherwise.
pub fn default_data_dir() -> PathBuf {
    let root = rustix::process::geteuid().is_root();
    data_dir_for(
        root,
        std::env::var_os("XDG_DATA_HOME").map(PathBuf::from),
        std::env::var_os("HOME").map(PathBuf::from),
    )
}

fn socket_for(root: bool, runtime_dir: Option<PathBuf>, data_dir: &Path) -> PathBuf {
    if root {
        return PathBuf::from("/run/dunlin/api.sock");
    }
    // The XDG specification tells to ignore relative paths.
    match runtime_dir.filter(|d| d.is_absolute()) {
        Some(directory) => directory.join("dunlin/api.sock"),
        None => data_dir.join("api.sock"),
    }
}

fn data_dir_for(root: bool, data_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    if root {
        return PathBuf::from("/var/lib/dunlin");
    }
    let data_home = data_home.filter(|d| d.is_absolute());
    let share = data_home.or_else(|| home.map(|h| h.join(".local/share")));
    share.unwrap_or_else(std::env::temp_dir).join("dunlin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_user() {
        let dir = |text: &str| Some(PathBuf::from(text));
        let data = data_dir_for(false, None, dir("/home/ann"));
        assert_eq!(data, PathBuf::from("/home/ann/.local/share/dunlin"));
        assert_eq!(
            data_dir_for(false, dir("/x"), dir("/home/ann")),
            PathBuf::from("/x/dunlin")
        );
        assert_eq!(
            data_dir_for(true, dir("/x"), None),
            PathBuf::from("/var/lib/dunlin")
        );
        assert_eq!(
            socket_for(true, dir("/run/user/0"), &data),
            PathBuf::from("/run/dunlin/api.sock")
        );
        assert_eq!(
            socket_for(false, dir("/run/user/7"), &data),
            PathBuf::from("/run/user/7/dunlin/api.sock")
        );
        for none in [None, dir("relative")] {
            assert_eq!(socket_for(false, none, &data), data.join("api.sock"));
        }
    }
}
