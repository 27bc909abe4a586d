//! Volumes of the engine that stand for our directories.
//!
//! A plain bind mount would hide what the image has at its place; into a volume that is empty the
//! engine copies that, with its owner.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptions;
use dunlin_core::io::Workload;
use dunlin_state::model::VolumeId;
use tracing::debug;

use super::super::StartError;
use super::naming::Owner;
use super::start::refused;
use super::{Engine, Inner};

/// A volume and its directory.
pub(super) type Opened = (VolumeId, PathBuf);

impl Inner {
    /// The volumes of a replica, in the order of the specification, known to the engine; `None` for
    /// bind mounts.
    pub(super) async fn open_volumes(
        &self,
        engine: &Engine,
        workload: &Workload,
    ) -> Result<Vec<Option<Opened>>, StartError> {
        if workload.spec.volumes.is_empty() {
            return Ok(Vec::new());
        }
        let (root, wanted) = (self.volumes.clone(), workload.clone());
        let open = move || -> Result<Vec<_>, StartError> {
            let mounts = wanted.spec.volumes.iter();
            mounts.map(|mount| root.open(&wanted, mount)).collect()
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let panicked = |_panic| Err(StartError::passing("making its volumes failed"));
        let opened: Vec<Option<Opened>> = opened.unwrap_or_else(panicked)?;
        for (volume, path) in opened.iter().flatten() {
            // One that is there already is answered with.
            let created = engine
                .client
                .create_volume(request(&self.owner, volume, path));
            created
                .await
                .map_err(|error| refused("make a volume for", &error))?;
        }
        Ok(opened)
    }

    /// Removes the engine's volume that stands for a directory which is gone, if it is ours. One
    /// that a dead container still names stays: the engine refuses.
    pub(super) async fn forget_volume(&self, volume: &VolumeId) {
        let Some(engine) = self.client() else {
            return;
        };
        let name = self.owner.volume_name(volume);
        let Ok(found) = engine.client.inspect_volume(&name).await else {
            return;
        };
        let labels = self.owner.volume_labels(volume);
        let ours = |(key, value): (&String, &String)| found.labels.get(key) == Some(value);
        if !labels.iter().all(ours) {
            return;
        }
        let removed = engine
            .client
            .remove_volume(&name, None::<RemoveVolumeOptions>);
        if let Err(error) = removed.await {
            debug!(name, %error, "a volume of the engine is left behind");
        }
    }
}

fn request(owner: &Owner, volume: &VolumeId, path: &Path) -> VolumeCreateRequest {
    let options = [
        ("type", "none".to_owned()),
        ("o", "bind".to_owned()),
        ("device", path.to_string_lossy().into_owned()),
    ];
    let options: HashMap<String, String> = options.map(|(k, v)| (k.to_owned(), v)).into();
    VolumeCreateRequest {
        name: Some(owner.volume_name(volume)),
        driver: Some("local".to_owned()),
        driver_opts: Some(options),
        labels: Some(owner.volume_labels(volume)),
        ..VolumeCreateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_state::model::NodeId;

    use super::*;

    #[test]
    fn no_two_volumes_have_one_name() {
        let owner = Owner::new("c", NodeId::from_bytes([1; 32]));
        let node = &NodeId::from_bytes([1; 32]).to_string()[..6];
        let name = |text: &str| {
            let volume = text.parse().unwrap();
            let request = request(&owner, &volume, Path::new("/data/x"));
            let options = request.driver_opts.unwrap();
            assert_eq!(options["device"], "/data/x");
            request.name.unwrap()
        };
        assert_eq!(name("shop/data"), format!("dunlin-n-{node}-shop.data"));
        assert_eq!(
            name("shop/data@web.0"),
            format!("dunlin-r-{node}-shop.web.0.data")
        );
        assert_ne!(name("shop/data@web.0"), name("shop/web.0.data"));
    }
}
