//! `docs/compose.md`, generated from the table of keys.

use std::fmt::Write;

use super::support::{SECTIONS, Support};

const INTRODUCTION: &str = "\
# Compose files

Generated from `cli/src/compose/support/`; `UPDATE=1 cargo test -p dunlin` writes it anew.

`dunlin deploy` reads the services of a [Compose](https://compose-spec.io) file. Every key of the
specification stands below. One that is *honoured* has its effect; one that is *ignored* gives a
warning that names it; one that is *refused* is a fault, because leaving it out would deploy
something else than what is written. A key that stands nowhere below is a fault too, with the
nearest known key as a hint. All faults of a file are reported at once, each with its line and
column.

Keys that start with `x-` are for other tools and are passed over, except `x-dunlin`.

- **Values.** Durations are written `1m30s`, sizes `512m` (powers of 1024), cores `0.5`.
- **Variables.** `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`,
  `${NAME?message}`, `${NAME:+other}`, `${NAME+other}`, and `$$` for a dollar sign. They come from
  the environment of `dunlin deploy`, and below that from a `.env` file beside the Compose file.
- **YAML.** Anchors, aliases and `<<` merge keys work. A key that is given twice is a fault. Files
  have at most 1 MiB, 64 levels, and 200,000 values after aliases are expanded.
- **Names.** Service names become host names: a-z, 0-9 and `-`, at most 63 characters.
- **Ports.** A port without a host port (`\"80\"`) is reachable by the service's name and not
  published. With the process runtime replicas share their host's network: each declared port gets
  a free host port, given as `PORT` for the first and `DUNLIN_PORT_<port>` for each.
- **Volumes.** The data of a named volume is on one node, and replicas run there
  (`docs/protocols/volumes.md`). Processes are given its directory as `DUNLIN_VOLUME_<NAME>`: in their
  host's file system nothing can be mounted, so `target` and `read_only` mean nothing to them.
";

/// The text of `docs/compose.md`.
pub fn documentation() -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in SECTIONS {
        let title = section.path.replace('<', "\\<");
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## {title}\n\n| key | | |\n|---|---|---|\n");
        for entry in section.keys {
            let (word, note) = match entry.support {
                Support::Honoured(note) => ("honoured", note),
                Support::Ignored(note) => ("ignored", note),
                Support::Refused(note) => ("refused", note),
            };
            let _ = writeln!(text, "| `{}` | {word} | {note} |", entry.key);
        }
    }
    text
}
