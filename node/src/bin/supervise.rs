//! The supervisor as an executable of its own, for this package's tests: they have no `dunlin`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(directory) => dunlin_node::supervisor::main(Path::new(&directory)),
        None => ExitCode::FAILURE,
    }
}
