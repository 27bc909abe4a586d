//! Secrets and configs as files of replicas.

use std::collections::BTreeSet;

use super::{MAX_TEXT, SpecFault, check_list};
use crate::model::{ServiceSpec, is_file_name};

/// Names and targets become parts of paths on the node that runs a replica.
pub(super) fn check_files(spec: &ServiceSpec) -> Result<(), SpecFault> {
    for (what, mounts) in [("secrets", &spec.secrets), ("configs", &spec.configs)] {
        check_list(what, mounts.len())?;
        let mut names = BTreeSet::new();
        for mount in mounts {
            let target = mount.target();
            let absolute = || {
                let mut parts = target
                    .strip_prefix('/')
                    .into_iter()
                    .flat_map(|t| t.split('/'));
                target.len() <= MAX_TEXT
                    && target.starts_with('/')
                    && !target.chars().any(char::is_control)
                    && parts.all(|part| !matches!(part, "" | "." | ".."))
            };
            let fine = is_file_name(&mount.source)
                && is_file_name(mount.file_name())
                && (is_file_name(target) || absolute())
                && mount.mode.is_none_or(|mode| mode <= 0o777)
                // A process gets all of them in one directory.
                && names.insert(mount.file_name());
            if !fine {
                return Err(SpecFault::BadFile {
                    source_name: mount.source.chars().take(80).collect(),
                    target: target.chars().take(80).collect(),
                });
            }
        }
    }
    Ok(())
}
