//! Devices that replicas may want, found by the names of their nodes in `/dev`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Kinds of devices: what they are called in constraints, the folder below `/dev`, and how the
/// names of their nodes begin. After that comes nothing or a number; `/dev/nvidiactl` is no card.
const KINDS: [(&str, &str, &str); 6] = [
    ("dri", "dri", "renderD"),
    ("fuse", "", "fuse"),
    ("kvm", "", "kvm"),
    ("nvidia", "", "nvidia"),
    ("tpu", "", "apex_"),
    ("tun", "net", "tun"),
];

/// How many there are of each kind; kinds without any are left out.
pub(super) fn kinds(dev: &Path) -> BTreeMap<String, u32> {
    let counted = KINDS.iter().map(|(kind, folder, prefix)| {
        let entries = fs::read_dir(dev.join(folder)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_one = |name: &String| {
            let rest = name.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let count = names.filter(is_one).count();
        ((*kind).to_owned(), u32::try_from(count).unwrap_or(u32::MAX))
    });
    counted.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_by_kind() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("dri")).unwrap();
        let names = [
            "kvm",
            "nvidia0",
            "nvidia1",
            "nvidiactl",
            "nvidia-uvm",
            "null",
            "dri/card0",
            "dri/renderD128",
        ];
        for name in names {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let expected = [("dri", 1), ("kvm", 1), ("nvidia", 2)];
        let expected = expected.map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(kinds(dev.path()), BTreeMap::from(expected));
        assert_eq!(kinds(&dev.path().join("none")), BTreeMap::new());
    }
}
